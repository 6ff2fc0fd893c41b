# SPDX-License-Identifier: Apache-2.0
"""The client against recorded bytes, and against the software controller over bad lines."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from firmware_bridge.client import Controller
from firmware_bridge.controller.flash import PAGE, Layout
from firmware_bridge.errors import BadReply, CardSilent
from firmware_bridge.smp import faults, fs, img
from firmware_bridge.smp.errors import BadPayload, SmpError
from firmware_bridge.smp.framing import START, Deframer, encode_frames
from firmware_bridge.smp.header import V1, V2, Header
from firmware_bridge.smp.message import Record, Request, build_reply, split
from tests.firmware_bridge.commands import request_type
from tests.firmware_bridge.controller.bench_board import Board, blank, firmware
from tests.firmware_bridge.wires import BitErrors, Clock, MemoryWire, SmallServer
from tests.records.record import readable, steps

SESSIONS = json.loads((Path(__file__).parents[1] / "records" / "smp_sessions.json").read_text())


class Replay:
    """A server that knows one conversation by heart, to the byte."""

    def __init__(self) -> None:
        self.expected = b""
        self.answers: list[bytes] = []

    def prepare(self, step: dict[str, Any]) -> None:
        self.expected = bytes.fromhex(step["to_card"])
        told = bytes.fromhex(step["to_host"])
        self.answers = [START + answer for answer in told.split(START)[1:]]

    def __call__(self, data: bytes) -> bytes:
        assert self.expected.startswith(data)
        self.expected = self.expected[len(data) :]
        count = len(Deframer().feed(data))
        answers, self.answers = self.answers[:count], self.answers[count:]
        return b"".join(answers)


def recorded_image() -> bytes:
    (step,) = (step for step in SESSIONS["ours"] if step["step"] == "upload")
    requests = Deframer().feed(bytes.fromhex(step["to_card"]))
    chunks = [img.Upload.from_map(split(request)[1]) for request in requests]
    return b"".join(chunk.data for chunk in chunks)


def test_our_session_is_the_recorded_one() -> None:
    replay, clock = Replay(), Clock()
    card = Controller(MemoryWire(replay, clock), clock=clock, sequence=0)
    ours = steps(card, recorded_image())
    assert list(ours) == [step["step"] for step in SESSIONS["ours"]]
    for step in SESSIONS["ours"]:
        replay.prepare(step)
        assert readable(ours[step["step"]]()) == step["result"], step["step"]
        assert replay.expected == b"", step["step"]


@pytest.mark.parametrize("step", SESSIONS["smpmgr"], ids=lambda step: str(step["step"]))
def test_we_understand_what_smpmgr_said_and_was_told(step: dict[str, str]) -> None:
    asked, told = Deframer(), Deframer()
    requests = [split(found) for found in asked.feed(bytes.fromhex(step["to_card"]))]
    answers = [split(found) for found in told.feed(bytes.fromhex(step["to_host"]))]
    assert (asked.bad, asked.noise, told.bad, told.noise) == (0, 0, 0, 0)
    assert len(requests) == len(answers) > 0
    for (header, payload), (answering, answer) in zip(requests, answers, strict=True):
        kind = request_type(header)
        assert kind is not None
        assert kind.from_map(payload).to_map() == payload
        assert answering == header.answer(answering.length)
        if not {"rc", "err"} & answer.keys():
            assert kind.REPLY.from_map(answer).to_map() == answer


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    with blank(tmp_path / "flash", Layout(slot=96 * PAGE)) as flash:
        yield Board(flash)


def connected(board: Board, noise: BitErrors, version: int = V2) -> Controller:
    """The board on a line of 1 MBaud."""
    clock = Clock()

    def served(data: bytes) -> bytes:
        return board.controller.receive(data, board.now)

    wire = MemoryWire(served, clock, noise, bytes_per_second=100_000)
    return Controller(wire, clock=clock, version=version)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_board_is_updated_over_a_line_with_one_bad_bit_in_ten_thousand(
    board: Board, seed: int
) -> None:
    image = firmware("2.0.0", 2, pages=80)
    assert len(image) >= 256 << 10
    noise = BitErrors(1e-4, seed)
    card = connected(board, noise)
    uploaded = card.upload(image)
    assert (uploaded.match, noise.flipped > 200) == (True, True)
    new = next(slot for slot in card.images() if slot.slot == 1)
    assert new.hash is not None
    assert any(slot.pending for slot in card.test(new.hash))
    board.reset()
    assert next(slot for slot in card.images() if slot.active).hash == new.hash
    card.confirm()
    assert all(slot.confirmed for slot in card.images() if slot.active)


def test_a_board_over_a_good_line_takes_the_lines_whole_rate(board: Board) -> None:
    image = firmware("2.0.0", 2, pages=80)
    uploaded = connected(board, BitErrors(0, 0)).upload(image)
    assert uploaded.losses == 0
    assert uploaded.size / uploaded.seconds > 0.95 * 100_000 * 93 / 127


def test_version_1_is_spoken_too(board: Board) -> None:
    card = connected(board, BitErrors(0, 0), V1)
    assert card.echo("hello") == "hello"
    with pytest.raises(SmpError, match="invalid value") as caught:
        card.erase(7)
    assert (caught.value.group, caught.value.rc) == (None, 3)


def test_nothing_answers() -> None:
    clock = Clock()
    card = Controller(MemoryWire(lambda _: b"", clock), clock=clock)
    with pytest.raises(CardSilent, match="memory: nothing answers") as caught:
        card.images()
    assert caught.value.exit_code == 17
    assert clock.now - 100 == pytest.approx(4.9, abs=3.0)


def test_a_flood_of_noise_is_silence() -> None:
    clock = Clock()
    random = Random(1)

    class Flood(MemoryWire):
        def transfer(self, outgoing: bytes | memoryview, timeout: float) -> tuple[int, bytes]:
            clock.now += 0.01
            return len(outgoing), random.randbytes(1000)

    with pytest.raises(CardSilent):
        Controller(Flood(lambda _: b"", clock), clock=clock).echo("x")
    assert clock.now - 100 < 6


def test_parameters_that_a_server_lacks_are_zephyrs_defaults() -> None:
    def without(data: bytes) -> bytes:
        return b"".join(
            encode_frames(build_reply(Header.unpack(found), {"rc": 8}))
            for found in Deframer().feed(data)
        )

    clock = Clock()
    card = Controller(MemoryWire(without, clock), clock=clock)
    assert (card.parameters().buf_size, card.parameters().buf_count) == (384, 2)
    with pytest.raises(SmpError, match="echo: not supported"):
        card.echo("x")


class Answers:
    """Answers each request by a function of it; knows what was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/f": Random(2).randbytes(5000)}
        self.asked: list[Request[Any]] = []

    def __call__(self, data: bytes) -> bytes:
        return b"".join(map(self._one, Deframer().feed(data)))

    def _one(self, message: bytes) -> bytes:
        header, payload = split(message)
        kind = request_type(header)
        assert kind is not None
        self.asked.append(kind.from_map(payload))
        return encode_frames(build_reply(header, self._reply(self.asked[-1])))

    def _reply(self, request: Request[Any]) -> Record | dict[str, object]:
        if isinstance(request, fs.Read):
            data = self.files[request.name]
            part = data[request.off : request.off + 300]
            return fs.Chunk(request.off, part, len(data) if request.off == 0 else None)
        if isinstance(request, fs.Write):
            kept = b"" if request.off == 0 else self.files[request.name]
            self.files[request.name] = kept[: request.off] + request.data[:200]
            return fs.Written(len(self.files[request.name]))
        if isinstance(request, faults.Log):
            log = tuple(faults.Fault(n, n * 10, "hot") for n in range(1, 11) if n > request.since)
            return faults.LogReply(log[:3])
        return {"rc": 8}


