# SPDX-License-Identifier: Apache-2.0
"""Static quantization with onnxruntime.quantization, and the report about it."""

import io
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Protocol

import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from device.binding import Card
from device.compiler import compile_model
from device.errors import ModelError
from device.measure.compare import alternate
from device.quantize.accuracy import LayerLoss, OutputAccuracy, layer_losses, output_accuracy
from device.quantize.calibration import Calibration, Reader, read_calibration
from device.quantize.smooth import smoothed
from device.session import Session, load_model

Method = Literal["minmax", "entropy", "percentile"]

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
_SECONDS = 2.0


class Progress(Protocol):
    """Told what is being done, how often, and each time that it was."""

    def begin(self, what: str, total: int) -> None: ...
    def step(self) -> None: ...


@dataclass(frozen=True)
class Extent:
    """What becomes int8. `operators` are types, none given: all that onnxruntime.quantization
    knows. `keep` are patterns of names of nodes that stay float32, `float_results` types whose
    operands become int8 and whose result does not. `smooth` above 0 evens out the channels of
    activations before products, with this alpha."""

    operators: Sequence[str] = ()
    keep: Sequence[str] = ()
    float_results: Sequence[str] = ()
    smooth: float = 0.0


EVERYTHING = Extent()


@dataclass(frozen=True)
class Times:
    """Median milliseconds of a run on one thread, measured in turns."""

    card_int8_ms: float
    onnxruntime_int8_ms: float
    onnxruntime_float32_ms: float


@dataclass(frozen=True)
class Report:
    """`outputs` compares the int8 model on the card with the float32 model on onnxruntime, over all
    calibration samples; `layers` has the layers that lose most first. `on_card` counts nodes at the
    shapes of the first sample."""

    model: str
    output: str
    method: str
    samples: int
    bytes_before: int
    bytes_after: int
    outputs: list[OutputAccuracy]
    layers: list[LayerLoss]
    times: Times
    on_card: int
    nodes: int


def quantize(
    model: Path,
    data: Path,
    output: Path,
    method: Method,
    progress: Progress,
    percentile: float = 99.999,
    extent: Extent = EVERYTHING,
) -> Report:
    """Write `output`, uint8 activations and int8 weights with a scale per channel, in QDQ form.

    Raises ModelError where the model cannot be quantized, InputError where the data does not fit
    it, OSError where a file cannot be read or written. `output` is written whole or not at all.
    """
    proto = load_model(model, model.name)
    if any(
        n.op_type in ("QuantizeLinear", "DequantizeLinear") or "QLinear" in n.op_type
        for n in proto.graph.node
    ):
        raise ModelError(f"{model.name} is quantized already; give the float32 model")
    _check(extent, proto, model.name)
    with Session(model, "none") as session:
        calibration = read_calibration(data, session.inputs)
    with _silence(), tempfile.TemporaryDirectory() as folder:
        prepared = _prepared(model, proto, Path(folder))
        if extent.smooth:
            _smooth(prepared, calibration, extent, progress)
        quantized = Path(folder) / "int8.onnx"
        _quantized(
            model.name, prepared, quantized, calibration, method, percentile, extent, progress
        )
        body = quantized.read_bytes()
        float_proto, int8_proto = onnx.load(prepared), onnx.load_model_from_string(body)
    progress.begin("layers", len(calibration))
    layers = layer_losses(float_proto, int8_proto, calibration, progress.step)
    with (
        Card.open("inproc", memory=4 << 30) as card,
        Session(model, "none") as original,
        Session(body, card, name=output.name) as ours,
        Session(body, "none", name=output.name) as theirs,
    ):
        progress.begin("outputs", len(calibration))
        outputs = output_accuracy(original, ours, calibration, progress.step)
        times = _times(ours, theirs, original, calibration, progress)
        shapes = {name: array.shape for name, array in calibration[0].items()}
        placement = compile_model(body, shapes, name=output.name).placement
    _write(output, body)
    return Report(
        model=model.name,
        output=str(output),
        method=method,
        samples=len(calibration),
        bytes_before=model.stat().st_size,
        bytes_after=len(body),
        outputs=outputs,
        layers=layers,
        times=times,
        on_card=sum(row.where == "card" for row in placement),
        nodes=len(placement),
    )


