# SPDX-License-Identifier: Apache-2.0
"""The card fails in every way it can: what clients read under each policy, and how it returns."""

import asyncio
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from device.errors import CardError, CardFault, CardFull, CardTimeout, ModelError, ProgramRejected
from edge_server.card.link import WATCH_INTERVAL
from edge_server.card.states import CardState
from tests.edge_server import onnx_models as models
from tests.edge_server.fakes import Bench, Row, gone
from tests.edge_server.running import Caller, Refused, arrays, request, running, text, until

X = np.array([1, 2], np.float32)
POLICY = 'parameters { key: "tepi_card" value { string_value: "%s" } }'
LATER = 2**62  # nanoseconds that no run takes


def fault(kind: type[CardError], code: int) -> CardError:
    fatal = kind is CardTimeout
    return kind("the card says no", code=code, fault="TEST", remedy="try again", fatal=fatal)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    models.put(tmp_path, "scale", models.scale(2))
    models.put(tmp_path, "must", models.scale(3), POLICY % "require")
    models.put(tmp_path, "never", models.scale(4), POLICY % "forbid")
    return tmp_path


async def device(call: Caller, model: str = "scale") -> tuple[str, str]:
    """(device, fallback reason) of one request, whose result is checked."""
    response = await call.infer(request(model, {"x": X}))
    factor = {"scale": 2, "must": 3, "never": 4}[model]
    assert np.array_equal(arrays(response)["y"], factor * X)
    return text(response, "tepi_device"), text(response, "tepi_fallback_reason")


async def test_each_policy_runs_where_it_says(repository: Path, bench: Bench) -> None:
    async with running(repository, bench.parts(), card="inproc") as (server, call):
        assert await device(call) == ("card", "")
        assert await device(call, "must") == ("card", "")
        assert await device(call, "never") == ("onnxruntime", "")
        assert server.counters.of("scale", "1").fallbacks == {}


async def test_mixed_placement_is_said(repository: Path, bench: Bench) -> None:
    bench.placement = [Row(), Row(where="onnxruntime", reason="no such kernel")]
    async with running(repository, bench.parts(), card="inproc") as (_, call):
        assert await device(call) == ("card+onnxruntime", "")


async def test_nothing_on_the_card_is_not_compilable(repository: Path, bench: Bench) -> None:
    bench.placement = [Row(where="onnxruntime", reason="no such kernel")]
    async with running(repository, bench.parts(), card="inproc") as (_, call):
        assert await device(call) == ("onnxruntime", "not_compilable")
        refused = await call.refusal(request("must", {"x": X}))
        assert refused.code == "UNAVAILABLE" and "no such kernel" in refused.message
        assert not (await call("ModelReady", name="must")).ready


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelError("model: Foo is unknown"), "not_compilable"),
        (fault(CardFull, 20), "card_full"),
        (fault(ProgramRejected, 30), "program_rejected"),
        (fault(CardFault, 40), "card_fault"),
    ],
)
async def test_a_model_that_does_not_load_runs_elsewhere(
    repository: Path, bench: Bench, error: Exception, reason: str
) -> None:
    bench.load_error = error
    async with running(repository, bench.parts(), card="inproc") as (server, call):
        assert await device(call) == ("onnxruntime", reason)
        refused = await call.refusal(request("must", {"x": X}))
        assert refused.code == "UNAVAILABLE" and str(error) in refused.message
        assert server.counters.of("scale", "1").fallbacks == {reason: 1}


@pytest.mark.parametrize("on_loop", [True, False])
async def test_a_fault_in_the_middle_of_a_request_loses_nothing(
    repository: Path, bench: Bench, on_loop: bool
) -> None:
    async with running(
        repository, bench.parts(), card="inproc", inline_limit_us=LATER if on_loop else 0
    ) as (server, call):
        bench.run_errors = [fault(CardFault, 42)]
        assert await device(call) == ("onnxruntime", "card_fault")
        assert await device(call) == ("card", "")
        bench.run_errors = [fault(CardFault, 42)]
        refused = await call.refusal(request("must", {"x": X}))
        assert refused.code == "UNAVAILABLE" and "the card says no" in refused.message
        assert await device(call, "must") == ("card", "")
        assert server.link.faults == {42: 2}
        assert server.link.state is CardState.READY


