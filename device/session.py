# SPDX-License-Identifier: Apache-2.0
"""Open a card, load a model, run it: the one Python class that a caller of the card needs.

It reads as onnxruntime's InferenceSession does. What the compiler could not place on the card runs
on onnxruntime between card segments; `placement` says which node runs where and why.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError

from device.binding import Card, Program
from device.compiler import (
    CardSegment,
    CompiledModel,
    HostSegment,
    Placement,
    TensorInfo,
    compile_model,
)
from device.compiler.reader import describe_inputs_and_outputs
from device.errors import InputError, ModelError

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
Model = str | Path | bytes

SHAPES_KEPT = 8
"""Programs of a model with symbolic dimensions are kept for this many input shapes."""


class Session:
    """One model, ready to run. Safe to call from several threads at once.

    `model` is a path or the bytes of an ONNX file. `card` is "inproc" (a software card of its own
    with `threads` compute workers), an open `Card` shared with others, or "none" (all of it on
    onnxruntime). `threads` also bounds onnxruntime's.

    Raises ModelError where the model cannot be read or run, CardError where the card refuses it.
    """

    def __init__(
        self,
        model: Model,
        card: Literal["inproc", "none"] | Card = "inproc",
        threads: int = 1,
        *,
        name: str | None = None,
    ) -> None:
        self.name = name or (Path(model).name if isinstance(model, str | Path) else "model")
        self._threads = threads
        self._lock = threading.Lock()
        self._variants: OrderedDict[object, _Variant] = OrderedDict()
        self._card: Card | None = None
        self._owns_card = False
        if card == "none":
            self._open_without_card(model)
            return
        proto = _read(model, self.name)
        compiled = compile_model(proto, name=self.name)
        fixed_shapes = all(isinstance(d, int) for info in compiled.inputs for d in info.shape)
        self._proto = None if fixed_shapes else proto
        self.inputs = list(compiled.inputs)
        self.outputs = list(compiled.outputs)
        self.placement = list(compiled.placement)
        self._input_names = frozenset(info.name for info in self.inputs)
        self._declared = compiled
        if isinstance(card, Card):
            self._card = card
        else:
            self._card, self._owns_card = Card.open(card, threads=threads), True
        try:
            self._fixed = None if compiled.needs_shapes else self._load(compiled)
        except BaseException:
            self.close()
            raise

    def _open_without_card(self, model: Model) -> None:
        source = model if isinstance(model, bytes) else str(model)
        host = _open_onnxruntime(source, self.name, self._threads)
        self._proto = None
        proto = _read(model, self.name)
        self.inputs, self.outputs = describe_inputs_and_outputs(proto)
        reason = 'the session was opened with card="none"'
        self.placement = [
            Placement(n.name or f"{n.op_type}_{n.output[0]}", n.op_type, "onnxruntime", reason)
            for n in proto.graph.node
        ]
        self._input_names = frozenset(info.name for info in self.inputs)
        names = tuple(info.name for info in self.outputs)
        segment = HostSegment(b"", tuple(self._input_names), names)
        self._declared = CompiledModel(
            self.name,
            tuple(self.inputs),
            tuple(self.outputs),
            (segment,),
            tuple(self.placement),
            {},
            batchable=False,
            any_shape=True,
        )
        self._fixed = _Variant(self._declared, [host])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unload the model and, where the session opened it, close the card."""
        self._fixed = None
        with self._lock:
            self._variants.clear()
        card, self._card = self._card, None
        if card is not None and self._owns_card:
            card.close()

    @property
    def card(self) -> Card | None:
        """The card the session runs on, None with card="none" or after close()."""
        return self._card

    def reload(self) -> None:
        """Load the programs again after the card was reset or came back. Raises CardError."""
        if self._card is None:
            return
        with self._lock:
            self._variants.clear()
        if not self._declared.needs_shapes:
            self._fixed = self._load(self._declared)

    def run(self, output_names: Sequence[str] | None, feeds: Feeds) -> list[Array]:
        """Outputs, in the order of `output_names` (None: all, as declared), for one set of feeds.

        Raises InputError for a wrong name, type or shape, CardError where the card fails; the
        feeds are never changed.
        """
        variant = self._fixed
        if variant is None:
            variant = self._variant_for(feeds)
        elif not variant.takes_exactly(feeds):
            feeds = self._checked(feeds)
            variant, feeds = self._fit(variant, feeds)
        values = variant.run(feeds)
        if output_names is None:
            return [values[info.name] for info in self.outputs]
        try:
            return [values[name] for name in output_names]
        except KeyError as missing:
            known = ", ".join(info.name for info in self.outputs)
            raise InputError(
                f"{self.name} has no output {missing}; its outputs are {known}"
            ) from None

    def _checked(self, feeds: Feeds) -> dict[str, Array]:
        """Contiguous feeds of the declared types and ranks, or an InputError naming the tensor."""
        for name in feeds:
            if name not in self._input_names:
                known = ", ".join(info.name for info in self.inputs)
                raise InputError(f"{self.name} has no input {name!r}; its inputs are {known}")
        checked: dict[str, Array] = {}
        symbols: dict[str, int] = {}
        for info in self.inputs:
            if info.name not in feeds:
                raise InputError(f"{self.name} needs input {info.name!r} {_spell(info)}")
            array = np.asarray(feeds[info.name])
            if array.dtype != info.dtype and info.dtype != object:
                raise InputError(
                    f"input {info.name!r} of {self.name} must be {info.dtype}, got {array.dtype}"
                )
            if not _shape_fits(info.shape, array.shape, symbols):
                raise InputError(
                    f"input {info.name!r} of {self.name} must have shape {_spell(info)}, "
                    f"got {list(array.shape)}"
                )
            checked[info.name] = np.ascontiguousarray(array).reshape(array.shape)
        return checked

    def _fit(self, variant: "_Variant", feeds: dict[str, Array]) -> tuple["_Variant", Feeds]:
        if variant.batch(feeds) is not None:
            return variant, feeds
        return self._variant_for(feeds), feeds

    def _variant_for(self, feeds: Feeds) -> "_Variant":
        """The program for these shapes, compiled on first use; the least used one makes room."""
        feeds = self._checked(feeds)
        shapes = {name: array.shape for name, array in feeds.items()}
        key = tuple(sorted(shapes.items()))
        with self._lock:
            variant = self._variants.get(key)
            if variant is not None:
                self._variants.move_to_end(key)
                return variant
        if self._card is None or self._proto is None:
            raise InputError(f"the session of {self.name} is closed")
        variant = self._load(compile_model(self._proto, shapes, name=self.name))
        with self._lock:
            self._variants[key] = variant
            while len(self._variants) > SHAPES_KEPT:
                self._variants.popitem(last=False)
        return variant

    def _load(self, compiled: CompiledModel) -> "_Variant":
        assert self._card is not None
        runners: list[Program | ort.InferenceSession] = []
        for segment in compiled.segments:
            if isinstance(segment, CardSegment):
                runners.append(self._card.load_program(segment.program))
            else:
                runners.append(_open_onnxruntime(segment.model, self.name, self._threads))
        return _Variant(compiled, runners)