@contextmanager
def _silence() -> Iterator[None]:
    """onnxruntime.quantization advises on the root logger what this module does anyway, and prints
    to standard output, which belongs to the report."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _prepared(model: Path, proto: onnx.ModelProto, folder: Path) -> Path:
    """The model folded and with shapes, as onnxruntime.quantization wants it."""
    prepared = folder / "prepared.onnx"
    try:
        # Its symbolic shape inference asks for sympy; ONNX's own serves models of fixed rank.
        # It would move a proto's constants to a file, where shape inference cannot read them.
        whole = folder / "float32.onnx"
        onnx.save(proto, whole)
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
    except Exception as error:
        raise ModelError(
            f"{model.name}: onnxruntime cannot prepare it for quantization: {error}"
        ) from error
    return prepared


def _check(extent: Extent, proto: onnx.ModelProto, name: str) -> None:
    """Raises ModelError for a type or a pattern that no node of the model has."""
    types = {node.op_type for node in proto.graph.node}
    for word in (*extent.operators, *extent.float_results):
        if word not in types:
            raise ModelError(f"{name} has no {word}; its operators are {', '.join(sorted(types))}")
    for pattern in extent.keep:
        if not _named(proto, [pattern]):
            raise ModelError(f"{name} has no node that is named {pattern!r}")


def _named(proto: onnx.ModelProto, patterns: Sequence[str]) -> list[str]:
    names = [node.name for node in proto.graph.node]
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _smooth(prepared: Path, calibration: Calibration, extent: Extent, progress: Progress) -> None:
    """Before the products that become int8."""
    progress.begin("smoothing", len(calibration))
    proto = onnx.load(prepared)
    untouched = set(_named(proto, extent.keep))
    if extent.operators:
        untouched |= {n.name for n in proto.graph.node if n.op_type not in extent.operators}
    even = smoothed(proto, calibration, extent.smooth, untouched, progress.step)
    onnx.save(even, prepared)


def _quantized(
    name: str,
    prepared: Path,
    quantized: Path,
    calibration: Calibration,
    method: Method,
    percentile: float,
    extent: Extent,
    progress: Progress,
) -> None:
    options: dict[str, object] = {"WeightSymmetric": True, "ActivationSymmetric": False}
    if method == "percentile":
        options["CalibPercentile"] = percentile
    if extent.float_results:
        options["OpTypesToExcludeOutputQuantization"] = list(extent.float_results)
    kept = _named(onnx.load(prepared), extent.keep) if extent.keep else []
    progress.begin("calibration", len(calibration))
    try:
        quantize_static(
            prepared,
            quantized,
            Reader(calibration, progress.step),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(extent.operators) or None,
            nodes_to_exclude=kept,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=_METHODS[method],
            extra_options=options,
        )
    except Exception as error:
        raise ModelError(f"{name}: onnxruntime cannot quantize it: {error}") from error


def _times(
    ours: Session, theirs: Session, original: Session, calibration: Calibration, progress: Progress
) -> Times:
    progress.begin("timing", 1)
    feed = calibration[0]
    found = alternate(
        {
            "card": lambda: ours.run(None, feed),
            "int8": lambda: theirs.run(None, feed),
            "float32": lambda: original.run(None, feed),
        },
        _SECONDS,
    )
    progress.step()
    return Times(found["card"].median_ms, found["int8"].median_ms, found["float32"].median_ms)


def _write(output: Path, body: bytes) -> None:
    """Whole or not at all."""
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        part.write_bytes(body)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
