# SPDX-License-Identifier: Apache-2.0
"""Sequence numbers, retransmission and stale answers, with a clock that is told the time."""

import pytest

from firmware_bridge.errors import BadReply
from firmware_bridge.exchange import ERASING, ONCE, PATIENCE, QUICK, Exchange, Patience
from firmware_bridge.smp import img, os
from firmware_bridge.smp.errors import SmpError
from firmware_bridge.smp.framing import Deframer, encode_frames
from firmware_bridge.smp.header import V1, Group, Header, Op
from firmware_bridge.smp.message import build_reply
from tests.firmware_bridge.wires import Clock


def answer_to(frames: bytes, payload: dict[str, object]) -> bytes:
    """What a server says to the one request in `frames`."""
    (message,) = Deframer().feed(frames)
    return encode_frames(build_reply(Header.unpack(message), payload))


def test_an_answer_finds_its_request() -> None:
    exchange = Exchange(Clock())
    first, second = exchange.send(os.Echo("a")), exchange.send(os.Echo("b"))
    a, b = (encode_frames(m) for m in Deframer().feed(exchange.outgoing()))
    assert exchange.outgoing() == b""
    answers = exchange.receive(answer_to(b, {"r": "b"}) + answer_to(a, {"r": "a"}))
    assert [(found.ticket, found.payload) for found in answers] == [
        (second, {"r": "b"}),
        (first, {"r": "a"}),
    ]
    assert exchange.deadline() is None


def test_a_lost_request_is_sent_again_unchanged_until_patience_ends() -> None:
    clock = Clock()
    exchange = Exchange(clock, sequence=250)
    ticket = exchange.send(os.Echo("a"))
    frames = exchange.outgoing()
    waits = []
    for _ in range(QUICK.tries):
        deadline = exchange.deadline()
        assert deadline is not None
        waits.append(round(deadline - clock.now, 3))
        clock.now = deadline - 0.001
        assert exchange.expired() == []
        assert exchange.outgoing() == b""
        clock.now = deadline
        given_up = exchange.expired()
        assert exchange.outgoing() == (b"" if given_up else frames)
    assert given_up == [ticket]
    assert waits == [0.4, 0.6, 0.9, 1.0, 1.0, 1.0]
    assert exchange.sent_again == QUICK.tries - 1


def test_an_answer_that_comes_after_the_second_try_counts_and_its_twin_is_stale() -> None:
    clock = Clock()
    exchange = Exchange(clock)
    exchange.send(os.Echo("a"))
    reply = answer_to(exchange.outgoing(), {"r": "a"})
    clock.now += 0.5
    exchange.expired()
    (answer,) = exchange.receive(reply)
    assert answer.tries == 2
    assert exchange.receive(reply) == []
    assert exchange.stale == 1


def test_an_answer_to_what_was_given_up_is_stale() -> None:
    exchange = Exchange(Clock())
    ticket = exchange.send(os.Echo("a"))
    reply = answer_to(exchange.outgoing(), {"r": "a"})
    exchange.forget(ticket)
    exchange.send(os.Echo("b"))
    assert exchange.receive(reply) == []
    assert exchange.stale == 1


@pytest.mark.parametrize(
    "other",
    [
        Header(Op.READ_REPLY, Group.OS, 0, 7),
        Header(Op.WRITE, Group.OS, 0, 7),
        Header(Op.WRITE_REPLY, Group.IMG, 0, 7),
        Header(Op.WRITE_REPLY, Group.OS, 5, 7),
        Header(Op.WRITE_REPLY, Group.OS, 0, 8),
    ],
)
def test_an_answer_to_something_else_is_stale(other: Header) -> None:
    exchange = Exchange(Clock(), sequence=7)
    exchange.send(os.Echo("a"))
    assert exchange.receive(encode_frames(other.pack())) == []
    assert exchange.stale == 1
    assert exchange.receive(encode_frames(b"tiny")) == []
    assert exchange.stale == 2


def test_our_own_request_that_comes_back_is_stale() -> None:
    """A pty in echo mode, or a plug that connects both wires."""
    exchange = Exchange(Clock())
    exchange.send(os.Echo("a"))
    assert exchange.receive(exchange.outgoing()) == []
    assert exchange.stale == 1


def test_numbers_go_round_and_step_over_those_in_flight() -> None:
    exchange = Exchange(Clock(), sequence=3)
    waiting = exchange.send(os.Echo("waits"))
    exchange.outgoing()
    seen = set()
    for _ in range(600):
        ticket = exchange.send(os.Echo("x"))
        frames = exchange.outgoing()
        number = Header.unpack(Deframer().feed(frames)[0]).sequence
        assert number != waiting & 255
        seen.add(number)
        assert [a.ticket for a in exchange.receive(answer_to(frames, {"r": "x"}))] == [ticket]
    assert len(seen) == 255
    assert exchange.in_flight == 1


def test_a_refusal_is_an_answer() -> None:
    exchange = Exchange(Clock(), version=V1)
    exchange.send(os.Echo("a"))
    (answer,) = exchange.receive(answer_to(exchange.outgoing(), {"rc": 8}))
    assert isinstance(answer.error, SmpError)
    assert (answer.error.group, answer.error.rc) == (None, 8)


@pytest.mark.parametrize("payload", [b"\x80", b"\xff", b"\xa1\x62rc\x61x"])
def test_an_answer_without_sense_is_one_too(payload: bytes) -> None:
    exchange = Exchange(Clock(), sequence=1)
    exchange.send(os.Echo("a"))
    header = Header(Op.WRITE_REPLY, Group.OS, 0, 1, len(payload))
    (answer,) = exchange.receive(encode_frames(header.pack() + payload))
    assert isinstance(answer.error, BadReply)


def test_time_on_the_line_is_not_taken_for_silence() -> None:
    clock = Clock()
    exchange = Exchange(clock, bytes_per_second=1000)
    patience = Patience(0.1, 1, 0.1, 1)
    first = exchange.send(img.Upload(0, bytes(1000)), patience)
    exchange.send(img.Upload(1000, bytes(1000)), patience)
    size = len(exchange.outgoing()) / 2
    assert exchange.deadline() == pytest.approx(clock.now + size / 1000 + 0.1, abs=0.02)
    clock.now += size / 1000 + 0.15
    assert exchange.expired() == [first]
    assert exchange.deadline() == pytest.approx(clock.now + size / 1000 - 0.05, abs=0.02)


def test_commands_that_erase_are_waited_for_and_a_reset_is_never_sent_twice() -> None:
    assert PATIENCE[Op.WRITE, Group.OS, 5] is ONCE
    assert ONCE.tries == 1
    total = sum(ERASING.wait(n) for n in range(1, ERASING.tries + 1))
    assert total > 40
    clock = Clock()
    exchange = Exchange(clock)
    ticket = exchange.send(os.Reset())
    exchange.outgoing()
    clock.now += 60
    assert exchange.expired() == [ticket]
    assert exchange.outgoing() == b""
