# SPDX-License-Identifier: Apache-2.0
"""What origins said last, over restarts and power cuts."""

from pathlib import Path

import pytest

from edge_server.tier.records import Record, Records


def test_kept_over_a_restart(tmp_path: Path) -> None:
    record = Record(b"data\nwith lines", '"tag"', 12.5)
    Records(tmp_path).keep("tuf x", record)
    records = Records(tmp_path)
    assert records.find("tuf x") == record and records.find("tuf y") is None
    records.keep("tuf x", Record(b"", "", 13.0))
    assert records.find("tuf x") == Record(b"", "", 13.0)
    records.forget("tuf x")
    assert records.find("tuf x") is None


@pytest.mark.parametrize("cut", [0, 1, 50, 170])
def test_torn_by_a_power_cut(tmp_path: Path, cut: int) -> None:
    Records(tmp_path).keep("key", Record(b"x" * 100, "", 1.0))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:cut])
    (tmp_path / "left.new").write_bytes(b"half")
    records = Records(tmp_path)
    assert records.find("key") is None and not (tmp_path / "left.new").exists()
    path.write_bytes(b"\0" * 500)
    assert records.find("key") is None


def test_the_oldest_go(tmp_path: Path) -> None:
    records = Records(tmp_path, files=3, size=10_000)
    for number in range(6):
        records.keep(str(number), Record(b"x" * 100, "", 1.0))
    assert len(list(tmp_path.iterdir())) == 3 and records.find("5") is not None
    records.keep("large", Record(b"x" * 9_700, "", 1.0))
    assert [records.find(key) is not None for key in ("5", "large")] == [False, True]


def test_a_read_only_disk_costs_the_memory_of_it_only(tmp_path: Path) -> None:
    records = Records(tmp_path / "records")
    (tmp_path / "records").rename(tmp_path / "gone")
    records.keep("key", Record(b"", "", 1.0))
    assert records.find("key") is None