def scripted() -> tuple[Controller, Answers]:
    answers, clock = Answers(), Clock()
    return Controller(MemoryWire(answers, clock), clock=clock), answers


def test_a_file_is_read_in_parts() -> None:
    card, answers = scripted()
    seen: list[int] = []
    assert card.file_read("/f", lambda at, _: seen.append(at)) == answers.files["/f"]
    assert seen == sorted(seen)
    assert seen[-1] == 5000


def test_a_file_is_written_from_where_the_server_is() -> None:
    """It takes less of each part than it was sent."""
    card, answers = scripted()
    data = Random(3).randbytes(1500)
    card.file_write("/new", data)
    assert answers.files["/new"] == data
    card.file_write("/empty", b"")
    assert answers.files["/empty"] == b""


def test_the_fault_log_comes_in_pages() -> None:
    card, answers = scripted()
    assert [fault.n for fault in card.fault_log(2)] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert [request.to_map()["since"] for request in answers.asked] == [2, 5, 8, 10]


def test_an_answer_without_what_was_asked_for() -> None:
    server = SmallServer()
    server._reply = lambda request: {"q": 1}  # type: ignore[method-assign]
    clock = Clock()
    with pytest.raises(BadPayload, match="'r' is missing"):
        Controller(MemoryWire(server, clock), clock=clock).echo("x")


def test_an_answer_that_is_no_map() -> None:
    def nonsense(data: bytes) -> bytes:
        (message,) = Deframer().feed(data)
        return encode_frames(Header.unpack(message).answer(1).pack() + b"\x80")

    clock = Clock()
    with pytest.raises(BadReply, match="makes no sense"):
        Controller(MemoryWire(nonsense, clock), clock=clock).echo("x")


def test_the_hash_is_computed_where_it_is_not_given(board: Board) -> None:
    image = firmware("1.2.0", 1, pages=2)
    card = connected(board, BitErrors(0, 0))
    card.upload(image)
    assert card.upload(image, sha256(image).digest()).resumed_at == len(image)
