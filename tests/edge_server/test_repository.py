# SPDX-License-Identifier: Apache-2.0
"""Load, reload and unload while clients call: nothing fails that need not, memory comes back."""

import asyncio
import json
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from tests.edge_server import onnx_models as models
from tests.edge_server.fakes import Bench
from tests.edge_server.running import Caller, Refused, arrays, request, running, text, until

X = np.array([1, 2], np.float32)


async def factor(call: Caller, version: str = "") -> float:
    """What the model `scale` multiplies with now."""
    response = await call.infer(request("scale", {"x": X}, model_version=version))
    return float(arrays(response)["y"][0])


async def rows(call: Caller) -> list[tuple[str, str, str]]:
    """RepositoryIndex without its reasons."""
    return [(m.name, m.version, m.state) for m in (await call("RepositoryIndex")).models]


async def test_reload_under_load_fails_no_request(tmp_path: Path) -> None:
    models.put(tmp_path, "scale", models.scale(2))
    async with running(tmp_path, inline_limit_us=0) as (server, call):
        stop = asyncio.Event()
        seen: set[float] = set()

        async def client() -> None:
            while not stop.is_set():
                seen.add(await factor(call))

        clients = [asyncio.create_task(client()) for _ in range(4)]
        for value in (3, 4, 5):
            models.put(tmp_path, "scale", models.scale(value))
            await call("RepositoryModelLoad", model_name="scale")
            assert await factor(call) == value  # from the answer to the load on
        stop.set()
        await asyncio.gather(*clients)
        assert seen <= {2.0, 3.0, 4.0, 5.0} and len(seen) >= 2
        assert server.counters.of("scale", "1").failures == {}


async def test_a_failed_reload_leaves_the_old_one_in_service(tmp_path: Path) -> None:
    models.put(tmp_path, "scale", models.scale(2))
    async with running(tmp_path) as (_, call):
        models.put(tmp_path, "scale", b"broken")
        with pytest.raises(Refused) as refused:
            await call("RepositoryModelLoad", model_name="scale")
        assert refused.value.code == "INVALID_ARGUMENT" and "version 1" in refused.value.message
        assert await factor(call) == 2
        (row,) = (await call("RepositoryIndex")).models
        assert row.state == "READY" and row.reason.startswith("not reloaded")
        models.put(tmp_path, "scale", models.scale(2), "max_batch_size: oops")
        with pytest.raises(Refused):
            await call("RepositoryModelLoad", model_name="scale")
        assert await factor(call) == 2


async def test_unload_waits_for_requests_and_frees(tmp_path: Path) -> None:
    bench = Bench()
    bench.hold = threading.Event()
    bench.hold.set()
    models.put(tmp_path, "scale", models.scale(2))
    async with running(tmp_path, bench.parts(), card="inproc", inline_limit_us=0) as (
        server,
        call,
    ):
        while bench.started.acquire(blocking=False):
            pass
        bench.hold.clear()
        served = weakref.ref(server.repository.find("scale", ""))
        under_way = asyncio.create_task(factor(call))
        await bench.until_started()
        unloading = asyncio.create_task(call("RepositoryModelUnload", model_name="scale"))
        await until(lambda: not server.repository.versions("scale"))
        assert await rows(call) == [("scale", "1", "UNLOADING")]
        refused = await call.refusal(request("scale", {"x": X}))
        assert refused.code == "UNAVAILABLE" and "unloading" in refused.message
        assert not unloading.done() and not bench.sessions[-1].closed
        bench.hold.set()
        assert await under_way == 2
        await unloading
        await until(lambda: bench.sessions[-1].closed)
        assert await rows(call) == [("scale", "1", "UNAVAILABLE")]
        assert served() is None
        await call("RepositoryModelLoad", model_name="scale")
        assert await factor(call) == 2


async def test_unknown_names_cannot_be_loaded_or_unloaded(tmp_path: Path) -> None:
    models.put(tmp_path / "inside", "scale", models.scale(2))
    async with running(tmp_path / "inside") as (_, call):
        for name in ("nope", "", "..", ".", "../inside", "scale/1", "/etc", "a\0b"):
            for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
                with pytest.raises(Refused) as refused:
                    await call(method, model_name=name)
                assert refused.value.code == "NOT_FOUND", (method, name, refused.value)
        with pytest.raises(Refused) as refused:
            await call("RepositoryIndex", repository_name="other")
        assert refused.value.code == "UNIMPLEMENTED"


