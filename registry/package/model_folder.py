# SPDX-License-Identifier: Apache-2.0
"""What there is to pack: a model's folder as a repository has it, or an ONNX file alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from registry.package.errors import NotPackable, UnsafePath
from registry.package.modelpack import Role, check_model_name, check_path
from wire import model_config_pb2 as config_pb2

CONFIG_FILE = "config.pbtxt"
MODEL_FILE = "model.onnx"
LABELS_FILE = "labels.txt"
CARD_FILE = "README.md"
_CONFIG_LIMIT = 1 << 20
_INTEGER_OPS = ("QLinear", "MatMulInteger", "ConvInteger", "DynamicQuantize", "DequantizeLinear")
_PREFIXES = ((1e15, "Q"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


@dataclass(frozen=True, slots=True)
class Given:
    """A file or the bytes of one, the path it gets in the package, and what it is for."""

    path: str
    content: Path | bytes
    role: Role


@dataclass(frozen=True, slots=True)
class Traits:
    """What the ONNX file says of the model."""

    precision: str
    quantization: str
    parameters: str  # "6.7M"; empty below a thousand
    outputs: tuple[str, ...]
    external: tuple[str, ...]  # files beside it that hold weights


@dataclass(frozen=True, slots=True)
class Gathered:
    """A model to be packed. `model_path` is where the ONNX file goes in the package, `others` are
    all files beside it."""

    name: str
    version: int
    model: Path
    model_path: str
    traits: Traits
    others: tuple[Given, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller says beside naming a folder or a file."""

    name: str = ""
    version: int | None = None
    config: Path | None = None
    labels: Path | None = None
    card: Path | None = None
    preprocessing: Path | None = None


def gather(source: Path, wanted: Wanted) -> Gathered:
    """The files of a model's folder (config.pbtxt, labels, <version>/model.onnx) or of an ONNX
    file. Raises NotPackable, which says what is missing, and OSError."""
    if source.is_dir():
        return _folder(source, wanted)
    if source.is_file():
        version = 1 if wanted.version is None else wanted.version
        return _gathered(wanted.name or source.stem, version, source, None, wanted)
    raise NotPackable(f"{source} is neither a folder nor a file")


