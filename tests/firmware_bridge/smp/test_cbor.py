# SPDX-License-Identifier: Apache-2.0
"""The reader of CBOR agrees with cbor2 on what SMP uses, and refuses all else by name."""

import math
import tracemalloc

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.smp import cbor
from firmware_bridge.smp.errors import BadPayload

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=40),
    st.text(max_size=40),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
MAPS = st.dictionaries(st.text(max_size=8), VALUES, max_size=6)


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return int(isinstance(value, dict | list)) + max(map(depth, inner), default=0)


@settings(max_examples=300, deadline=None)
@given(MAPS.filter(lambda found: depth(found) <= cbor.DEPTH), st.booleans())
def test_what_cbor2_writes_is_read(found: dict[str, object], indefinite: bool) -> None:
    assert cbor.decode(cbor2.dumps(found, indefinite_containers=indefinite)) == found


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused_by_name(data: bytes) -> None:
    try:
        found = cbor.decode(data)
    except BadPayload:
        return
    assert cbor2.loads(data) == found or "nan" in repr(found)


@settings(max_examples=300, deadline=None)
@given(MAPS, st.data())
def test_damage_is_refused_by_name_or_changes_values_only(
    found: dict[str, object], data: st.DataObject
) -> None:
    wire = bytearray(cbor2.dumps(found))
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(cbor.decode(bytes(wire)), dict)
    except BadPayload:
        pass


def test_strings_in_pieces() -> None:
    assert cbor.decode(bytes.fromhex("bf61615f4101420203ff61627f616b616cffff")) == {
        "a": b"\x01\x02\x03",
        "b": "kl",
    }


def test_floats_of_all_sizes() -> None:
    found = cbor.decode(bytes.fromhex("a36168f93c006166fa3fc000006164fb400921fb54442d18"))
    assert found == {"h": 1.0, "f": 1.5, "d": math.pi}


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        ("", "ends"),
        ("80", "not a CBOR map"),
        ("f6", "not a CBOR map"),
        ("a0a0", "behind"),
        ("a1", "longer"),
        ("a16161", "ends"),
        ("bf616100", "ends"),
        ("a10000", "key"),
        ("a1800000", "nested|key"),
        ("a16161c249010000000000000000", "tags"),
        ("a16161d81c80", "tags"),
        ("a161611c", "reserved"),
        ("a161611f", "indefinite"),
        ("a161615bffffffffffffffff00", "longer"),
        ("a161619bffffffffffffffff00", "longer"),
        ("bbffffffffffffffff", "longer"),
        ("a16161" + "81" * 9 + "00", "deeper"),
        ("a16161" + "9f" * 500, "deeper"),
        ("bf6161" * 100, "deeper"),
        ("a161615f6161ff", "another kind"),
        ("a161615f5f4100ffff", "another kind"),
        ("a161f00000", "UTF-8|ends"),
        ("a16161f818", "simple"),
        ("a16161ff", "simple"),
    ],
)
def test_refused(wire: str, why: str) -> None:
    with pytest.raises(BadPayload, match=why):
        cbor.decode(bytes.fromhex(wire))


def test_a_claim_of_gigabytes_takes_no_memory() -> None:
    claims = [
        bytes.fromhex(h) for h in ("bb0000000100000000", "a161619a7fffffff", "a161617affffffff")
    ]
    tracemalloc.start()
    try:
        for claim in claims * 20:
            with pytest.raises(BadPayload):
                cbor.decode(claim)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
