# SPDX-License-Identifier: Apache-2.0
"""The protocol's methods but inference: what they say about server, models and repository."""

from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from edge_server.client import INFERENCE
from tests.edge_server import onnx_models as models
from tests.edge_server.running import Refused, request, running

ADD = (
    'max_batch_size: 4\ninstance_group [ { count: 2 } ]\nparameters { key: "note" '
    'value { string_value: "kept" } }\n'
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    models.put(tmp_path, "add", models.add(), ADD)
    models.put(tmp_path, "scale", models.scale(2))
    return tmp_path


async def test_metadata_and_config_are_completed_from_the_model(repository: Path) -> None:
    async with running(repository) as (_, call):
        metadata = await call("ModelMetadata", name="add")
        assert (metadata.name, metadata.versions, metadata.platform) == (
            "add",
            ["1"],
            "onnxruntime_onnx",
        )
        assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [
            ("a", "FP32", [-1, 3]),
            ("b", "FP32", [-1, 3]),
        ]
        assert [t.name for t in metadata.outputs] == ["sum", "difference"]
        config = (await call("ModelConfig", name="add")).config
        assert (config.name, config.backend, config.max_batch_size) == ("add", "onnxruntime", 4)
        assert [(i.name, list(i.dims)) for i in config.input] == [("a", [3]), ("b", [3])]
        assert config.parameters["note"].string_value == "kept"
        assert sum(g.count for g in config.instance_group) == 2
        assert config.version_policy.latest.num_versions == 1


async def test_extensions_name_only_what_works(repository: Path) -> None:
    async with running(repository) as (_, call):
        metadata = await call("ServerMetadata")
        assert metadata.name == "tepi" and metadata.version
        assert set(metadata.extensions) == {
            "classification",
            "model_repository",
            "model_configuration",
            "binary_tensor_data",
            "parameters",
            "statistics",
        }


@pytest.mark.parametrize(
    "method",
    ["SystemSharedMemoryRegister", "CudaSharedMemoryRegister", "TraceSetting", "LogSettings"],
)
async def test_methods_of_a_later_day_are_unimplemented(repository: Path, method: str) -> None:
    async with running(repository) as (_, call):
        with pytest.raises(Refused) as refused:
            await call(method)
        assert refused.value.code == "UNIMPLEMENTED"
        assert refused.value.message


async def test_every_method_of_the_protocol_answers(repository: Path) -> None:
    """Bytes that are no message get INVALID_ARGUMENT from each: none is missing, none breaks."""
    async with running(repository) as (_, call):
        unary = [m.name for m in INFERENCE.methods if not m.client_streaming]
        assert len(unary) == 19
        for method in unary:
            with pytest.raises(Refused) as refused:
                await call.raw(method, b"\xff\xff\xff")
            assert refused.value.code == "INVALID_ARGUMENT", method
            assert "not a valid inference." in refused.value.message


async def test_shared_memory_is_empty_and_may_be_unregistered(repository: Path) -> None:
    async with running(repository) as (_, call):
        assert not (await call("SystemSharedMemoryStatus")).regions
        assert not (await call("CudaSharedMemoryStatus")).regions
        await call("SystemSharedMemoryUnregister", name="any")
        await call("CudaSharedMemoryUnregister")
        with pytest.raises(Refused) as refused:
            await call("SystemSharedMemoryStatus", name="any")
        assert refused.value.code == "NOT_FOUND"


async def test_statistics_count_what_happened(repository: Path) -> None:
    async with running(repository) as (_, call):
        batch = np.ones((2, 3), np.float32)
        for _ in range(3):
            await call.infer(request("add", {"a": batch, "b": batch}))
        refusal = await call.refusal(request("add", {"a": batch}))
        assert refusal.code == "INVALID_ARGUMENT"
        (stats,) = (await call("ModelStatistics", name="add")).model_stats
        assert (stats.name, stats.version) == ("add", "1")
        assert (stats.inference_count, stats.execution_count) == (6, 3)
        inner = stats.inference_stats
        assert [inner.success.count, inner.fail.count, inner.queue.count] == [3, 1, 3]
        assert inner.success.ns >= inner.compute_infer.ns > 0
        assert [(b.batch_size, b.compute_infer.count) for b in stats.batch_stats] == [(2, 3)]
        assert stats.last_inference > 0
        names = [s.name for s in (await call("ModelStatistics")).model_stats]
        assert names == ["add", "scale"]


async def test_unknown_model_and_version_are_not_found(repository: Path) -> None:
    async with running(repository) as (_, call):
        for method in ("ModelMetadata", "ModelConfig", "ModelStatistics"):
            with pytest.raises(Refused) as refused:
                await call(method, name="nope")
            assert refused.value.code == "NOT_FOUND"
            assert "'nope'" in refused.value.message and "add" in refused.value.message
            with pytest.raises(Refused) as refused:
                await call(method, name="add", version="9")
            assert refused.value.code == "NOT_FOUND"
            assert "'9'" in refused.value.message
        assert not (await call("ModelReady", name="nope")).ready
        assert not (await call("ModelReady", name="add", version="9")).ready
        assert (await call("ModelReady", name="add", version="1")).ready


async def test_health_tells_server_service_and_models(repository: Path) -> None:
    async with running(repository) as (server, call):
        check = call.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        serving = health_pb2.HealthCheckResponse.SERVING
        models.put(repository, "bad", b"broken")
        for name in ("", "inference.GRPCInferenceService", "add"):
            answer = await check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == serving, name
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await check(health_pb2.HealthCheckRequest(service="nope"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(Refused):
            await call("RepositoryModelLoad", model_name="bad")
        answer = await check(health_pb2.HealthCheckRequest(service="bad"))
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        await server.repository.unload("add")
        answer = await check(health_pb2.HealthCheckRequest(service="add"))
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_watch_follows_a_model_for_every_watcher(repository: Path) -> None:
    kinds = health_pb2.HealthCheckResponse
    async with running(repository) as (server, call):
        watch = call.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=kinds.FromString,
        )
        first = watch(health_pb2.HealthCheckRequest(service="add"))
        second = watch(health_pb2.HealthCheckRequest(service="add"))
        assert (await first.read()).status == kinds.SERVING
        assert (await second.read()).status == kinds.SERVING
        first.cancel()
        await server.repository.unload("add")
        assert (await second.read()).status == kinds.NOT_SERVING
        unknown = watch(health_pb2.HealthCheckRequest(service="nope"))
        assert (await unknown.read()).status == kinds.SERVICE_UNKNOWN
        unknown.cancel()
        second.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services(repository: Path, version: str) -> None:
    async with running(repository) as (_, call):
        info = call.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        stream = info()
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await stream.read()
        names = {s.name for s in answer.list_services_response.service}
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names
        assert "tepi.v1.CardControl" in names
        symbol = "inference.GRPCInferenceService"
        await stream.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
        answer = await stream.read()
        assert answer.file_descriptor_response.file_descriptor_proto
        await stream.done_writing()


async def test_stopping_says_not_ready_before_it_closes(repository: Path) -> None:
    kinds = health_pb2.HealthCheckResponse
    async with running(repository) as (server, call):
        watch = call.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=kinds.FromString,
        )
        seen = watch(health_pb2.HealthCheckRequest())
        assert (await seen.read()).status == kinds.SERVING
        infer = call.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        stream = infer()
        await stream.write(b"")
        assert await stream.read()
        await server.stop()  # with a watch and a stream open, neither of which holds it up
        assert (await seen.read()).status == kinds.NOT_SERVING
        assert await seen.read() is grpc.aio.EOF
        assert await stream.read() is grpc.aio.EOF
