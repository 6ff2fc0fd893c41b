# SPDX-License-Identifier: Apache-2.0
"""What is asked on the host before a byte is written to a card. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from firmware_bridge.errors import BridgeError
from firmware_bridge.image.check import PublicKey, check_image
from firmware_bridge.image.parse import Image, parse_image
from firmware_bridge.image.version import Range, Version
from firmware_bridge.update.errors import Incompatible, Older
from firmware_bridge.update.facts import Facts
from firmware_bridge.update.hooks import HostVersions

_MOST_BYTES = 64 << 20  # no controller has that much flash


@dataclass(frozen=True, slots=True)
class Package:
    """An image file, whole."""

    path: Path
    data: bytes
    image: Image
    sha256: bytes  # of the file, by which an upload is resumed


def read_package(path: Path) -> Package:
    """Raises ImageError: no image, or truncated; BridgeError: far too large; OSError."""
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise BridgeError(f"{path} has {size} bytes: no firmware of a card is that large")
    data = path.read_bytes()
    try:
        return Package(path, data, parse_image(data), sha256(data).digest())
    except BridgeError as error:
        error.args = (f"{path}: {error}",)
        raise


@dataclass(frozen=True, slots=True)
class Demands:
    """What an image is held against, apart from the card itself."""

    keys: Sequence[PublicKey]  # trusted to sign
    versions: HostVersions = field(default_factory=HostVersions)
    force: bool = False  # the compatibility range may be missed
    allow_downgrade: bool = False  # the version may be lower; the security counter may not


@dataclass(frozen=True, slots=True)
class Checked:
    """One question that an image has passed."""

    name: str
    found: str


def check(package: Package, facts: Facts, demands: Demands) -> list[Checked]:
    """Every question, in the order in which they are asked.

    Raises Oversize, HashMismatch, WrongSignature, WrongBoard, LowerCounter (firmware_bridge.image);
    Incompatible; Older.
    """
    image = package.image
    check_image(
        image,
        keys=demands.keys,
        board=facts.board or None,
        counter=facts.counter,
        slot_size=facts.slot_bytes,
    )
    size = f"{len(package.data)} bytes"
    slot = f" of {facts.slot_bytes}" if facts.slot_bytes else "; the card tells no limit"
    counter = "the card tells none" if facts.counter is None else f"the card asks {facts.counter}"
    return [
        Checked("size", size + slot),
        Checked("hash", image.hash.hex()),
        Checked("signature", "by a key that is trusted here"),
        Checked("board", facts.board or "the card tells none"),
        Checked("security counter", f"{image.security_counter}; {counter}"),
        Checked("compatibility", _compatible(image, demands)),
        Checked("version", _version(image, facts, demands)),
    ]


def _compatible(image: Image, demands: Demands) -> str:
    ranges = image.compatibility
    if ranges is None:
        return "the image names no range"
    asked = (
        ("driver", ranges.driver, demands.versions.driver),
        ("program ABI", ranges.abi, demands.versions.abi),
    )
    missed = [
        f"{name} {allowed}, not {has}" for name, allowed, has in asked if _misses(allowed, has)
    ]
    if missed and not demands.force:
        raise Incompatible(
            f"{image.version} works with {' and '.join(missed)}",
            "update this machine's software first, or go on all the same with --force",
        )
    if missed:
        return f"works with {' and '.join(missed)}: forced"
    return "; ".join(
        f"{name} {allowed}: " + ("not known here" if has is None else f"{has}")
        for name, allowed, has in asked
    )


def _misses(allowed: Range, has: str | int | None) -> bool:
    return has is not None and not allowed.holds(has)


def _version(image: Image, facts: Facts, demands: Demands) -> str:
    running = facts.slots.running
    if running is None:
        return f"{image.version}; nothing runs"
    lower = image.version < Version.read(running.version)
    if lower and not demands.allow_downgrade:
        raise Older(
            f"the card runs {running.version}, and the image is {image.version}",
            "if an earlier version is meant, say so with --allow-downgrade",
        )
    return f"{image.version}; {running.version} runs" + (": a downgrade" if lower else "")
