# SPDX-License-Identifier: Apache-2.0
"""Numbers of bytes as people read and write them."""

from __future__ import annotations

import re

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_FORM = re.compile(r"(\d+(?:\.\d+)?) *(?:([KMGT])(i?)B?|B)?", re.IGNORECASE)


def size_text(size: int) -> str:
    """'812 B', '1.4 GiB'."""
    value, unit = float(size), "B"
    for larger in _UNITS[1:]:
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def parse_size(text: str) -> int:
    """Bytes of '500000', '20 MB' (of 1000²), '2GiB' or '2Gi' (of 1024³). Raises ValueError."""
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a number of bytes such as 500000, 20MB or 2GiB")
    number, letter, binary = found.groups()
    power = " KMGT".index(letter.upper()) if letter else 0
    return int(float(number) * (1024 if binary else 1000) ** power)
