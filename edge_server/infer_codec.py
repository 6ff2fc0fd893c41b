# SPDX-License-Identifier: Apache-2.0
"""ModelInfer bytes to arrays and back, without I/O. Responses are put together from pieces that
are made once per model and shape: building them as messages costs more than a small model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_server.classification import classify
from edge_server.datatypes import Datatype
from edge_server.engines.engine import Array
from edge_server.status import RequestError, invalid, unimplemented
from edge_server.tensor_bytes import bytes_elements, pack_bytes, typed_contents
from wire import inference_pb2 as pb

_SHAPES_KEPT = 256  # shapes remembered per tensor; a client that varies them more pays the check
_SHARED_MEMORY = "shared_memory_region"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as clients see it: -1 is any size, the batch dimension (if any) comes first.

    `reshape` is the engine's shape where config.pbtxt reshapes (batch dimension included).
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    reshape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The outputs of one request, in its order; `classes` is 0 or the k of a classification."""

    names: tuple[str, ...]
    classes: tuple[int, ...]


class InputDecoder:
    """Reads one model version's inputs out of requests."""

    def __init__(self, specs: Sequence[TensorSpec], max_batch_size: int) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._max_batch_size = max_batch_size
        self._accepted: dict[str, dict[tuple[int, ...], int]] = {s.name: {} for s in specs}

    def decode(self, request: pb.ModelInferRequest) -> tuple[dict[str, Array], int]:
        """The engine's feeds and their size in bytes. Raises INVALID_ARGUMENT naming the tensor."""
        raw = request.raw_input_contents
        feeds: dict[str, Array] = {}
        size = used = 0
        for tensor in request.inputs:
            name = tensor.name
            spec = self._specs.get(name)
            if spec is None or name in feeds:
                raise self._wrong_name(name, feeds)
            if tensor.datatype != spec.datatype.wire:
                raise invalid(
                    f"input '{name}': datatype {tensor.datatype or '(none)'}, "
                    f"expected {spec.datatype.wire}"
                )
            shape = tuple(tensor.shape)
            nbytes = self._accepted[name].get(shape)
            if nbytes is None:
                nbytes = self._check_shape(spec, shape)
            if tensor.parameters and _SHARED_MEMORY in tensor.parameters:
                raise unimplemented(f"input '{name}': shared memory is not offered by this server")
            if tensor.HasField("contents") and tensor.contents.ByteSize():
                if raw:
                    raise invalid(
                        f"input '{name}': typed contents and raw_input_contents in one request; "
                        "send one of them"
                    )
                flat = typed_contents(name, spec.datatype, tensor.contents, math.prod(shape))
                array = flat.reshape(shape)
            elif used < len(raw):
                array = _from_raw(spec, raw[used], shape, nbytes)
                used += 1
            else:
                array = _absent(spec, shape, len(raw))
            if spec.reshape is not None:
                array = array.reshape(_reshaped(spec.reshape, shape))
            feeds[name] = array
            size += array.nbytes
        if used != len(raw):
            raise invalid(
                f"raw_input_contents has {len(raw)} entries, expected {used}: one for each input"
            )
        if len(feeds) != len(self._specs):
            missing = [n for n in self._specs if n not in feeds]
            raise invalid(
                f"input '{missing[0]}' is missing: expected {_quoted(self._specs)}, "
                f"got {_quoted(feeds)}"
            )
        return feeds, size

    def batch_of(self, request: pb.ModelInferRequest) -> int:
        """How many inferences the request stands for: its batch size, or 1 without batching."""
        return request.inputs[0].shape[0] if self._max_batch_size > 0 and request.inputs else 1

    def _wrong_name(self, name: str, feeds: dict[str, Array]) -> RequestError:
        if name in feeds:
            return invalid(f"input '{name}' is given twice")
        return invalid(f"unknown input '{name}': expected {_quoted(self._specs)}")

    def _check_shape(self, spec: TensorSpec, shape: tuple[int, ...]) -> int:
        fits = len(shape) == len(spec.shape) and all(
            got >= 0 and want in (-1, got) for got, want in zip(shape, spec.shape, strict=True)
        )
        if not fits:
            raise invalid(
                f"input '{spec.name}': shape {_dims(shape)}, expected {_dims(spec.shape)}"
                + (" (-1 is any size)" if -1 in spec.shape else "")
            )
        if self._max_batch_size > 0 and not 1 <= shape[0] <= self._max_batch_size:
            raise invalid(
                f"input '{spec.name}': batch size {shape[0]}, expected 1 to {self._max_batch_size}"
            )
        nbytes = math.prod(shape) * spec.datatype.itemsize
        accepted = self._accepted[spec.name]
        if len(accepted) < _SHAPES_KEPT:
            accepted[shape] = nbytes
        return nbytes


def _from_raw(spec: TensorSpec, data: bytes, shape: tuple[int, ...], nbytes: int) -> Array:
    if spec.datatype.itemsize == 0:
        return bytes_elements(spec.name, data, math.prod(shape)).reshape(shape)
    if len(data) != nbytes:
        raise invalid(
            f"input '{spec.name}': {len(data)} bytes, expected {nbytes} "
            f"for {spec.datatype.wire} {_dims(shape)}"
        )
    if nbytes == 0:
        return np.empty(shape, spec.datatype.dtype)
    if spec.datatype.wire == "BOOL":
        truth: Array = np.frombuffer(data, np.uint8) != 0
        return truth.reshape(shape)
    return np.frombuffer(data, spec.datatype.dtype).reshape(shape)