async def test_only_the_models_asked_for_are_loaded(tmp_path: Path) -> None:
    models.put(tmp_path, "scale", models.scale(2))
    models.put(tmp_path, "add", models.add())
    async with running(tmp_path, load_models=("scale",)) as (_, call):
        assert await rows(call) == [("add", "", "UNAVAILABLE"), ("scale", "1", "READY")]
        ready = await call("RepositoryIndex", ready=True)
        assert [m.name for m in ready.models] == ["scale"]
        refused = await call.refusal(request("add", {}))
        assert refused.code == "UNAVAILABLE" and "RepositoryModelLoad" in refused.message
        await call("RepositoryModelLoad", model_name="add")
        assert (await call("ModelReady", name="add")).ready


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", ["11"]),
        ("version_policy { latest { num_versions: 2 } }", ["3", "11"]),
        ("version_policy { all { } }", ["1", "3", "11"]),
        ("version_policy { specific { versions: [3, 1] } }", ["1", "3"]),
    ],
)
async def test_version_policies(tmp_path: Path, policy: str, expected: list[str]) -> None:
    for number in (1, 3, 11):
        models.put(tmp_path, "scale", models.scale(number), policy, number)
    (tmp_path / "scale" / "007").mkdir()
    (tmp_path / "scale" / "draft").mkdir()
    async with running(tmp_path) as (_, call):
        assert list((await call("ModelMetadata", name="scale")).versions) == expected
        assert await factor(call) == int(expected[-1])
        for version in expected:
            assert await factor(call, version) == int(version)


async def test_one_bad_version_does_not_take_the_others_along(tmp_path: Path) -> None:
    models.put(tmp_path, "scale", models.scale(2), "version_policy { all { } }")
    models.put(tmp_path, "scale", b"broken", version=2)
    async with running(tmp_path) as (_, call):
        assert await rows(call) == [("scale", "1", "READY"), ("scale", "2", "UNAVAILABLE")]
        assert await factor(call) == 2
        refused = await call.refusal(request("scale", {"x": X}, model_version="2"))
        assert refused.code == "UNAVAILABLE"


def load(config: object = None, **files: bytes) -> dict[str, dict[str, object]]:
    """RepositoryModelLoad's parameters."""
    parameters: dict[str, dict[str, object]] = {}
    if config is not None:
        parameters["config"] = {"string_param": json.dumps(config)}
    for name, data in files.items():
        parameters[name.replace("__", ":").replace("_SLASH_", "/")] = {"bytes_param": data}
    return parameters


async def test_a_load_may_bring_its_configuration(tmp_path: Path) -> None:
    models.put(tmp_path, "add", models.add(), "max_batch_size: 2")
    async with running(tmp_path) as (_, call):
        await call("RepositoryModelLoad", model_name="add", parameters=load({"max_batch_size": 7}))
        assert (await call("ModelConfig", name="add")).config.max_batch_size == 7
        await call("RepositoryModelLoad", model_name="add")
        assert (await call("ModelConfig", name="add")).config.max_batch_size == 2


async def test_a_load_may_bring_its_files(tmp_path: Path) -> None:
    models.put(tmp_path, "scale", models.scale(2))
    bench = Bench()
    async with running(tmp_path, bench.parts(), card="inproc", card_control=True) as (_, call):
        parameters = load({}, **{"file__1_SLASH_model.onnx": models.scale(9)})
        await call("RepositoryModelLoad", model_name="scale", parameters=parameters)
        assert await factor(call) == 9
        await call("RepositoryModelLoad", model_name="new", parameters=parameters)
        response = await call.infer(request("new", {"x": X}))
        assert np.array_equal(arrays(response)["y"], 9 * X)
        await call("Detach")
        await call("Attach")  # the files must still be there
        response = await call.infer(request("new", {"x": X}))
        assert text(response, "tepi_device") == "card"
        await call("RepositoryModelLoad", model_name="scale")
        assert await factor(call) == 2


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"config": {"string_param": "{"}}, "not a model configuration"),
        ({"config": {"string_param": '{"max_batch_size": "x"}'}}, "max_batch_size"),
        ({"config": {"int64_param": 1}}, "string of JSON"),
        ({"file:1/model.onnx": {"bytes_param": b""}}, "need the parameter 'config'"),
        (load({}) | {"file:../x": {"bytes_param": b""}}, "file:<version>/<file name>"),
        (load({}) | {"file:1/../../x": {"bytes_param": b""}}, "file:<version>/<file name>"),
        (load({}) | {"file:1/..": {"bytes_param": b""}}, "file:<version>/<file name>"),
        (load({}) | {"file:1/m": {"string_param": "x"}}, "as bytes"),
        (load({}) | {"file:1/model.onnx": {"bytes_param": b"x"}}, "model.onnx"),
        ({"surprise": {"bool_param": True}}, "'surprise' is unknown"),
    ],
)
async def test_load_parameters_that_are_wrong(
    tmp_path: Path, parameters: dict[str, object], words: str
) -> None:
    models.put(tmp_path, "scale", models.scale(2))
    async with running(tmp_path) as (_, call):
        with pytest.raises(Refused) as refused:
            await call("RepositoryModelLoad", model_name="scale", parameters=parameters)
        assert refused.value.code == "INVALID_ARGUMENT"
        assert words in refused.value.message, refused.value.message
        assert await factor(call) == 2
