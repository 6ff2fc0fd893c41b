# SPDX-License-Identifier: Apache-2.0
"""System, statistics, settings, files, enumeration, attestation, fault log; and the protocol's own
errors."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware_bridge.controller.faultlog import Code
from firmware_bridge.controller.flash import Flash
from firmware_bridge.smp.framing import Deframer, encode_frames
from firmware_bridge.smp.header import V1, V2, Header, Op
from tests.firmware_bridge.controller.bench_board import NOW, SERIAL, VENDOR, Board, blank


@pytest.fixture
def flash(tmp_path: Path) -> Iterator[Flash]:
    with blank(tmp_path / "flash") as made:
        yield made


@pytest.fixture
def board(flash: Flash) -> Board:
    return Board(flash)


def setting(board: Board, name: str) -> int:
    value: bytes = board.ask(3, 0, {"name": name})["val"]
    assert len(value) == 4
    return int.from_bytes(value, "little")


def set_to(board: Board, name: str, value: int) -> dict[str, Any]:
    return board.ask(3, 0, {"name": name, "val": value.to_bytes(4, "little")}, op=Op.WRITE)


def test_answers_are_maps_of_indefinite_length(board: Board) -> None:
    frames = board.controller.receive(encode_frames(Header(Op.READ, 0, 6).pack()), 0.0)
    payload = cbor_of(frames)[8:]
    assert (payload[0], payload[-1]) == (0xBF, 0xFF)
    assert board.ask(0, 6) == {"buf_size": 2048, "buf_count": 4}


@pytest.mark.parametrize("version", [V1, V2])
def test_missing_handler_is_8_in_both_versions(board: Board, version: int) -> None:
    for group, command, op in ((0, 99, Op.READ), (9, 0, Op.WRITE), (1, 1, Op.READ)):
        assert board.ask(group, command, op=op, version=version) == {"rc": 8}


def test_newer_protocol_version_is_13(board: Board) -> None:
    assert board.ask(0, 0, {"d": "x"}, version=2) == {"rc": 13}
    assert board.ask(0, 0, {"d": "x"}, version=3) == {"rc": 13}


def test_header_that_announces_more_than_there_is(board: Board) -> None:
    message = Header(Op.READ, 0, 0, length=50).pack() + b"\xa0"
    assert b"rc" in cbor_of(board.controller.receive(encode_frames(message), 0.0))


def cbor_of(frames: bytes) -> bytes:
    return b"".join(Deframer().feed(frames))


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x80", b"\xa1\x61d", b"\xa1\x01\x02"])
def test_payload_that_is_no_map_is_invalid(board: Board, payload: bytes) -> None:
    message = Header(Op.WRITE, 0, 0, length=len(payload)).pack() + payload
    answer = cbor_of(board.controller.receive(encode_frames(message), 0.0))
    assert cbor2.loads(answer[8:]) == {"rc": 3}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from([0, 2]),
    st.sampled_from([0, 1, 2, 3, 8, 10, 65, 66]),
    st.integers(0, 8),
    st.dictionaries(
        st.sampled_from(("off", "data", "len", "sha", "name", "val", "hash", "slot", "d", "nonce")),
        st.one_of(
            st.integers(-5, 70000), st.binary(max_size=40), st.text(max_size=40), st.booleans(),
            st.none(), st.lists(st.integers(), max_size=3),
        ),
    ),
)  # fmt: skip
def test_nonsense_never_stops_the_controller(
    board: Board, op: int, group: int, command: int, payload: dict[str, object]
) -> None:
    answer = board.ask(group, command, payload, op=op)
    assert isinstance(answer, dict)
    board.controller.tick(board.now)
    assert board.ask(0, 0, {"d": "x"}) == {"r": "x"}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.binary(max_size=80), max_size=5))
def test_noise_on_the_line_never_stops_the_controller(board: Board, noise: list[bytes]) -> None:
    for piece in noise:
        board.controller.receive(piece, board.now)
    board.controller.receive(b"\n", board.now)
    assert board.ask(0, 0, {"d": "x"}) == {"r": "x"}


def test_system_group(board: Board) -> None:
    assert board.write(0, 0, {"d": "é" * 200}) == {"r": "é" * 200}
    assert board.ask(0, 0, {"x": 1}) == {"rc": 3}
    assert board.ask(0, 4) == {"err": {"group": 0, "rc": 4}}
    board.write(0, 4, {"datetime": "2026-01-31T12:00:00"})
    board.now += 5
    assert board.ask(0, 4)["datetime"] == "2026-01-31T12:00:05"
    assert board.ask(0, 4, {"datetime": "noon"}, op=Op.WRITE) == {"err": {"group": 0, "rc": 2}}
    assert board.ask(0, 7) == {"output": "Tepi"}
    assert board.ask(0, 7, {"format": "vns"}) == {"output": f"Tepi {SERIAL} 1.0.0"}
    assert board.ask(0, 7, {"format": "z"}) == {"err": {"group": 0, "rc": 2}}
    assert board.ask(0, 8) == {"bootloader": "MCUboot"}
    assert board.ask(0, 8, {"query": "mode"}) == {"mode": 1, "no-downgrade": True}
    assert board.ask(0, 8, {"query": "x"}) == {"err": {"group": 0, "rc": 3}}


def test_reset_comes_a_while_after_its_answer(board: Board) -> None:
    board.write(0, 5, {})
    assert board.controller.due == 0.25
    board.controller.tick(0.2)
    assert board.controller.boots == 1
    board.controller.tick(0.25)
    assert board.controller.boots == 2
    assert board.ask(2, 0, {"name": "system"})["fields"]["uptime_ms"] == 0


def test_statistics(board: Board) -> None:
    names = board.ask(2, 1)["stat_list"]
    assert names == ["temp", "power", "clock", "volt", "fan", "fault", "system"]
    for name in names:
        answer = board.ask(2, 0, {"name": name})
        assert answer["name"] == name
        assert all(type(value) is int and value >= 0 for value in answer["fields"].values())
    assert board.ask(2, 0, {"name": "x"}) == {"err": {"group": 2, "rc": 2}}
    assert board.ask(2, 0, {"name": "x"}, version=V1) == {"rc": 5}


def test_settings_are_set_saved_loaded_and_deleted(flash: Flash) -> None:
    board = Board(flash)
    assert setting(board, "limit/power_w") == 75
    assert set_to(board, "limit/power_w", 50) == {}
    assert set_to(board, "fan/min_pct", 33) == {}
    assert board.ask(2, 0, {"name": "power"})["fields"]["limit_mw"] == 50_000
    board.write(3, 3, {"name": "limit/power_w"})
    board.reset()
    assert setting(board, "limit/power_w") == 50
    assert setting(board, "fan/min_pct") == 20
    set_to(board, "limit/power_w", 60)
    assert board.ask(3, 3) == {}
    assert setting(board, "limit/power_w") == 50
    assert board.write(3, 2, {}) == {}
    board.write(3, 1, {"name": "limit/power_w"})
    assert setting(Board(flash), "limit/power_w") == 75


def test_settings_that_are_refused(board: Board) -> None:
    def refused(payload: dict[str, object], op: int = Op.WRITE) -> int:
        number: int = board.ask(3, 0, payload, op=op)["err"]["rc"]
        return number

    for value in (b"", b"\0" * 3, (14).to_bytes(4, "little"), b"\xff" * 4):
        assert board.ask(3, 0, {"name": "limit/power_w", "val": value}, op=Op.WRITE) == {"rc": 3}
    assert refused({"name": "id/serial", "val": b"mine"}) == 6
    assert refused({"name": "limit/none", "val": b""}) == 3
    assert refused({"name": "limit/none"}, Op.READ) == 3
    assert refused({"name": "none/none"}, Op.READ) == 5
    assert refused({"name": "n" * 32}, Op.READ) == 2
    assert board.ask(3, 0, {"name": ""}) == {"rc": 3}


def test_settings_wear_the_flash_evenly(board: Board) -> None:
    """Thousands of saves: the records move from bank to bank and nothing is lost."""
    for round_ in range(2000):
        set_to(board, "limit/temp_c", 50 + round_ % 50)
        board.write(3, 3, {})
    board.reset()
    assert setting(board, "limit/temp_c") == 50 + 1999 % 50


def test_identity_can_be_read_and_the_key_cannot(board: Board) -> None:
    assert board.ask(3, 0, {"name": "id/serial"}) == {"val": SERIAL.encode()}
    assert board.ask(3, 0, {"name": "id/board"}) == {"val": b"tepi-c1"}
    assert board.ask(3, 0, {"name": "id/serial", "max_size": 3}) == {"val": SERIAL.encode()[:3]}
    whole = board.ask(3, 0, {"name": "id/cert", "max_size": 9999})
    assert whole["max_size"] == 1024
    certificate = x509.load_der_x509_certificate(whole["val"])
    certificate.verify_directly_issued_by(VENDOR.ca)
    named = certificate.subject.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)
    assert [attribute.value for attribute in named] == [SERIAL]
    assert certificate.not_valid_after_utc.year == 9999
    assert certificate.not_valid_before_utc.timestamp() < NOW
    private = board.controller.identity.key.private_numbers().private_value.to_bytes(32, "big")
    for name in board.ask(2, 1)["stat_list"]:
        assert private not in cbor2.dumps(board.ask(2, 0, {"name": name}))


def test_attestation_binds_the_card_to_nonce_and_node(board: Board) -> None:
    nonce, spki = b"n" * 32, sha256(b"node key").digest()
    answer = board.ask(65, 0, {"nonce": nonce, "spki": spki})
    certificate = x509.load_der_x509_certificate(answer["cert"])
    certificate.verify_directly_issued_by(VENDOR.ca)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(answer["sig"], b"tepi-attest-v1" + nonce + spki, ec.ECDSA(SHA256()))
    for other in (b"m" * 32 + spki, nonce + bytes(32)):
        with pytest.raises(InvalidSignature):
            key.verify(answer["sig"], b"tepi-attest-v1" + other, ec.ECDSA(SHA256()))
    assert board.ask(65, 0, {"nonce": b"short", "spki": spki}) == {"err": {"group": 65, "rc": 2}}
    assert board.ask(65, 0, {"nonce": nonce, "spki": b""}) == {"rc": 3}


def test_enumeration(board: Board) -> None:
    numbers = [0, 1, 2, 3, 8, 10, 65, 66]
    assert board.ask(10, 0) == {"count": len(numbers)}
    assert board.ask(10, 1) == {"groups": numbers}
    assert board.ask(10, 2) == {"group": 0}
    assert board.ask(10, 2, {"index": 7}) == {"group": 66, "end": True}
    assert board.ask(10, 2, {"index": 8}) == {"err": {"group": 10, "rc": 4}}
    details = board.ask(10, 3, {"groups": [1, 7]})
    assert details == {"groups": [{"group": 1, "name": "img mgmt", "handlers": 7}]}


def test_files_in_memory(board: Board) -> None:
    content = bytes(range(256)) * 20
    at = 0
    while at < len(content):
        piece: dict[str, object] = {"off": at, "name": "/ram/a", "data": content[at : at + 1000]}
        at = board.write(8, 0, piece | ({} if at else {"len": len(content)}))["off"]
    got = b""
    while len(got) < len(content):
        answer = board.ask(8, 0, {"off": len(got), "name": "/ram/a"})
        assert ("len" in answer) == (not got)
        got += answer["data"]
    assert got == content
    assert board.ask(8, 1, {"name": "/ram/a"}) == {"len": len(content)}
    crc = board.ask(8, 2, {"name": "/ram/a"})
    assert crc == {"type": "crc32", "len": len(content), "output": zlib.crc32(content)}
    part = board.ask(8, 2, {"name": "/ram/a", "type": "sha256", "off": 10, "len": 7})
    output = sha256(content[10:17]).digest()
    assert part == {"type": "sha256", "len": 7, "output": output, "off": 10}
    assert board.write(8, 4, {}) == {}
    board.reset()
    assert board.ask(8, 1, {"name": "/ram/a"}) == {"err": {"group": 8, "rc": 3}}


def test_files_that_are_refused(board: Board) -> None:
    def refused(op: int, command: int, payload: dict[str, object]) -> int:
        number: int = board.ask(8, command, payload, op=op)["err"]["rc"]
        return number

    write: dict[str, object] = {"off": 0, "len": 1, "data": b"x"}
    assert refused(Op.READ, 0, {"off": 0, "name": "/dump/last.bin"}) == 3
    assert refused(Op.READ, 0, {"off": 0, "name": "/dump"}) == 4
    assert refused(Op.READ, 1, {"name": "relative"}) == 2
    assert refused(Op.WRITE, 0, {**write, "name": "/dump/mine"}) == 15
    assert refused(Op.WRITE, 0, {**write, "name": "/lfs/x"}) == 14
    assert refused(Op.WRITE, 0, {"off": 9, "data": b"x", "name": "/ram/x"}) == 11
    board.write(8, 0, {"off": 0, "len": 0, "name": "/ram/e", "data": b""})
    assert refused(Op.READ, 2, {"name": "/ram/e"}) == 16
    board.write(8, 0, {**write, "name": "/ram/f"})
    assert refused(Op.READ, 2, {"name": "/ram/f", "type": "md5"}) == 13
    assert refused(Op.READ, 2, {"name": "/ram/f", "off": 1}) == 12
    assert board.ask(8, 0, {**write, "name": ""}, op=Op.WRITE) == {"rc": 3}


def test_memory_disk_that_is_full(board: Board) -> None:
    number, answer = 0, {}
    while "err" not in answer and number < 300:
        name = f"/ram/{number}"
        piece: dict[str, object] = {"off": 0, "len": 1800, "data": bytes(1800), "name": name}
        answer = board.ask(8, 0, piece, op=Op.WRITE)
        number += 1
    assert answer == {"err": {"group": 8, "rc": 10}}
    assert 100 < number < 300


def test_crash_leaves_a_dump_and_an_entry_in_the_log(flash: Flash) -> None:
    board = Board(flash)
    board.now = 77.0
    board.controller.tick(board.now)
    assert json.loads(board.ask(8, 0, {"off": 0, "name": "/dump/index"})["data"]) == []
    board.controller.crash("stack overflow in the fan thread")
    board = Board(flash)  # and the power goes, too
    first = board.ask(8, 0, {"off": 0, "name": "/dump/last.bin"})
    rest = board.ask(8, 0, {"off": len(first["data"]), "name": "/dump/last.bin"})
    dump = first["data"] + rest["data"]
    while len(dump) < first["len"]:
        dump += board.ask(8, 0, {"off": len(dump), "name": "/dump/last.bin"})["data"]
    assert dump.startswith(b"TEPIDUMP")
    told = cbor2.loads(dump[8:])
    assert told["reason"] == "stack overflow in the fan thread"
    assert (told["firmware"], told["uptime"], told["time"]) == ("1.0.0", 77, int(NOW) + 77)
    assert told["telemetry"]["temp"]["die_mc"] > 20_000
    (entry,) = board.ask(66, 0, {"since": 0})["log"]
    assert entry == {"n": 1, "t": int(NOW) + 77, "code": 6, "info": told["reason"]}


def test_long_fault_log_comes_in_pieces(flash: Flash) -> None:
    board = Board(flash)
    for number in range(300):
        board.controller.log.add(Code.POWER_LIMITED, f"number {number} " + "x" * 200)
    seen: list[dict[str, Any]] = []
    while new := board.ask(66, 0, {"since": seen[-1]["n"] if seen else 0})["log"]:
        seen += new
    numbers = [entry["n"] for entry in seen]
    assert numbers == list(range(numbers[0], 301))
    after = Board(flash).ask(66, 0, {"since": 290})["log"]
    assert [entry["n"] for entry in after] == list(range(291, 301))
