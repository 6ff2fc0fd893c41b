# SPDX-License-Identifier: Apache-2.0
"""Open a card, load a model, run it: the one Python class that a caller of the card needs.

It reads as onnxruntime's InferenceSession does. What the compiler could not place on the card runs
on onnxruntime between card segments; `placement` says which node runs where and why.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from device.binding import Card, Program
from device.binding.card import IsaName, give_back_memory
from device.compiled import Source, open_compiled
from device.compiler import (
    CardSegment,
    Clash,
    CompiledModel,
    HostSegment,
    Placement,
    TensorInfo,
    compile_model,
)
from device.errors import InputError, ModelError, ProgramRejected
from device.feeds import FeedCheck, Feeds, as_inputs
from device.host import open_session
from device.source import Model, load_model, open_lean

__all__ = ["ORT_DTYPES", "SHAPES_KEPT", "Session", "load_model", "open_lean", "open_onnxruntime"]

Array = npt.NDArray[Any]

ORT_DTYPES = {
    f"tensor({name})": np.dtype(kind)
    for name, kind in (
        *(("float", "f4"), ("double", "f8"), ("float16", "f2"), ("bool", "?")),
        *(
            (f"{sign}int{bits}", f"{sign}int{bits}")
            for sign in ("", "u")
            for bits in (8, 16, 32, 64)
        ),
    )
}

SHAPES_KEPT = 8
"""Programs of a model with symbolic dimensions are kept for this many input shapes."""


class Session:
    """One model, ready to run. Safe to call from several threads at once.

    `model` is a path or the bytes of an ONNX file. `card` is "inproc" (a software card of its own
    with `threads` compute workers, held to the instruction set `isa` where that is not "auto"), an
    open `Card` shared with others, or "none" (all of it on onnxruntime). `threads` also bounds
    onnxruntime's. `compiled` is a file of device.compiled: where it is of this model and for such a
    card it spares compiling; where not, `not_used` says why.

    Raises ModelError where the model cannot be read or run, CardError where the card refuses it.
    """

    def __init__(
        self,
        model: Model,
        card: Literal["inproc", "none"] | Card = "inproc",
        threads: int = 1,
        *,
        name: str | None = None,
        isa: IsaName | str = "auto",
        compiled: Path | None = None,
    ) -> None:
        if isa != "auto" and card != "inproc":
            raise ValueError("isa is for the card that the session opens; give it to Card.open")
        self.name = name or (Path(model).name if isinstance(model, str | Path) else "model")
        self._threads = threads
        self._lock = threading.Lock()
        self._variants: OrderedDict[object, _Variant] = OrderedDict()
        self._card: Card | None = None
        self._owns_card = False
        self._fixed: _Variant | None = None
        self.not_used = ""
        if card == "none":
            self._open_without_card(model)
            return
        stored = self._stored(model, compiled)
        self._prepare(model, stored)
        if isinstance(card, Card):
            self._card = card
        else:
            self._card, self._owns_card = Card.open(card, threads=threads, isa=isa), True
        try:
            self._load_declared(model, stored is not None)
        except BaseException:
            self.close()
            raise

    def _stored(self, model: Model, path: Path | None) -> CompiledModel | None:
        """The compiled model of a file, or None with `not_used` set."""
        if path is None:
            return None
        try:
            source = Source.of(model if isinstance(model, bytes) else Path(model))
            return open_compiled(path, source, self.name)
        except (ModelError, OSError) as error:
            self.not_used = f"{path.name}: {error}"
            return None

    def _prepare(self, model: Model, stored: CompiledModel | None) -> None:
        proto, weights = open_lean(model, self.name)
        compiled = stored or compile_model(proto, name=self.name, weights=weights)
        fixed_shapes = all(isinstance(d, int) for info in compiled.inputs for d in info.shape)
        self._check = FeedCheck(self.name, compiled.inputs, proto)
        again = not fixed_shapes or self._check.defaults
        self._proto: onnx.ModelProto | None = proto if again else None
        self._weights = weights if again else None
        self.inputs = list(compiled.inputs)
        self.outputs = list(compiled.outputs)
        self.placement = list(compiled.placement)
        self._declared = compiled

    def _load_declared(self, model: Model, stored: bool) -> None:
        if self._declared.needs_shapes:
            return
        try:
            self._fixed = self._load(self._declared)
        except (ProgramRejected, ModelError) as error:
            if not stored:
                raise
            self.not_used = f"the card does not take the compiled program: {error}"
            self._prepare(model, None)
            self._load_declared(model, False)

    def _open_without_card(self, model: Model) -> None:
        source = model if isinstance(model, bytes) else str(model)
        host = open_onnxruntime(source, self.name, self._threads)
        proto, _ = open_lean(model, self.name)
        self._proto = None
        self.inputs = [_tensor_info(row) for row in host.get_inputs()]
        self.outputs = [_tensor_info(row) for row in host.get_outputs()]
        self._check = FeedCheck(self.name, self.inputs, proto)
        reason = 'the session was opened with card="none"'
        self.placement = [
            Placement(n.name or f"{n.op_type}_{n.output[0]}", n.op_type, "onnxruntime", reason)
            for n in proto.graph.node
        ]
        inputs, outputs = tuple(self.inputs), tuple(self.outputs)
        names = tuple(info.name for info in inputs)
        segment = HostSegment(b"", (*names, *self._check.defaults), tuple(o.name for o in outputs))
        self._declared = CompiledModel(
            self.name, inputs, outputs, (segment,), tuple(self.placement), {}, False, any_shape=True
        )
        self._fixed = _Variant(self._declared, [_HostStep(segment, host, self.name)])

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
        with self._lock:
            self._variants.clear()
        if self._fixed is not None:
            self._fixed.reload()

    def run(
        self, output_names: Sequence[str] | None, feeds: Feeds, deadline_s: float | None = None
    ) -> list[Array]:
        """Outputs, in the order of `output_names` (None: all, as declared), for one set of feeds.
        Each program of the model may take `deadline_s` seconds on the card, else CardTimeout.

        Raises InputError for a wrong name, type or shape, ModelError where the model takes no feeds
        of these shapes after all, CardError where the card fails; the feeds are never changed.
        """
        variant = self._fixed
        if variant is not None and variant.takes_exactly(feeds):
            values = variant.run(feeds, 1, deadline_s)
        else:
            values = self._run_checked(variant, self._check(feeds), deadline_s)
        if output_names is None:
            return [values[info.name] for info in self.outputs]
        try:
            return [values[name] for name in output_names]
        except KeyError as missing:
            known = ", ".join(info.name for info in self.outputs)
            raise InputError(
                f"{self.name} has no output {missing}; its outputs are {known}"
            ) from None

    def _run_checked(
        self, variant: "_Variant | None", feeds: dict[str, Array], deadline_s: float | None
    ) -> dict[str, Array]:
        # without a card onnxruntime takes a default's feed as it is
        compiled_in = self._card is not None and not self._check.defaults.keys().isdisjoint(feeds)
        batch = None if variant is None or compiled_in else variant.batch(feeds)
        if variant is None or batch is None:
            return self._variant_for(feeds).run(feeds, 1, deadline_s)
        return variant.run(feeds, batch, deadline_s)

    def _variant_for(self, feeds: dict[str, Array]) -> "_Variant":
        """The program for these shapes, compiled on first use; the least used one makes room."""
        shapes = {name: array.shape for name, array in feeds.items()}
        key = tuple(sorted(shapes.items()))
        with self._lock:
            variant = self._variants.get(key)
            if variant is not None:
                self._variants.move_to_end(key)
                return variant
        if self._card is None or self._proto is None:
            raise ValueError(f"the session of {self.name} is closed")
        given = self._check.defaults.keys() & feeds.keys()
        proto = as_inputs(self._proto, given) if given else self._proto
        try:
            compiled = compile_model(proto, shapes, self.name, self._weights)
        except Clash as error:  # neither ONNX's inference nor onnxruntime takes these shapes
            raise InputError(str(error)) from None
        variant = self._load(compiled)
        with self._lock:
            self._variants[key] = variant
            while len(self._variants) > SHAPES_KEPT:
                self._variants.popitem(last=False)
        return variant

    def _load(self, compiled: CompiledModel) -> "_Variant":
        assert self._card is not None
        give_back_memory()  # a compiler leaves many times what a small program takes
        steps: list[_CardStep | _HostStep] = []
        for segment in compiled.segments:
            if isinstance(segment, CardSegment):
                steps.append(_CardStep(segment, self._card.load_program(segment.program)))
            else:
                host = open_onnxruntime(segment.model, self.name, self._threads)
                steps.append(_HostStep(segment, host, self.name))
        return _Variant(compiled, steps)


class _CardStep:
    """A program on the card between host arrays."""

    def __init__(self, segment: CardSegment, program: Program) -> None:
        takes = tuple(port.bytes for port in segment.inputs)
        gives = tuple(port.bytes for port in segment.outputs)
        if (takes, gives) != (program.input_bytes, program.output_bytes):
            raise ModelError("a program has other ports than the model says")
        self._program = program
        self._inputs = [port.name for port in segment.inputs]
        self._outputs = [(port.name, port.shape, port.dtype) for port in segment.outputs]

    def run(self, values: dict[str, Array], batch: int, deadline_s: float | None) -> None:
        outputs = []
        for name, shape, dtype in self._outputs:
            if batch != 1:
                shape = (shape[0] * batch, *shape[1:])
            values[name] = output = np.empty(shape, dtype)
            outputs.append(output)
        if batch:
            inputs = [values[name] for name in self._inputs]
            self._program.run(inputs, batch, outputs, deadline_s)

    def reload(self) -> None:
        self._program.reload()


class _HostStep:
    """A part of the model on onnxruntime."""

    def __init__(self, segment: HostSegment, session: ort.InferenceSession, name: str) -> None:
        self._session = session
        self._name = name
        self._inputs = segment.inputs
        self._outputs = list(segment.outputs)

    def run(self, values: dict[str, Array], _batch: int, _deadline_s: float | None) -> None:
        taken = {name: values[name] for name in self._inputs if name in values}
        try:
            found = self._session.run(self._outputs, taken)
        except Exception as error:
            if not error.__class__.__module__.startswith("onnxruntime"):
                raise
            shapes = ", ".join(f"{n} {list(np.shape(value))}" for n, value in taken.items())
            raise ModelError(
                f"{self._name}: onnxruntime cannot run it on {shapes}: {error}"
            ) from error
        values.update(zip(self._outputs, found, strict=True))

    def reload(self) -> None:
        """onnxruntime has nothing on the card."""


class _Variant:
    """The segments of one compiled model, loaded. Dropping it unloads its programs."""

    def __init__(self, compiled: CompiledModel, steps: Sequence[_CardStep | _HostStep]) -> None:
        self._steps = steps
        self._constants = compiled.constants
        self._any_shape = compiled.any_shape
        self._batchable = compiled.batchable
        self._exact = tuple(
            (info.name, info.dtype, tuple(compiled.shapes.get(info.name, ())))
            for info in compiled.inputs
        )

    def reload(self) -> None:
        for step in self._steps:
            step.reload()

    def takes_exactly(self, feeds: Feeds) -> bool:
        """Whether the feeds need no further look: the hot path of a fixed shape."""
        if len(feeds) != len(self._exact) or self._any_shape:
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
        if self._any_shape:
            return 1
        batches = set()
        for name, _, shape in self._exact:
            got = feeds[name].shape
            if got == shape:
                batches.add(1)
            elif not self._batchable or got[1:] != shape[1:] or got[0] % shape[0]:
                return None
            else:
                batches.add(got[0] // shape[0])
        return batches.pop() if len(batches) == 1 else None

    def run(self, feeds: Feeds, batch: int, deadline_s: float | None = None) -> dict[str, Array]:
        """Every tensor that the feeds and the segments gave, by name."""
        values: dict[str, Array] = {**self._constants, **feeds}
        for step in self._steps:
            step.run(values, batch, deadline_s)
        return values


def open_onnxruntime(source: str | bytes, name: str, threads: int) -> ort.InferenceSession:
    """A quiet session on `threads` threads. Raises ModelError where onnxruntime refuses it."""
    try:
        return open_session(source, threads)
    except Exception as error:
        if error.__class__.__module__.startswith("onnxruntime"):
            raise ModelError(f"{name}: onnxruntime cannot run it: {error}") from error
        raise


def _tensor_info(row: Any) -> TensorInfo:
    """From onnxruntime's own description."""
    dtype = ORT_DTYPES.get(row.type, np.dtype(object))
    return TensorInfo(row.name, dtype, row.type, list(row.shape))