class _Variant:
    """The segments of one compiled model, loaded. Dropping it unloads its programs."""

    def __init__(
        self, compiled: CompiledModel, runners: Sequence[Program | ort.InferenceSession]
    ) -> None:
        self._compiled = compiled
        self._steps = list(zip(compiled.segments, runners, strict=True))
        self._exact = tuple(
            (info.name, info.dtype, tuple(compiled.shapes.get(info.name, ())))
            for info in compiled.inputs
        )

    def takes_exactly(self, feeds: Feeds) -> bool:
        """Whether the feeds need no further look: the hot path of a fixed shape."""
        if len(feeds) != len(self._exact) or self._compiled.any_shape:
            return False
        for name, dtype, shape in self._exact:
            array = feeds.get(name)
            if (
                array is None
                or array.__class__ is not np.ndarray
                or array.shape != shape
                or array.dtype != dtype
                or not array.flags.c_contiguous
            ):
                return False
        return True

    def batch(self, feeds: Feeds) -> int | None:
        """Items that the feeds hold, or None where this variant was compiled for other shapes."""
        if self._compiled.any_shape:
            return 1
        batches = set()
        for name, _, shape in self._exact:
            got = feeds[name].shape
            if got == shape:
                batches.add(1)
            elif not self._compiled.batchable or got[1:] != shape[1:] or got[0] % shape[0]:
                return None
            else:
                batches.add(got[0] // shape[0])
        return batches.pop() if len(batches) == 1 else None

    def run(self, feeds: Feeds) -> dict[str, Array]:
        batch = self.batch(feeds)
        assert batch is not None
        values: dict[str, Array] = dict(self._compiled.constants)
        values.update(feeds)
        for segment, runner in self._steps:
            if isinstance(segment, CardSegment):
                outputs = [
                    np.empty((port.shape[0] * batch, *port.shape[1:]), port.dtype)
                    if batch != 1
                    else np.empty(port.shape, port.dtype)
                    for port in segment.outputs
                ]
                if batch:
                    runner.run([values[port.name] for port in segment.inputs], batch, outputs)
                for port, output in zip(segment.outputs, outputs, strict=True):
                    values[port.name] = output
            else:
                taken = {name: values[name] for name in segment.inputs}
                names = list(segment.outputs)
                values.update(zip(names, runner.run(names, taken), strict=True))
        return values


def _read(model: Model, name: str) -> onnx.ModelProto:
    """The model with its external data; ModelError names what is wrong with it."""
    try:
        if isinstance(model, bytes):
            return onnx.load_model_from_string(model)
        return onnx.load(str(model))
    except FileNotFoundError as error:
        raise ModelError(f"{name}: no such file: {error.filename or model}") from None
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{name} is not a readable ONNX model ({error}); export or fetch it again"
        ) from error


def _open_onnxruntime(source: str | bytes, name: str, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if error.__class__.__module__.startswith("onnxruntime"):
            raise ModelError(f"{name}: onnxruntime cannot run it: {error}") from error
        raise


def _shape_fits(
    declared: Sequence[int | str | None], got: Sequence[int], symbols: dict[str, int]
) -> bool:
    """Whether a shape agrees with the declared one; `symbols` collects what symbols stand for."""
    if len(declared) != len(got):
        return False
    for dimension, size in zip(declared, got, strict=True):
        if isinstance(dimension, str):
            if symbols.setdefault(dimension, size) != size:
                return False
        elif dimension is not None and dimension != size:
            return False
    return True


def _spell(info: TensorInfo) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in info.shape) + "]"