@pytest.mark.parametrize("error", [gone(), fault(CardTimeout, 7)])
async def test_a_lost_card_is_left_alone_until_it_is_back(
    repository: Path, bench: Bench, error: CardError
) -> None:
    async with running(repository, bench.parts(), card="inproc") as (server, call):
        bench.run_errors = [error]
        bench.card.reset_error = fault(CardTimeout, 65)  # once, then it is waited for
        word = "card_gone" if error.code == 64 else "card_timeout"
        assert await device(call) == ("onnxruntime", word)
        await until(lambda: bench.clock.searches)
        runs = bench.runs
        for _ in range(3):
            assert await device(call) == ("onnxruntime", "card_timeout")
        assert bench.runs == runs  # nobody waits for the card again
        bench.card.reset_error = None
        assert (await call.refusal(request("must", {"x": X}))).code == "UNAVAILABLE"
        assert not (await call("ModelReady", name="must")).ready
        assert (await call("ModelReady", name="scale")).ready
        bench.clock.wake(0.05, 0.2)
        await until(lambda: server.link.state is CardState.READY)
        async with asyncio.timeout(20):
            while await device(call) != ("card", ""):
                pass
        assert (await call("ModelReady", name="must")).ready
        assert (server.link.losses, server.link.returns) == (1, 1)
        assert sum(server.counters.of("scale", "1").fallbacks.values()) >= 4
        assert (server.link.resets, bench.card.resets) == (2, 2)


async def test_the_search_for_a_lost_card_slows_down(repository: Path, bench: Bench) -> None:
    async with running(repository, bench.parts(), card="inproc") as (server, call):
        bench.card.absent = True
        bench.card.alive = False
        bench.open_error = gone()
        assert await device(call) == ("onnxruntime", "card_gone")
        searches = bench.clock.searches
        await until(lambda: searches)
        expected = [0.1 * 2**n for n in range(9)] + [30.0, 30.0]
        for _ in expected[1:]:
            tried = len(searches)
            bench.clock.wake()
            await until(lambda tried=tried: len(searches) > tried)  # type: ignore[misc]
        assert searches == pytest.approx(expected)
        bench.open_error = None
        bench.clock.wake()
        await until(lambda: server.link.state is CardState.READY)


async def test_a_card_that_is_absent_at_start_is_used_once_it_is_there(
    repository: Path, bench: Bench
) -> None:
    bench.open_error = gone()
    async with running(repository, bench.parts(), card="inproc") as (server, call):
        assert await device(call) == ("onnxruntime", "card_absent")
        bench.open_error = None
        bench.clock.wake(0.05, 0.2)
        await until(lambda: server.link.state is CardState.READY)
        async with asyncio.timeout(20):
            while await device(call) != ("card", ""):
                pass


async def test_a_card_that_dies_unused_is_noticed(repository: Path, bench: Bench) -> None:
    async with running(repository, bench.parts(), card="inproc") as (server, call):
        bench.card.alive = False
        bench.card.absent = True
        bench.open_error = gone()
        while server.link.state is not CardState.ABSENT:
            bench.clock.wake(WATCH_INTERVAL, WATCH_INTERVAL + 0.1)
            await asyncio.sleep(0)
        assert not (await call("ModelReady", name="must")).ready


async def test_detach_and_attach_under_load_lose_no_request(repository: Path, bench: Bench) -> None:
    async with running(
        repository, bench.parts(), card="inproc", card_control=True, inline_limit_us=0
    ) as (server, call):
        stop = asyncio.Event()
        seen: set[tuple[str, str]] = set()

        async def client() -> None:
            while not stop.is_set():
                seen.add(await device(call))

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for _ in range(3):
            status = await call("Detach")
            assert status.state == 2 and status.taken_away and bench.card.alive is False
            assert status.models[-1].device == "onnxruntime"
            await until(lambda: ("onnxruntime", "card_gone") in seen)
            seen.clear()
            status = await call("Attach")
            assert status.state == 5
            assert {m.name: m.device for m in status.models} == {
                "must": "card",
                "never": "onnxruntime",
                "scale": "card",
            }
            await until(lambda: ("card", "") in seen)
        stop.set()
        await asyncio.gather(*clients)
        assert server.counters.of("scale", "1").failures == {}
        assert (server.link.losses, server.link.returns) == (3, 3)
    assert all(session.closed for session in bench.sessions)


async def test_detached_stays_detached_until_attach(repository: Path, bench: Bench) -> None:
    async with running(repository, bench.parts(), card="inproc", card_control=True) as (
        server,
        call,
    ):
        await call("Detach")
        bench.clock.wake()
        assert await device(call) == ("onnxruntime", "card_gone")
        assert server.link.state is CardState.ABSENT
        await call("Detach")  # twice is the same as once
        await call("Attach")
        assert await device(call) == ("card", "")
        await call("Attach")
        assert server.link.returns == 1


async def test_a_run_under_way_at_detach_is_answered_by_onnxruntime(
    repository: Path, bench: Bench
) -> None:
    bench.hold = threading.Event()
    bench.hold.set()
    async with running(
        repository, bench.parts(), card="inproc", card_control=True, inline_limit_us=0
    ) as (_, call):
        while bench.started.acquire(blocking=False):
            pass
        bench.hold.clear()
        under_way = asyncio.create_task(device(call))
        await bench.until_started()
        await call("Detach")
        assert not bench.sessions[-1].closed
        bench.hold.set()
        assert await under_way == ("onnxruntime", "card_gone")


