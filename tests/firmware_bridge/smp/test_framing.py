# SPDX-License-Identifier: Apache-2.0
"""Messages as lines: what is right arrives whole; what is not neither raises nor fills memory."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.smp.framing import (
    LINE,
    LONGEST_LINE,
    LONGEST_MESSAGE,
    Deframer,
    encode_frames,
    encoded_size,
)

RECORDS = Path(__file__).parents[2] / "records"
STOCK = json.loads((RECORDS / "smp_messages.json").read_text())["messages"]
MESSAGE = bytes(range(256)) * 3


def held(deframer: Deframer) -> int:
    """Bytes that a deframer keeps."""
    return len(deframer._rest) + sum(map(len, deframer._lines))


@pytest.mark.parametrize("record", STOCK, ids=lambda record: str(record["name"]))
def test_frames_of_the_stock_library_are_read(record: dict[str, str]) -> None:
    deframer = Deframer()
    assert deframer.feed(bytes.fromhex(record["frames"])) == [bytes.fromhex(record["message"])]
    assert (deframer.bad, deframer.noise) == (0, 0)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=3000), st.integers(1, 300))
def test_what_is_framed_comes_back_however_it_is_cut(message: bytes, piece: int) -> None:
    frames = encode_frames(message)
    assert len(frames) == encoded_size(len(message))
    assert all(len(line) <= LINE for line in frames.splitlines(keepends=True))
    deframer = Deframer()
    found = []
    for at in range(0, len(frames), piece):
        found += deframer.feed(frames[at : at + piece])
    assert found == [message]
    assert held(deframer) == 0


def test_the_longest_message() -> None:
    message = bytes(LONGEST_MESSAGE)
    assert Deframer().feed(encode_frames(message)) == [message]


def test_lines_that_are_padded_each_for_itself() -> None:
    body = base64.b64decode(b"".join(line[2:] for line in encode_frames(MESSAGE).splitlines()))
    pieces = [base64.b64encode(body[at : at + 50]) for at in range(0, len(body), 50)]
    lines = [b"\x04\x14" + piece + b"\r\n" for piece in pieces]
    assert Deframer().feed(b"\x06\x09" + b"".join(lines)[2:]) == [MESSAGE]


def test_a_console_writes_between_the_frames() -> None:
    deframer = Deframer()
    data = b"*** Booting Zephyr ***\r\nuart:~$ " + encode_frames(MESSAGE) + b"[00:01] <inf> up\n"
    assert deframer.feed(data) == [MESSAGE]
    assert (deframer.bad, deframer.noise) == (0, 2)


def test_a_console_writes_inside_a_frame() -> None:
    lines = encode_frames(MESSAGE).splitlines(keepends=True)
    assert Deframer().feed(lines[0] + b"[00:01] <inf> up\n" + b"".join(lines[1:])) == [MESSAGE]


def test_a_lost_line_costs_one_message() -> None:
    lines = encode_frames(MESSAGE).splitlines(keepends=True)
    for lost in range(len(lines)):
        deframer = Deframer()
        rest = b"".join(lines[:lost] + lines[lost + 1 :])
        assert deframer.feed(rest + encode_frames(MESSAGE)) == [MESSAGE]


def test_a_lost_line_end_costs_one_message() -> None:
    frames = encode_frames(MESSAGE)
    for at in (at for at, byte in enumerate(frames) if byte == 10):
        deframer = Deframer()
        damaged = frames[:at] + b"\x0b" + frames[at + 1 :] + encode_frames(MESSAGE) * 2
        assert MESSAGE in deframer.feed(damaged)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 8 * len(encode_frames(MESSAGE)) - 1))
def test_a_flipped_bit_never_changes_a_message(bit: int) -> None:
    frames = bytearray(encode_frames(MESSAGE))
    frames[bit // 8] ^= 1 << bit % 8
    found = Deframer().feed(bytes(frames) + encode_frames(b"next one") * 2)
    assert set(found) <= {MESSAGE, b"next one"}
    assert b"next one" in found


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=300), st.sampled_from(
    [b"\x06\x09", b"\x04\x14", b"\n", b"//8", b"AAAA", b"=", b"\x06\x09//8A\n", b"\x04\x14AAAA\n"]
)), max_size=60))  # fmt: skip
def test_noise_never_raises_nor_fills_memory(pieces: list[bytes]) -> None:
    deframer = Deframer(limit=500)
    for piece in pieces:
        for message in deframer.feed(piece):
            assert 0 < len(message) <= 500
        assert held(deframer) <= LONGEST_LINE * 2 + 1000


def test_an_endless_line_is_dropped() -> None:
    deframer = Deframer()
    for _ in range(1000):
        assert deframer.feed(b"\x06\x09" + b"A" * 500) == []
        assert held(deframer) <= LONGEST_LINE
    assert deframer.noise == 1
    assert deframer.feed(b"\n" + encode_frames(MESSAGE)) == [MESSAGE]


def test_endless_continuation_is_dropped() -> None:
    deframer = Deframer(limit=1000)
    deframer.feed(encode_frames(bytes(1000))[:LINE])
    for _ in range(1000):
        deframer.feed(b"\x04\x14" + b"A" * 124 + b"\n")
        assert held(deframer) <= 2000
    assert deframer.bad == 1


def test_a_message_beyond_the_limit_is_dropped() -> None:
    deframer = Deframer(limit=100)
    assert deframer.feed(encode_frames(bytes(101))) == []
    assert deframer.bad == 1
    assert deframer.feed(encode_frames(bytes(100))) == [bytes(100)]
