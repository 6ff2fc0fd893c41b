# SPDX-License-Identifier: Apache-2.0
"""Uploads over lines that lose, repeat, delay and damage, to servers that restart."""

from hashlib import sha256
from random import Random

import pytest

from firmware_bridge.client import Controller
from firmware_bridge.errors import CardSilent, CardVanished, Garbled
from firmware_bridge.smp.errors import SmpError
from firmware_bridge.upload import LEAST
from tests.firmware_bridge.wires import BitErrors, Clock, MemoryWire, SmallServer

IMAGE = Random(6).randbytes(20_000)
SHA = sha256(IMAGE).digest()


def controller(server: SmallServer, clock: Clock | None = None) -> Controller:
    clock = clock or Clock()
    return Controller(MemoryWire(server, clock), clock=clock)


def test_a_good_line() -> None:
    server = SmallServer()
    steps: list[tuple[int, int]] = []
    done = controller(server).upload(IMAGE, on_progress=lambda at, of: steps.append((at, of)))
    assert server.received == IMAGE
    assert (done.size, done.resumed_at, done.match, done.losses) == (len(IMAGE), 0, True, 0)
    assert steps[-1] == (len(IMAGE), len(IMAGE))
    assert steps == sorted(steps)


def test_no_more_in_flight_than_the_server_has_buffers_for() -> None:
    for count in (1, 2, 4, 200):
        server = SmallServer(buf_count=count)
        controller(server).upload(IMAGE)
        assert server.most_at_once <= max(1, min(8, count - 1))


@pytest.mark.parametrize("size", [33, 64, 65, 400, 463, 464, 465, 1000])
def test_images_of_any_size(size: int) -> None:
    server = SmallServer()
    controller(server).upload(IMAGE[:size])
    assert server.received == IMAGE[:size]


@pytest.mark.parametrize("what", ["lose", "mute", "twice", "late", "restart", "full"])
@pytest.mark.parametrize("at", [2, 3, 4, 5, 20, 43, 44])
def test_one_fault_at_any_place(what: str, at: int) -> None:
    server = SmallServer(plan={at: what})
    controller(server).upload(IMAGE)
    assert server.received == IMAGE


@pytest.mark.parametrize("seed", range(20))
def test_many_faults(seed: int) -> None:
    random = Random(seed)
    kinds = ("lose", "mute", "twice", "late", "full")
    plan = {n: random.choice(kinds) for n in range(2, 2000) if random.random() < 0.3}
    server = SmallServer(plan=plan)
    controller(server).upload(IMAGE)
    assert server.received == IMAGE


def test_a_server_that_does_not_check_and_whose_last_answer_is_lost() -> None:
    server = SmallServer(plan={45: "mute", 46: "mute"})
    server.checks = False
    controller(server).upload(IMAGE)
    assert server.received == IMAGE


def test_the_same_file_goes_on_after_a_new_connection() -> None:
    server = SmallServer()
    clock = Clock()
    wire = MemoryWire(server, clock)

    class Stop(Exception):
        pass

    def stop(at: int, _: int) -> None:
        if at > 8000:
            raise Stop

    with pytest.raises(Stop):
        Controller(wire, clock=clock).upload(IMAGE, on_progress=stop)
    done = controller(server, clock).upload(IMAGE)
    assert done.resumed_at > 8000
    assert (server.received, server.starts) == (IMAGE, 1)


def test_another_file_begins_anew() -> None:
    server = SmallServer()
    half = controller(server)
    server.plan = dict.fromkeys(range(20, 2000), "lose")
    with pytest.raises(CardVanished):
        half.upload(IMAGE)
    server.plan = {}
    other = IMAGE[::-1]
    done = controller(server).upload(other)
    assert (server.received, done.resumed_at) == (other, 0)


def test_resume_false_begins_anew() -> None:
    server = SmallServer()
    server.plan = dict.fromkeys(range(20, 2000), "lose")
    with pytest.raises(CardVanished):
        controller(server).upload(IMAGE)
    server.plan = {}
    done = controller(server).upload(IMAGE, resume=False)
    assert (server.received, done.resumed_at, server.starts) == (IMAGE, 0, 3)


def test_a_file_that_is_there_is_not_sent_again() -> None:
    server = SmallServer()
    controller(server).upload(IMAGE)
    before = server.requests
    done = controller(server).upload(IMAGE)
    assert (done.resumed_at, done.match) == (len(IMAGE), True)
    assert server.requests == before + 2  # parameters, first chunk


def test_a_hash_that_does_not_match_sends_all_again() -> None:
    server = SmallServer()
    server.damage_once = True
    assert controller(server).upload(IMAGE).match is True
    assert server.received == IMAGE
    assert server.starts == 2


def test_a_hash_that_never_matches_is_an_error() -> None:
    server = SmallServer()
    with pytest.raises(Garbled, match="other bytes than were sent"):
        controller(server).upload(IMAGE, sha=bytes(32))


def test_a_card_that_never_answers() -> None:
    server = SmallServer(plan=dict.fromkeys(range(1, 2000), "lose"))
    clock = Clock()
    with pytest.raises(CardSilent, match="memory"):
        controller(server, clock).upload(IMAGE)
    assert clock.now - 100 < 6


def test_a_card_that_falls_silent_in_the_middle() -> None:
    server = SmallServer(plan=dict.fromkeys(range(20, 5000), "lose"))
    clock = Clock()
    with pytest.raises(CardVanished, match=r"byte \d+ of 20000") as caught:
        controller(server, clock).upload(IMAGE)
    assert 20 < clock.now - 100 < 60
    assert "same command again" in caught.value.remedy
    assert caught.value.exit_code == 18


def test_a_card_that_restarts_for_ever() -> None:
    server = SmallServer(plan=dict.fromkeys(range(10, 5000, 8), "restart"))
    with pytest.raises(Garbled, match="restarted"):
        controller(server).upload(IMAGE)


def test_a_refusal_ends_it() -> None:
    server = SmallServer()
    server._reply = lambda request: (  # type: ignore[method-assign]
        server.parameters if "Parameters" in type(request).__name__
        else {"err": {"group": 1, "rc": 30}}
    )  # fmt: skip
    with pytest.raises(SmpError, match="larger than the slot"):
        controller(server).upload(IMAGE)


@pytest.mark.parametrize("buf_size", [384, 2048])
@pytest.mark.parametrize("seed", range(3))
def test_one_bit_in_ten_thousand_wrong_both_ways(buf_size: int, seed: int) -> None:
    """256 KiB: some 300 flipped bits; the chunk shrinks until it mostly gets through."""
    image = Random(seed).randbytes(256 << 10)
    server = SmallServer(buf_size=buf_size)
    clock = Clock()
    noise = BitErrors(1e-4, seed)
    wire = MemoryWire(server, clock, noise, bytes_per_second=100_000)
    done = Controller(wire, clock=clock).upload(image)
    assert sha256(server.received).digest() == sha256(image).digest()
    assert done.match is True
    assert noise.flipped > 200
    assert done.losses > 20
    assert len(wire.sent) < 4 * len(image)
    assert done.seconds < 25  # 4 at the line's rate, were it good


def test_the_chunk_grows_again_when_the_line_is_good() -> None:
    server = SmallServer(buf_size=2048, plan=dict.fromkeys(range(5, 25), "lose"))
    image = Random(1).randbytes(512 << 10)
    clock = Clock()
    done = controller(server, clock).upload(image)
    assert server.received == image
    assert done.losses >= 3
    assert server.requests < 512 * 1024 / LEAST / 8
