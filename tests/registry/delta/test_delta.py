# SPDX-License-Identifier: Apache-2.0
"""Deltas: the new blob comes back exactly, for little; and whatever a stranger hands in instead is
refused in bounded memory."""

import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.delta.apply import apply_delta, read_delta
from registry.delta.encode import DeltaInfo, encode_delta
from registry.delta.form import (
    HEADER_BYTES,
    WINDOW,
    BadDelta,
    Header,
    Kind,
    Step,
    WrongBase,
    write_steps,
)
from registry.digest import digest_of


def noise(size: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()


def moved(data: bytes, share: float) -> bytes:
    """As after a fine-tune: so many of the bytes one up or down."""
    rng = np.random.default_rng(5)
    octets = np.frombuffer(data, np.uint8)
    step = rng.choice(np.array([1, 255], np.uint8), len(octets))
    made: bytes = np.where(rng.random(len(octets)) < share, octets + step, octets).tobytes()
    return made


def made(folder: Path, old: bytes, new: bytes) -> DeltaInfo:
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(new)
    return encode_delta(folder / "old", folder / "new", folder / "delta", level=3)


def applied(folder: Path) -> bytes:
    parts: list[bytes] = []
    apply_delta(folder / "delta", folder / "old", lambda part: parts.append(bytes(part)))
    return b"".join(parts)


CHANGES: dict[str, tuple[Callable[[bytes], bytes], float]] = {
    "nothing": (lambda old: old, 0.001),
    "a longer header": (lambda old: noise(333, 9) + old[5:], 0.002),
    "a few weights": (lambda old: moved(old, 0.03), 0.04),
    "many weights": (lambda old: moved(old, 0.3), 0.17),
    "a longer header and weights": (lambda old: noise(333, 9) + moved(old, 0.03), 0.04),
    "two halves changed places": (lambda old: old[700_000:] + moved(old[:700_000], 0.03), 0.03),
    "a part removed": (lambda old: old[:300_000] + old[500_000:], 0.001),
    "text put between": (lambda old: old[:300_001] + b"note" * 50_000 + old[300_001:], 0.002),
    "weights of which all occur twice": (lambda old: moved(old, 0.03), 0.04),
    "most weights": (lambda old: moved(old, 0.7), 0.35),
    "everything": (lambda old: noise(len(old), 8), 1.001),
    "grown": (lambda old: old * 3, 0.001),
    "cut to a byte": (lambda old: old[:1], 1_000.0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_new_blob_comes_back_for_little(tmp_path: Path, change: str) -> None:
    alter, share = CHANGES[change]
    old = noise(1_500_000) if "twice" not in change else noise(400_000) * 2
    new = alter(old)
    info = made(tmp_path, old, new)
    assert applied(tmp_path) == new
    assert info.ratio <= share
    assert info.size == (tmp_path / "delta").stat().st_size


@pytest.mark.parametrize(("old", "new"), [(b"", b""), (b"", b"new"), (b"old", b""), (b"a", b"b")])
def test_blobs_of_hardly_a_byte(tmp_path: Path, old: bytes, new: bytes) -> None:
    made(tmp_path, old, new)
    assert applied(tmp_path) == new


def test_blobs_of_several_windows(tmp_path: Path) -> None:
    old = noise(3 * WINDOW + 17)
    new = moved(old, 0.01)
    steps: list[int] = []
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    encode_delta(tmp_path / "old", tmp_path / "new", tmp_path / "delta", 1, steps.append)
    assert applied(tmp_path) == new
    assert sum(steps) == len(new)


def test_applying_takes_the_memory_of_a_few_windows(tmp_path: Path) -> None:
    old = noise(1 << 20) * 24
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(moved(old, 0.01))
    encode_delta(tmp_path / "old", tmp_path / "new", tmp_path / "delta", level=1)
    tracemalloc.start()
    try:
        apply_delta(tmp_path / "delta", tmp_path / "old", len)
        assert tracemalloc.get_traced_memory()[1] < 6 * WINDOW
    finally:
        tracemalloc.stop()


def test_the_same_files_give_the_same_delta(tmp_path: Path) -> None:
    old = noise(200_000)
    made(tmp_path, old, moved(old, 0.1))
    first = (tmp_path / "delta").read_bytes()
    made(tmp_path, old, moved(old, 0.1))
    assert (tmp_path / "delta").read_bytes() == first


def test_the_header_names_both_blobs(tmp_path: Path) -> None:
    made(tmp_path, b"the old one", b"the new one!")
    header = read_delta(tmp_path / "delta")
    assert (header.old, header.old_size) == (digest_of(b"the old one"), 11)
    assert (header.new, header.new_size) == (digest_of(b"the new one!"), 12)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_edit_of_bytes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("edit")
    old = noise(data.draw(st.integers(0, 200_000)), data.draw(st.integers(0, 5)))
    new = bytearray(old)
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(new)))
        what = data.draw(st.binary(max_size=40)) * data.draw(st.integers(1, 500))
        new[at : at + data.draw(st.integers(0, 50_000))] = what
    made(folder, old, bytes(new))
    assert applied(folder) == bytes(new)


# What strangers hand in.


def squeezed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def forged(
    folder: Path,
    steps: list[Step],
    payload: bytes = b"",
    *,
    old: bytes = b"o" * 100,
    new: bytes = b"n" * 100,
    size: int | None = None,
    trailing: bytes = b"",
) -> None:
    (folder / "old").write_bytes(old)
    table = write_steps(steps, 3)
    header = Header(
        digest_of(old),
        len(old),
        digest_of(new),
        len(new) if size is None else size,
        len(steps),
        len(table),
    )
    (folder / "delta").write_bytes(header.encode() + payload + table + trailing)


def refused(folder: Path) -> str:
    """Why the delta in the folder is refused, and that it made no byte where none is due."""
    with pytest.raises(BadDelta) as caught:
        applied(folder)
    assert "fetch the whole blob" in caught.value.remedy
    return str(caught.value)


def test_a_delta_that_yields_other_bytes(tmp_path: Path) -> None:
    forged(tmp_path, [Step(Kind.COPY, 100)])
    assert "yields" in refused(tmp_path)


def test_wrong_base_of_another_size(tmp_path: Path) -> None:
    made(tmp_path, b"the old one", b"the new one!")
    (tmp_path / "old").write_bytes(b"another old one")
    with pytest.raises(WrongBase, match="15 bytes, not 11"):
        applied(tmp_path)


def test_wrong_base_of_the_same_size(tmp_path: Path) -> None:
    old = noise(50_000)
    made(tmp_path, old, moved(old, 0.1))
    (tmp_path / "old").write_bytes(old[:-1] + bytes([old[-1] ^ 1]))
    with pytest.raises(WrongBase, match="made from sha256"):
        applied(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_truncated_delta(tmp_path: Path, share: float) -> None:
    old = noise(100_000)
    made(tmp_path, old, moved(old, 0.1) + noise(5_000, 4))
    whole = (tmp_path / "delta").read_bytes()
    (tmp_path / "delta").write_bytes(whole[: int(share * len(whole))])
    refused(tmp_path)


def test_bytes_behind_the_table(tmp_path: Path) -> None:
    forged(tmp_path, [Step(Kind.COPY, 100)], trailing=b"x")
    refused(tmp_path)


def test_bomb_a_payload_larger_than_its_window(tmp_path: Path) -> None:
    bomb = squeezed(bytes(1 << 30))
    forged(tmp_path, [Step(Kind.DATA, 100, first=len(bomb))], bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "other than 100" in refused(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_bomb_a_frame_that_lies_about_its_size(tmp_path: Path) -> None:
    """The content size in the frame's header (RFC 8878, 3.1.1.1) says 100."""
    frame = bytearray(squeezed(bytes(200)))
    assert frame[5] == 200
    frame[5] = 100
    forged(tmp_path, [Step(Kind.DATA, 100, first=len(frame))], bytes(frame))
    assert "does not expand" in refused(tmp_path)


def test_bomb_more_output_than_promised(tmp_path: Path) -> None:
    forged(tmp_path, [Step(Kind.COPY, 100)] * 1_000, size=100)
    assert "more or fewer" in refused(tmp_path)


def test_bomb_a_table_of_other_length(tmp_path: Path) -> None:
    table = squeezed(bytes(1 << 28))
    header = Header(digest_of(b""), 0, digest_of(b""), 0, 5, len(table))
    (tmp_path / "old").write_bytes(b"")
    (tmp_path / "delta").write_bytes(header.encode() + table)
    assert "other than 200" in refused(tmp_path)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (Step(Kind.COPY, 100, source=1), "behind the old blob"),
        (Step(Kind.COPY, 100, source=(1 << 64) - 50), "behind the old blob"),
        (Step(Kind.COPY, 0), "makes 0 bytes"),
        (Step(Kind.ADD, 101), "behind the old blob"),
        (Step(Kind.ADD, 99, width=2), "numbers of 2 bytes"),
        (Step(Kind.ADD, 99, width=3), "numbers of 3 bytes"),
        (Step(Kind.ADD, 100, width=0), "numbers of 0 bytes"),
        (Step(Kind.ADD, 100, columns=99), "by 99 columns"),
        (Step(Kind.DATA, 100, columns=10), "by 10 columns"),
        (Step(Kind.DATA, WINDOW + 1), "makes 2097153 bytes"),
        (Step(Kind.COPY, 50, first=1), "payloads of 0, 1"),
        (Step(Kind.PATCH, 100, base=101), "behind the old blob"),
        (Step(Kind.DATA, 100, first=WINDOW * 2), "payloads of"),
    ],
)
def test_steps_out_of_bounds(tmp_path: Path, step: Step, why: str) -> None:
    forged(tmp_path, [step], bytes(step.first))
    assert why in refused(tmp_path)


def test_a_dictionary_out_of_proportion(tmp_path: Path) -> None:
    """Many small steps with large dictionaries would cost time without end."""
    forged(tmp_path, [Step(Kind.PATCH, 1, base=1 << 20)], old=bytes(1 << 20))
    assert "to make 1" in refused(tmp_path)


def test_kinds_and_codings_of_another_version(tmp_path: Path) -> None:
    for column, value in ((0, 9), (1, 9), (3, 1)):
        forged(tmp_path, [Step(Kind.COPY, 100)])
        row = bytearray(zstandard.decompress((tmp_path / "delta").read_bytes()[HEADER_BYTES:]))
        row[column] = value
        table = squeezed(bytes(row))
        old = b"o" * 100
        header = Header(digest_of(old), 100, digest_of(b"n"), 100, 1, len(table))
        (tmp_path / "delta").write_bytes(header.encode() + table)
        refused(tmp_path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_hostile_bytes_are_refused_or_yield_what_they_promise(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "hostile"
    folder.mkdir(exist_ok=True)
    old = noise(20_000)
    new = moved(old[:9_000], 0.05) + moved(old[9_000:], 0.4) + noise(2_000, 7) + b"text" * 500
    if not (folder / "whole").exists():
        made(folder, old, new)
        (folder / "delta").rename(folder / "whole")
    damaged = bytearray((folder / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    (folder / "delta").write_bytes(damaged)
    try:
        assert applied(folder) == new
    except (BadDelta, WrongBase):
        pass


def test_what_the_writer_raises_comes_through(tmp_path: Path) -> None:
    made(tmp_path, b"old" * 100, b"new" * 100)

    def full(_part: bytes | memoryview) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        apply_delta(tmp_path / "delta", tmp_path / "old", full)
