# SPDX-License-Identifier: Apache-2.0
"""What is promised of uploads, with the parts of `python -m bench.smp`.

The best of three, since other tests run beside this one."""

from pathlib import Path

from bench.smp import controller, image, ours
from firmware_bridge.smp.framing import LINE

SIZE = 448 << 10
BAUD = 1_000_000


def test_two_mebibytes_a_second_over_a_pty(tmp_path: Path) -> None:
    with controller(tmp_path, None, 0) as port:
        assert max(SIZE / ours(port, image(SIZE)) for _ in range(3)) >= 2 << 20


def test_nine_tenths_of_a_paced_line(tmp_path: Path) -> None:
    size = SIZE // 7
    with controller(tmp_path, BAUD, 0) as port:
        best = max(size / ours(port, image(size)) for _ in range(3))
    assert best >= 0.9 * BAUD / 10 * 93 / LINE
