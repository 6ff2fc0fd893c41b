# SPDX-License-Identifier: Apache-2.0
"""The host's processor and memory as Linux tells them in /proc."""

from __future__ import annotations

from pathlib import Path


def cpu_seconds(stat: Path = Path("/proc/stat")) -> tuple[float, float]:
    """(busy, all) ticks of all processors since boot; the unit cancels out in a ratio."""
    fields = [float(word) for word in stat.read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]  # idle, iowait
    return sum(fields) - idle, sum(fields)


def memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> tuple[int, int]:
    """(used, all) bytes of main memory."""
    rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    size, free = (int(rows[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    return size - free, size