async def test_card_control_is_only_for_those_who_asked(repository: Path, bench: Bench) -> None:
    async with running(repository, bench.parts(), card="inproc") as (_, call):
        with pytest.raises(Refused) as refused:
            await call("Detach")
        assert refused.value.code == "PERMISSION_DENIED"
        assert "--card-control" in refused.value.message
        assert (await call("Status")).state == 5
    async with running(repository, card="none", card_control=True) as (_, call):
        assert (await call("Status")).state == 1
        with pytest.raises(Refused) as refused:
            await call("Detach")
        assert refused.value.code == "UNAVAILABLE" and "--card none" in refused.value.message


async def test_attach_that_fails_says_so(repository: Path, bench: Bench) -> None:
    async with running(repository, bench.parts(), card="inproc", card_control=True) as (_, call):
        await call("Detach")
        bench.card.absent = True
        bench.open_error = gone()
        with pytest.raises(Refused) as refused:
            await call("Attach")
        assert refused.value.code == "UNAVAILABLE" and "left the bus" in refused.value.message
        assert await device(call) == ("onnxruntime", "card_gone")
        bench.open_error = None
        assert (await call("Attach")).state == 5
        assert await device(call) == ("card", "")


async def test_a_card_that_is_lost_again_and_again_is_sought_less_often(
    repository: Path, bench: Bench
) -> None:
    async with running(repository, bench.parts(), card="inproc") as (server, call):
        searches = bench.clock.searches

        async def lose_and_find() -> None:
            returns = server.link.returns
            bench.run_errors = [fault(CardTimeout, 65)]
            assert await device(call) == ("onnxruntime", "card_timeout")
            while server.link.returns == returns:
                bench.clock.wake(0.05, 0.9)
                await asyncio.sleep(0)

        for _ in range(3):
            await lose_and_find()
        assert searches == pytest.approx([0.1, 0.2])  # the first reset is made at once
        bench.clock.time += 60
        await lose_and_find()
        assert len(searches) == 2


async def test_a_late_error_of_the_card_before_does_not_lose_the_one_now(
    repository: Path, bench: Bench
) -> None:
    bench.hold = threading.Event()
    bench.hold.set()
    config = POLICY % "prefer" + "instance_group [ { count: 2 } ]"
    models.put(repository, "scale", models.scale(2), config)
    async with running(
        repository, bench.parts(), card="inproc", card_control=True, inline_limit_us=0
    ) as (server, call):
        while bench.started.acquire(blocking=False):
            pass
        bench.hold.clear()
        late = asyncio.create_task(device(call))
        await bench.until_started()
        held, bench.hold = bench.hold, None
        await call("Detach")
        await call("Attach")
        held.set()
        assert await late == ("onnxruntime", "card_gone")
        assert server.link.state is CardState.READY
        assert (server.link.losses, server.link.returns) == (1, 1)
        assert await device(call) == ("card", "")


async def test_stopping_finishes_requests_under_way(repository: Path, bench: Bench) -> None:
    bench.hold = threading.Event()
    bench.hold.set()
    async with running(repository, bench.parts(), card="inproc", inline_limit_us=0) as (
        server,
        call,
    ):
        while bench.started.acquire(blocking=False):
            pass
        bench.hold.clear()
        under_way = [asyncio.create_task(device(call)) for _ in range(3)]
        await bench.until_started()
        await until(lambda: server.repository.find("scale", "").gate.waiting == 2)
        stopping = asyncio.create_task(server.stop())
        await until(lambda: not server.phase.ready)
        bench.hold.set()
        assert await asyncio.gather(*under_way) == [("card", "")] * 3
        await stopping
    assert bench.card.closed and all(session.closed for session in bench.sessions)


async def test_a_refusal_for_want_of_the_card_says_when_to_try_again(
    repository: Path, bench: Bench
) -> None:
    bench.card.absent = True
    bench.open_error = gone()
    async with running(repository, bench.parts(), card="inproc") as (_, call):
        infer = call.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await infer(request("must", {"x": X}).SerializeToString(), timeout=10)
        trailing = dict(refused.value.trailing_metadata() or ())
        assert trailing["grpc-retry-pushback-ms"] == "100"
        status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
        assert status.code == grpc.StatusCode.UNAVAILABLE.value[0]
        info = error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(info)
        assert info.retry_delay.ToMilliseconds() == 100
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await infer(request("scale", {"z": X}).SerializeToString(), timeout=10)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "grpc-retry-pushback-ms" not in dict(refused.value.trailing_metadata() or ())


async def test_model_states_tell_the_truth(repository: Path, bench: Bench) -> None:
    async with running(repository, bench.parts(), card="inproc", card_control=True) as (_, call):
        states = {m.name: m.state for m in (await call("Status")).models}
        assert states == {"scale": "ready", "must": "ready", "never": "ready"}
        await call("Detach")
        states = {m.name: m.state for m in (await call("Status")).models}
        assert states == {"scale": "degraded", "must": "unavailable", "never": "ready"}
