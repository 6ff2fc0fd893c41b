# SPDX-License-Identifier: Apache-2.0
"""A model's configuration made whole: what config.pbtxt says, checked against the model file and
completed from it. Works on messages only; reading files is the loader's part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from google.protobuf import json_format

from edge_server.config_text import ConfigError
from edge_server.datatypes import BY_CONFIG, Datatype
from edge_server.engines.engine import TensorInfo
from edge_server.infer_codec import TensorSpec
from wire import model_config_pb2 as config_pb2

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
MODEL_FILE = "model.onnx"
POLICY_PARAMETER = "tepi_card"
_MODEL_BATCH_LIMIT = 1 << 20
_INSTANCE_LIMIT = 64
_NOT_ACTED_UPON = (
    "sequence_batching",
    "batch_input",
    "batch_output",
    "model_warmup",
    "model_operations",
    "model_repository_agents",
    "cc_model_filenames",
    "model_metrics",
)


class CardPolicy(StrEnum):
    """Whether a model's requests run on the card."""

    PREFER = "prefer"
    REQUIRE = "require"
    FORBID = "forbid"


def from_json(text: str, model: str) -> config_pb2.ModelConfig:
    """The `config` parameter of RepositoryModelLoad."""
    try:
        return json_format.Parse(text, config_pb2.ModelConfig(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise ConfigError(
            f"config parameter for '{model}' is not a model configuration: {error}"
        ) from None


def check(config: config_pb2.ModelConfig, folder: str) -> list[str]:
    """Warnings about what is not acted upon. Raises ConfigError where serving is impossible."""
    if config.name and config.name != folder:
        raise ConfigError(f"name is '{config.name}', expected '{folder}' as the folder is called")
    if config.platform not in ("", PLATFORM, "onnxruntime"):
        raise ConfigError(f"platform '{config.platform}' is not served here, only '{PLATFORM}'")
    if config.backend not in ("", BACKEND):
        raise ConfigError(f"backend '{config.backend}' is not served here, only '{BACKEND}'")
    if config.HasField("ensemble_scheduling"):
        raise ConfigError("ensemble_scheduling is not served here: call the models one by one")
    if config.model_transaction_policy.decoupled:
        raise ConfigError("model_transaction_policy.decoupled: ONNX models answer exactly once")
    if not 0 <= config.max_batch_size <= _MODEL_BATCH_LIMIT:
        raise ConfigError(
            f"max_batch_size {config.max_batch_size} is not in 0…{_MODEL_BATCH_LIMIT}"
        )
    name = config.default_model_filename
    if name and ("/" in name or name in (".", "..")):
        raise ConfigError(f"default_model_filename '{name}' must be a file in the version folder")
    for group in config.instance_group:
        if not 0 <= group.count <= _INSTANCE_LIMIT:
            raise ConfigError(f"instance_group.count {group.count} is not in 0…{_INSTANCE_LIMIT}")
    policy(config)
    present = {field.name for field, _ in config.ListFields()}
    return [f"{name} is not acted upon" for name in _NOT_ACTED_UPON if name in present]


def policy(config: config_pb2.ModelConfig) -> CardPolicy:
    """The `tepi_card` parameter; prefer where there is none."""
    if POLICY_PARAMETER not in config.parameters:
        return CardPolicy.PREFER
    value = config.parameters[POLICY_PARAMETER].string_value
    try:
        return CardPolicy(value)
    except ValueError:
        choices = ", ".join(CardPolicy)
        raise ConfigError(
            f"parameter {POLICY_PARAMETER} is '{value}', expected one of {choices}"
        ) from None


def instances(config: config_pb2.ModelConfig) -> int:
    """How many requests of the model may run at the same time."""
    return max(1, sum(max(1, group.count) for group in config.instance_group))


def served_versions(config: config_pb2.ModelConfig, present: Sequence[int]) -> list[int]:
    """The versions to serve out of those that have a folder, in ascending order."""
    rule = config.version_policy
    ordered = sorted(present)
    if rule.HasField("all"):
        return ordered
    if rule.HasField("specific"):
        missing = sorted(set(rule.specific.versions) - set(ordered))
        if missing:
            raise ConfigError(
                f"version_policy asks for version {missing[0]}, which has no folder; "
                f"there are {', '.join(map(str, ordered)) or 'none'}"
            )
        return sorted(set(rule.specific.versions))
    return ordered[-max(1, rule.latest.num_versions) :]


def complete(
    config: config_pb2.ModelConfig,
    folder: str,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Fill `config` in place from the model and return the tensors as clients see them.

    Raises ConfigError where file and configuration disagree about a name, type or shape.
    """
    config.name = folder
    config.platform = PLATFORM
    config.backend = BACKEND
    config.default_model_filename = config.default_model_filename or MODEL_FILE
    if not config.version_policy.WhichOneof("policy_choice"):
        config.version_policy.latest.num_versions = 1
    if not config.instance_group:
        config.instance_group.add(name=folder, count=1, kind=config_pb2.ModelInstanceGroup.KIND_CPU)
    _check_names("input", [i.name for i in config.input], inputs)
    _check_names("output", [o.name for o in config.output], outputs)
    batched = config.max_batch_size > 0
    in_specs = [_input(config, info, batched) for info in inputs]
    out_specs = [_output(config, info, batched) for info in outputs]
    return in_specs, out_specs


def _check_names(kind: str, named: Sequence[str], infos: Sequence[TensorInfo]) -> None:
    known = [info.name for info in infos]
    for name in named:
        if name not in known:
            raise ConfigError(f"{kind} '{name}' is not in the model, which has {', '.join(known)}")
    if len(set(named)) != len(named):
        raise ConfigError(f"an {kind} is configured twice: {', '.join(named)}")


def _input(config: config_pb2.ModelConfig, info: TensorInfo, batched: bool) -> TensorSpec:
    entry = next((i for i in config.input if i.name == info.name), None)
    if entry is None:
        dims = _config_dims("input", info, batched)
        config.input.add(name=info.name, data_type=info.datatype.config, dims=dims)
        return _spec(info, dims, batched)
    return _configured("input", entry, info, batched)


def _output(config: config_pb2.ModelConfig, info: TensorInfo, batched: bool) -> TensorSpec:
    entry = next((o for o in config.output if o.name == info.name), None)
    if entry is None:
        dims = _config_dims("output", info, batched)
        config.output.add(name=info.name, data_type=info.datatype.config, dims=dims)
        return _spec(info, dims, batched)
    return _configured("output", entry, info, batched)


def _config_dims(kind: str, info: TensorInfo, batched: bool) -> tuple[int, ...]:
    """The model's shape without the batch dimension, which must be open in the model."""
    if not batched:
        return info.shape
    if info.shape[:1] != (-1,):
        raise ConfigError(
            f"max_batch_size is above 0, but {kind} '{info.name}' has the fixed shape "
            f"{list(info.shape)}: its first dimension must be open, or max_batch_size 0"
        )
    return info.shape[1:]


def _configured(
    kind: str,
    entry: config_pb2.ModelInput | config_pb2.ModelOutput,
    info: TensorInfo,
    batched: bool,
) -> TensorSpec:
    if entry.data_type == config_pb2.TYPE_INVALID:
        entry.data_type = info.datatype.config
    if entry.data_type != info.datatype.config:
        given: Datatype | None = BY_CONFIG.get(entry.data_type)
        raise ConfigError(
            f"{kind} '{info.name}' is configured as "
            f"{given.wire if given else config_pb2.DataType.Name(entry.data_type)}, "
            f"the model has {info.datatype.wire}"
        )
    model_dims = _config_dims(kind, info, batched)
    reshaped = entry.HasField("reshape")
    if not entry.dims and not reshaped:
        entry.dims.extend(model_dims)
    dims = tuple(entry.dims)
    engine_dims = tuple(entry.reshape.shape) if reshaped else dims
    if any(d < -1 or d == 0 for d in dims):
        raise ConfigError(f"{kind} '{info.name}': dims {list(dims)} must be positive or -1")
    fits = len(engine_dims) == len(model_dims) and all(
        model in (-1, want) or want == -1
        for want, model in zip(engine_dims, model_dims, strict=True)
    )
    if not fits:
        raise ConfigError(
            f"{kind} '{info.name}': {'reshape' if reshaped else 'dims'} {list(engine_dims)}, "
            f"the model has {list(model_dims)}"
        )
    if not reshaped:
        return _spec(info, _narrower(dims, model_dims), batched)
    if -1 in dims or -1 in engine_dims or math.prod(dims) != math.prod(engine_dims):
        raise ConfigError(
            f"{kind} '{info.name}': reshape {list(engine_dims)} must hold as many elements as "
            f"dims {list(dims)}, both without -1"
        )
    spec = _spec(info, dims, batched)
    return TensorSpec(
        spec.name, spec.datatype, spec.shape, ((-1,) if batched else ()) + engine_dims
    )


def _narrower(dims: Sequence[int], model: Sequence[int]) -> tuple[int, ...]:
    """The size that either side fixes."""
    return tuple(m if d == -1 else d for d, m in zip(dims, model, strict=True))


def _spec(info: TensorInfo, dims: Sequence[int], batched: bool) -> TensorSpec:
    return TensorSpec(info.name, info.datatype, ((-1,) if batched else ()) + tuple(dims))