def _absent(spec: TensorSpec, shape: tuple[int, ...], entries: int) -> Array:
    """An input without any data: right only where its shape holds no elements."""
    if math.prod(shape) == 0:
        return np.empty(shape, spec.datatype.dtype)
    if entries:
        raise invalid(f"input '{spec.name}': raw_input_contents ends after {entries} entries")
    raise invalid(
        f"input '{spec.name}': no data; send raw_input_contents or typed contents "
        f"for {spec.datatype.wire} {_dims(shape)}"
    )


def _reshaped(template: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The engine's shape for a request's: a leading -1 of `template` is the batch."""
    return (shape[0], *template[1:]) if template[:1] == (-1,) and shape else template


class OutputEncoder:
    """Writes one model version's responses."""

    def __init__(
        self,
        model: str,
        version: str,
        specs: Sequence[TensorSpec],
        max_batch_size: int,
        labels: dict[str, Sequence[str]],
    ) -> None:
        self._prefix = _field(1, model.encode()) + _field(2, version.encode())
        self._specs = {spec.name: spec for spec in specs}
        self._batched = max_batch_size > 0
        self._labels = labels
        self._heads: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._frames: dict[tuple[bytes, Wanted, tuple[int, ...]], bytes] = {}
        self.everything = Wanted(tuple(s.name for s in specs), (0,) * len(specs))

    def wanted(self, request: pb.ModelInferRequest) -> Wanted:
        """The outputs that the request asks for; all of them where it names none."""
        if not request.outputs:
            return self.everything
        names: list[str] = []
        classes: list[int] = []
        for output in request.outputs:
            if output.name not in self._specs:
                raise invalid(f"unknown output '{output.name}': expected {_quoted(self._specs)}")
            if output.name in names:
                raise invalid(f"output '{output.name}' is requested twice")
            names.append(output.name)
            classes.append(self._classes(output) if output.parameters else 0)
        return Wanted(tuple(names), tuple(classes))

    def _classes(self, output: pb.ModelInferRequest.InferRequestedOutputTensor) -> int:
        if _SHARED_MEMORY in output.parameters:
            raise unimplemented(
                f"output '{output.name}': shared memory is not offered by this server"
            )
        parameter = output.parameters.get("classification")
        if parameter is None:
            return 0
        if parameter.WhichOneof("parameter_choice") != "int64_param" or parameter.int64_param < 1:
            raise invalid(f"output '{output.name}': classification must be an int64 of 1 or more")
        if self._specs[output.name].datatype.wire in ("BYTES", "BOOL"):
            raise invalid(
                f"output '{output.name}': classification needs numbers, "
                f"this output is {self._specs[output.name].datatype.wire}"
            )
        return parameter.int64_param

    def encode(
        self, request_id: str, wanted: Wanted, arrays: Sequence[Array], parameters: bytes
    ) -> bytes:
        """A serialized ModelInferResponse; `parameters` is a piece made by `parameter_field`."""
        if len(arrays) == 1 and not request_id:
            key = (parameters, wanted, arrays[0].shape)
            frame = self._frames.get(key)
            if frame is not None:
                return frame + arrays[0].tobytes()
        heads: list[bytes] = [self._prefix]
        bodies: list[bytes] = []
        if request_id:
            heads.append(_field(3, request_id.encode()))
        heads.append(parameters)
        for name, classes, array in zip(wanted.names, wanted.classes, arrays, strict=True):
            spec = self._specs[name]
            if spec.reshape is not None:
                array = array.reshape(_reshaped(spec.shape, array.shape))
            if classes:
                array = classify(array, classes, self._batched, self._labels.get(name, ()))
                heads.append(_output_head(name, "BYTES", array.shape))
                data = pack_bytes(array)
            else:
                heads.append(self._heads.get((name, array.shape)) or self._head(spec, array.shape))
                data = array.tobytes() if spec.datatype.itemsize else pack_bytes(array)
            bodies.append(b"\x32" + varint(len(data)))  # field 6, length-delimited
            bodies.append(data)
        if len(arrays) == 1 and not request_id:
            self._learn(key, heads + bodies[:1])
        return b"".join(heads + bodies)

    def _learn(self, key: tuple[bytes, Wanted, tuple[int, ...]], head: list[bytes]) -> None:
        """Everything before the data of a response with one output of fixed-size elements."""
        name = key[1].names[0]
        plain = self._specs[name].datatype.itemsize and self._specs[name].reshape is None
        if plain and not key[1].classes[0] and len(self._frames) < _SHAPES_KEPT:
            self._frames[key] = b"".join(head)

    def _head(self, spec: TensorSpec, shape: tuple[int, ...]) -> bytes:
        head = _output_head(spec.name, spec.datatype.wire, shape)
        if len(self._heads) < _SHAPES_KEPT:
            self._heads[spec.name, shape] = head
        return head


def _output_head(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    tensor = pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=shape)
    return _field(5, tensor.SerializeToString())


def parameter_field(**values: str | bool) -> bytes:
    """Response parameters as a piece of ModelInferResponse; pieces may follow one another."""
    parameters = {
        name: pb.InferParameter(bool_param=value)
        if isinstance(value, bool)
        else pb.InferParameter(string_param=value)
        for name, value in values.items()
    }
    return pb.ModelInferResponse(parameters=parameters).SerializeToString()


def stream_response(response: bytes) -> bytes:
    """A ModelStreamInferResponse around a serialized ModelInferResponse."""
    return _field(2, response)


def _field(number: int, payload: bytes) -> bytes:
    """One length-delimited field of number 15 at most."""
    return bytes((number << 3 | 2,)) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _dims(shape: Iterable[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{n}'" for n in names) or "none"
