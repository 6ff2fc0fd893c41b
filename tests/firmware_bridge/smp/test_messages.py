# SPDX-License-Identifier: Apache-2.0
"""Headers, typed payloads and errors, compared with what the stock library writes."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.smp import attest, fs, img, message, os, stat
from firmware_bridge.smp.errors import BadPayload, SmpError, refusal, refusal_map
from firmware_bridge.smp.header import SIZE, V1, V2, Group, Header, Op
from tests.firmware_bridge.commands import COMMANDS, request_type

RECORDS = Path(__file__).parents[2] / "records"
STOCK = json.loads((RECORDS / "smp_messages.json").read_text())["messages"]


@given(
    st.builds(
        Header,
        op=st.integers(0, 7),
        group=st.integers(0, 65535),
        command=st.integers(0, 255),
        sequence=st.integers(0, 255),
        length=st.integers(0, 65535),
        version=st.integers(0, 3),
        flags=st.integers(0, 255),
    )
)
def test_headers_come_back(header: Header) -> None:
    assert len(header.pack()) == SIZE
    assert Header.unpack(header.pack()) == header


def test_an_unknown_version_is_answered_in_the_newest() -> None:
    assert Header(Op.READ, 0, 0, version=3).answer(0).version == V2
    assert Header(Op.READ, 0, 0, version=V1).answer(0).version == V1


@pytest.mark.parametrize("record", STOCK, ids=lambda record: str(record["name"]))
def test_stock_messages_have_our_types(record: dict[str, str]) -> None:
    """Both ways: read into a type, and written by it, the map is the stock library's."""
    header, payload = message.split(bytes.fromhex(record["message"]))
    request = Header(header.op & ~1, header.group, header.command)
    kind = request_type(request)
    assert kind is not None
    if header.op & 1:
        reply = kind.REPLY.from_map(payload)
        built = message.build_reply(
            Header(request.op, header.group, header.command, header.sequence), reply
        )
    else:
        built = kind.from_map(payload).build(header.sequence)
    assert message.split(built) == (header, payload)


def example(hint: str) -> Any:
    for name, value in (("bytes", b"\1\2"), ("bool", True), ("str", "x"), ("int", 7)):
        if name in hint:
            return value
    raise AssertionError(hint)


@pytest.mark.parametrize(
    "kind", COMMANDS.values(), ids=lambda kind: f"{kind.GROUP}-{kind.__name__}"
)
def test_every_request_can_be_read_by_a_server(kind: type[message.Request[Any]]) -> None:
    values = {
        name: example(str(hint)) if "tuple" not in str(hint) else (1, 2)
        for name, hint in kind.__annotations__.items()
    }
    request = kind(**values)
    header, payload = message.split(request.build(9, V1))
    assert (header.version, header.sequence) == (V1, 9)
    assert request_type(header) is kind
    assert kind.from_map(payload) == request


def test_a_missing_key_is_named() -> None:
    with pytest.raises(BadPayload, match="StateReply: 'images' is missing"):
        img.StateReply.from_map({})
    with pytest.raises(BadPayload, match="Slot: 'version'"):
        img.StateReply.from_map({"images": [{"slot": 0}]})


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (os.ParametersReply, {"buf_size": "2048", "buf_count": 4}),
        (os.ParametersReply, {"buf_size": True, "buf_count": 4}),
        (img.StateReply, {"images": {"slot": 0}}),
        (img.StateReply, {"images": [0]}),
        (stat.DataReply, {"name": "temp", "fields": [1]}),
        (stat.DataReply, {"name": "temp", "fields": {"a": 1.5}}),
        (stat.ListReply, {"stat_list": [b"temp"]}),
        (fs.HashReply, {"type": "crc32", "len": 1, "output": "x"}),
        (attest.Attestation, {"sig": "", "cert": b""}),
    ],
)
def test_another_type_is_refused(kind: type[message.Record], payload: dict[str, object]) -> None:
    with pytest.raises(BadPayload, match="another type"):
        kind.from_map(payload)


def test_keys_that_a_server_adds_are_ignored() -> None:
    assert img.UploadReply.from_map({"rc": 0, "off": 5, "usecs": 1}) == img.UploadReply(5)


def test_what_is_not_set_is_not_written() -> None:
    assert img.Upload(5, b"x").to_map() == {"off": 5, "data": b"x"}
    assert os.BootloaderReply(mode=1, no_downgrade=True).to_map() == {
        "mode": 1,
        "no-downgrade": True,
    }


def test_a_length_that_is_not_the_payloads_is_refused() -> None:
    whole = os.Echo("hello").build(1)
    for bad in (whole[:-1], whole + b"\0", whole[:7], b""):
        with pytest.raises(BadPayload):
            message.split(bad)


def test_an_empty_payload_is_an_empty_map() -> None:
    assert message.split(Header(Op.READ, 0, 6).pack())[1] == {}


@pytest.mark.parametrize(
    ("payload", "group", "rc", "text"),
    [
        ({"rc": 8}, None, 8, "not supported"),
        ({"rc": 13}, None, 13, "too new"),
        ({"rc": 5, "rsn": "no such thing"}, None, 5, "no such entry"),
        ({"err": {"group": 1, "rc": 30}}, Group.IMG, 30, "larger than the slot"),
        ({"err": {"group": 200, "rc": 3}}, 200, 3, "no name"),
    ],
)
def test_errors_of_both_versions(
    payload: dict[str, object], group: int | None, rc: int, text: str
) -> None:
    error = refusal(payload, "upload")
    assert isinstance(error, SmpError)
    assert (error.group, error.rc) == (group, rc)
    assert "upload" in str(error)
    assert text in str(error)


def test_zero_is_no_error() -> None:
    assert refusal({}) is None
    assert refusal({"rc": 0, "off": 3}) is None
    assert refusal({"err": {"group": 1, "rc": 0}}) is None


@pytest.mark.parametrize("payload", [{"rc": "8"}, {"rc": True}, {"err": {}}, {"err": {"rc": 1}}])
def test_an_error_that_is_none_is_named(payload: dict[str, object]) -> None:
    with pytest.raises(BadPayload):
        refusal(payload)


def test_a_server_writes_the_error_of_the_requests_version() -> None:
    request = Header(Op.WRITE, Group.IMG, 1)
    assert refusal_map(request, Group.IMG, 22) == {"err": {"group": 1, "rc": 22}}
    assert refusal_map(request, None, 8) == {"rc": 8}
    assert refusal_map(Header(Op.WRITE, Group.IMG, 1, version=V1), Group.IMG, 3) == {"rc": 3}
