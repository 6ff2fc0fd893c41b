# SPDX-License-Identifier: Apache-2.0
"""`tepi infer`: one request from the shell."""

from __future__ import annotations

import json
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import numpy as np

from edge_server.client import INFERENCE, CallError, Client
from edge_server.datatypes import BY_WIRE, Datatype
from edge_server.engines.engine import Array
from edge_server.tensor_bytes import pack_bytes
from wire import inference_pb2 as pb

_VALUES_SHOWN = 8
_EXAMPLES = """\b
Examples:
  tepi infer digits --input image=@digit.npy
  tepi infer digits --random --json
  tepi infer add --input a=[1,2,3] --input b=@- < b.npy
  tepi infer digits --input image=@batch.npz --output scores

\b
An input is NAME=@FILE.npy, NAME=@FILE.npz (its array NAME, or its only one), NAME=@- (a .npy on
standard input) or NAME=JSON. Exit code 1: the server refused the request or cannot be reached.
"""


@click.command(epilog=_EXAMPLES)
@click.argument("model")
@click.option(
    "--address",
    default="127.0.0.1:8001",
    show_default=True,
    help="The server: HOST:PORT, unix:PATH, or grpcs://HOST:PORT?identity=DIR.",
)
@click.option("--model-version", default="", help="Version; the highest where none is given.")
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=VALUE", help="One input; see below."
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="NAME",
    help="An output to ask for; all of them where none is given.",
)
@click.option(
    "--random",
    "at_random",
    is_flag=True,
    help="Make up the inputs that are not given; open dimensions become 1.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.001),
    default=30.0,
    show_default=True,
    help="Seconds to wait for the answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
def infer(
    model: str,
    address: str,
    model_version: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    at_random: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Send one request to MODEL and print what comes back."""
    with Client(address, timeout) as client:
        try:
            metadata = client.call(
                INFERENCE,
                "ModelMetadata",
                pb.ModelMetadataRequest(name=model, version=model_version),
                pb.ModelMetadataResponse,
            )
            request = _request(metadata, inputs, outputs, at_random)
            request.model_version = model_version
            start = time.perf_counter()
            response = client.call(INFERENCE, "ModelInfer", request, pb.ModelInferResponse)
            seconds = time.perf_counter() - start
        except CallError as error:
            raise click.ClickException(str(error)) from None
    arrays = _arrays(response)
    parameters = {k: _parameter(v) for k, v in response.parameters.items()}
    if as_json:
        click.echo(json.dumps(_as_json(response, arrays, parameters, seconds)))
        return
    device = parameters.get("tepi_device", "unknown")
    why = f" ({parameters['tepi_fallback_reason']})" if "tepi_fallback_reason" in parameters else ""
    click.echo(
        f"{response.model_name}/{response.model_version} on {device}{why}, {seconds * 1e3:.2f} ms"
    )
    for output, array in zip(response.outputs, arrays, strict=True):
        shape = ",".join(map(str, output.shape))
        click.echo(f"{output.name}  {output.datatype} [{shape}]  {_preview(array)}")


def _request(
    metadata: pb.ModelMetadataResponse,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    at_random: bool,
) -> pb.ModelInferRequest:
    given: dict[str, str] = {}
    for text in inputs:
        name, sign, value = text.partition("=")
        if not sign:
            raise click.UsageError(f"--input '{text}' is not NAME=VALUE")
        given[name] = value
    request = pb.ModelInferRequest(model_name=metadata.name)
    known = [tensor.name for tensor in metadata.inputs]
    for name in given:
        if name not in known:
            raise click.UsageError(f"'{name}' is no input of the model: {', '.join(known)}")
    generator = np.random.default_rng(0)
    for tensor in metadata.inputs:
        datatype = BY_WIRE[tensor.datatype]
        if tensor.name in given:
            array = _value(tensor.name, given[tensor.name], datatype, tuple(tensor.shape))
        elif at_random:
            array = _random(generator, datatype, tuple(tensor.shape))
        else:
            raise click.UsageError(
                f"input '{tensor.name}' ({tensor.datatype} {list(tensor.shape)}) is missing: "
                "give it with --input, or --random"
            )
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=array.shape)
        data = array.tobytes() if datatype.itemsize else pack_bytes(array)
        request.raw_input_contents.append(data)
    for name in outputs:
        request.outputs.add(name=name)
    return request


def _value(name: str, text: str, datatype: Datatype, shape: tuple[int, ...]) -> Array:
    """The array that `text` stands for, in the model's type, with a missing batch of 1 in front."""
    try:
        array = _read(name, text[1:]) if text.startswith("@") else np.asarray(json.loads(text))
    except (OSError, ValueError, KeyError) as error:
        raise click.UsageError(f"--input '{name}': {error}") from None
    if datatype.itemsize == 0:
        array = array.astype(object)
    elif array.dtype.kind not in "biuf":
        raise click.UsageError(f"--input '{name}' holds {array.dtype}, expected {datatype.wire}")
    elif array.dtype != datatype.dtype:
        if not text.startswith("@") or np.can_cast(array.dtype, datatype.dtype, "same_kind"):
            array = array.astype(datatype.dtype)
        else:
            raise click.UsageError(
                f"--input '{name}' holds {array.dtype}, expected {datatype.wire}"
            )
    if array.ndim == len(shape) - 1 and shape[0] in (1, -1):
        array = array[np.newaxis]
    return np.ascontiguousarray(array)


def _read(name: str, path: str) -> Array:
    data: Any = np.load(
        BytesIO(sys.stdin.buffer.read()) if path == "-" else Path(path), allow_pickle=False
    )
    if isinstance(data, np.ndarray):
        return data
    if name not in data and len(data.files) != 1:
        raise KeyError(f"{path} has the arrays {', '.join(data.files)} and none is '{name}'")
    array: Array = data[name if name in data else data.files[0]]
    return array


def _random(generator: np.random.Generator, datatype: Datatype, shape: tuple[int, ...]) -> Array:
    dims = [1 if d < 0 else d for d in shape]
    if datatype.itemsize == 0:
        return np.full(dims, "tepi", object)
    if datatype.dtype.kind == "f":
        return generator.normal(0, 1, dims).astype(datatype.dtype)
    return generator.integers(0, 2, dims).astype(datatype.dtype)


def _arrays(response: pb.ModelInferResponse) -> list[Array]:
    arrays: list[Array] = []
    for output, data in zip(response.outputs, response.raw_output_contents, strict=True):
        datatype = BY_WIRE[output.datatype]
        if datatype.itemsize:
            arrays.append(np.frombuffer(data, datatype.dtype).reshape(tuple(output.shape)))
        else:
            arrays.append(_strings(data).reshape(tuple(output.shape)))
    return arrays


def _strings(data: bytes) -> Array:
    texts: list[str] = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        texts.append(data[at + 4 : at + 4 + size].decode("utf-8", "replace"))
        at += 4 + size
    return np.array(texts, object)


def _parameter(parameter: pb.InferParameter) -> Any:
    return getattr(parameter, parameter.WhichOneof("parameter_choice") or "string_param")


def _preview(array: Array) -> str:
    values = [f"{v:.6g}" if array.dtype.kind == "f" else str(v) for v in array.flat[:_VALUES_SHOWN]]
    return " ".join(values) + (" …" if array.size > _VALUES_SHOWN else "")


def _as_json(
    response: pb.ModelInferResponse, arrays: list[Array], parameters: dict[str, Any], seconds: float
) -> dict[str, Any]:
    return {
        "model": response.model_name,
        "version": response.model_version,
        "parameters": parameters,
        "latency_ms": round(seconds * 1e3, 3),
        "outputs": [
            {"name": o.name, "datatype": o.datatype, "shape": list(o.shape), "data": a.tolist()}
            for o, a in zip(response.outputs, arrays, strict=True)
        ],
    }
