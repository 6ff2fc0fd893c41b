# SPDX-License-Identifier: Apache-2.0
"""Versions of images, and ranges of versions of what an image works with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

_WRITTEN = re.compile(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:[+.](\d+))?")
_MOST = (0xFF, 0xFF, 0xFFFF, 0xFFFFFFFF)


class Version(NamedTuple):
    """MCUboot's struct image_version: u8, u8, u16, u32. Compares as SemVer with a build number."""

    major: int
    minor: int
    revision: int
    build: int = 0

    @classmethod
    def read(cls, text: str) -> Version:
        """Of `1.4.0+12` (imgtool) or `1.4.0.12` (Zephyr). Raises ValueError."""
        found = _WRITTEN.fullmatch(text)
        parts = [int(part or 0) for part in found.groups()] if found else []
        if not parts or any(part > most for part, most in zip(parts, _MOST, strict=True)):
            raise ValueError(f"{text!r} is no version: write 1.4.0 or 1.4.0+12")
        return cls(*parts)

    def __str__(self) -> str:
        """As Zephyr's img_mgmt_ver_str writes it: the build number only where there is one."""
        text = f"{self.major}.{self.minor}.{self.revision}"
        return f"{text}.{self.build}" if self.build else text


def _numbers(value: Any) -> tuple[int, ...]:
    """Of 3 or "0.1.0"; the numbers in front count, so "0.1.0rc1" is 0.1.0. Raises ValueError."""
    if type(value) is int and value >= 0:
        return (value,)
    found = re.match(r"\d{1,9}(?:\.\d{1,9})*", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is neither a number nor a dotted version")
    return tuple(int(part) for part in found.group().split("."))


@dataclass(frozen=True)
class Range:
    """From `least` to `most`, both belonging to it; "0.1" as the upper end takes in 0.1.7."""

    least: str | int
    most: str | int

    @classmethod
    def read(cls, value: Any) -> Range:
        """Of [least, most]. Raises ValueError."""
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError(f"a range is [least, most], not {value!r}")
        least, most = value
        lowest, highest = _numbers(least), _numbers(most)
        if lowest[: len(highest)] > highest:
            raise ValueError(f"the range {value!r} is empty")
        return cls(least, most)

    def holds(self, value: str | int) -> bool:
        """Whether a version lies in it. Raises ValueError."""
        asked = _numbers(value)
        most = _numbers(self.most)
        return _numbers(self.least) <= asked and asked[: len(most)] <= most

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


@dataclass(frozen=True)
class Compatibility:
    """What the firmware works with: the host's driver and the ABI of card programs."""

    driver: Range
    abi: Range

    @classmethod
    def read(cls, value: Any) -> Compatibility:
        """Of the decoded TLV 0x00A1, {"driver": [min, max], "abi": [min, max]}. ValueError."""
        if not isinstance(value, dict) or not {"driver", "abi"} <= value.keys():
            raise ValueError("the compatibility TLV lacks driver or abi")
        return cls(Range.read(value["driver"]), Range.read(value["abi"]))

    def written(self) -> dict[str, list[str | int]]:
        """What `read` takes."""
        return {
            "driver": [self.driver.least, self.driver.most],
            "abi": [self.abi.least, self.abi.most],
        }