def read_traits(model: Path) -> Traits:
    """Raises NotPackable where the file is no ONNX model."""
    try:
        proto = onnx.load(str(model), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise NotPackable(f"{model} is not a readable ONNX model: {error}") from None
    if not proto.graph.output:
        raise NotPackable(f"{model} is not a readable ONNX model: it has no outputs")
    kinds = {node.op_type for node in proto.graph.node}
    count = sum(_elements(tensor) for tensor in proto.graph.initializer)
    return Traits(
        _precision(proto, kinds),
        _quantization(kinds),
        next((f"{count / size:.1f}{letter}" for size, letter in _PREFIXES if count >= size), ""),
        tuple(value.name for value in proto.graph.output),
        tuple(sorted(set(_locations(proto)))),
    )


def _folder(source: Path, wanted: Wanted) -> Gathered:
    path = _config_path(source, wanted)
    config = _read_config(path) if path else config_pb2.ModelConfig()
    versions = sorted(int(p.name) for p in source.iterdir() if p.name.isdecimal() and p.is_dir())
    if not versions:
        raise NotPackable(
            f"{source} has no version folder, such as 1/{MODEL_FILE}",
            "name a model's folder in a model repository, or an ONNX file",
        )
    version = versions[-1] if wanted.version is None else wanted.version
    model = source / str(version) / (config.default_model_filename or MODEL_FILE)
    if not model.is_file():
        there = ", ".join(map(str, versions))
        raise NotPackable(f"{model} is not there; the folder has versions {there}")
    name = wanted.name or config.name or source.resolve().name
    return _gathered(name, version, model, source, wanted)


def _gathered(
    name: str, version: int, model: Path, folder: Path | None, wanted: Wanted
) -> Gathered:
    check_model_name(name)
    traits = read_traits(model)
    config, others = config_pb2.ModelConfig(), list[Given]()
    if path := _config_path(folder, wanted):
        config = _read_config(path)
        if config.name and config.name != name:
            raise NotPackable(
                f"{path} calls the model {config.name!r}, not {name!r}",
                "change one of them; a server takes a model only under one name",
            )
        others.append(Given(CONFIG_FILE, path, Role.CONFIG))
        others += _labels(config, folder or path.parent, wanted.labels)
    elif wanted.labels:
        others.append(Given(LABELS_FILE, wanted.labels, Role.LABELS))
        others.append(Given(CONFIG_FILE, _labelled(traits.outputs[0]), Role.CONFIG))
    if wanted.card:
        others.append(Given(CARD_FILE, wanted.card, Role.CARD))
    if wanted.preprocessing:
        path_in = check_path(wanted.preprocessing.name)
        others.append(Given(path_in, wanted.preprocessing, Role.PREPROCESSING))
    for location in traits.external:
        beside = _inside(model.parent, location)
        others.append(Given(f"{version}/{location}", beside, Role.MODEL))
    called = config.default_model_filename or MODEL_FILE
    model_path = check_path(f"{version}/{called}")
    return Gathered(name, version, model, model_path, traits, tuple(others))


def _config_path(folder: Path | None, wanted: Wanted) -> Path | None:
    own = folder / CONFIG_FILE if folder else None
    return wanted.config or (own if own and own.is_file() else None)


def _labels(config: config_pb2.ModelConfig, folder: Path, given: Path | None) -> Iterable[Given]:
    """The files that the configuration names; `given` stands for the only one."""
    names = sorted({output.label_filename for output in config.output if output.label_filename})
    if given and len(names) != 1:
        raise NotPackable(
            f"--labels stands for the file that the configuration names, and it names {len(names)}",
            "set label_filename of one output in config.pbtxt",
        )
    for name in names:
        yield Given(check_path(name), given or _inside(folder, name), Role.LABELS)


def _labelled(output: str) -> bytes:
    """A configuration that says nothing but where the first output's labels are."""
    config = config_pb2.ModelConfig()
    config.output.add(name=output, label_filename=LABELS_FILE)
    return text_format.MessageToString(config).encode()


def _inside(folder: Path, name: str) -> Path:
    try:
        path = folder / check_path(name)
    except UnsafePath as error:
        raise NotPackable(f"{folder}: {error}", "keep a model's files in its own folder") from None
    if not path.is_file():
        raise NotPackable(f"{path} is not there, but the model needs it")
    return path


def _read_config(path: Path) -> config_pb2.ModelConfig:
    with path.open("rb") as file:
        data = file.read(_CONFIG_LIMIT + 1)
    if len(data) > _CONFIG_LIMIT:
        raise NotPackable(f"{path} is larger than a MiB")
    config = config_pb2.ModelConfig()
    try:
        text_format.Parse(data.decode(), config, allow_unknown_field=True)
    except (UnicodeDecodeError, text_format.ParseError) as error:
        raise NotPackable(f"{path} is no model configuration: {error}") from None
    return config


def _locations(proto: onnx.ModelProto) -> Iterable[str]:
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield from (entry.value for entry in tensor.external_data if entry.key == "location")


def _elements(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def _precision(proto: onnx.ModelProto, kinds: set[str]) -> str:
    if any(kind.startswith(_INTEGER_OPS) for kind in kinds):
        return "int8"
    half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in proto.graph.initializer)
    return "fp16" if half else "fp32"


def _quantization(kinds: set[str]) -> str:
    if kinds & {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}:
        return "dynamic"
    if any(kind.startswith("QLinear") for kind in kinds):
        return "qoperator"
    return "qdq" if "DequantizeLinear" in kinds else ""
