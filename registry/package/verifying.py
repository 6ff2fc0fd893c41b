# SPDX-License-Identifier: Apache-2.0
"""Whether a package is what it says: every digest, every rule of the codec, every golden vector on
onnxruntime and on the software card."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device.binding import Card
from device.binding.abi import ABI_VERSION
from device.errors import CardError, InputError, ModelError
from device.session import Session
from registry.errors import RegistryError
from registry.package.errors import PackageError
from registry.package.golden import Golden, check_golden, read_golden
from registry.package.layout import Layout
from registry.package.modelpack import Role, Variant
from registry.package.package import Packed, open_package
from registry.package.packing import CARD_MEMORY
from registry.package.unpacking import place

Tell = Callable[[str, int], None]


def _nothing(_step: str, _done: int) -> None:
    """Nobody watches the progress."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `wrong` is empty where it is in order, `skipped` where it was
    looked at indeed."""

    what: str
    wrong: str = ""
    skipped: str = ""


def verify(layout: Layout, tag: str = "", tell: Tell = _nothing) -> list[Check]:
    """Every check of a package, the failed ones too. Raises NotFound where there is none."""
    layout.resolve(tag)
    try:
        package = open_package(layout, tag)
    except RegistryError as error:
        return [Check("manifests", str(error))]
    checks = [Check("manifests")]
    checks += _digests(layout, [file.digest for file in package.files.values()], tag, tell)
    if any(check.wrong for check in checks):
        return checks  # nothing that is damaged is run
    for packed in package.variants:
        tell(f"golden vectors of {packed.variant}", 0)
        checks += _runs(layout, packed)
    return checks


def _digests(layout: Layout, digests: list[str], tag: str, tell: Tell) -> list[Check]:
    """The blobs of the package, and what the layout holds for it beside them."""
    wrong, top = [], layout.resolve(tag)
    wanted = layout.reachable([top])
    for _, referrer in layout.referrers(top.digest):
        wanted |= {entry.digest: entry for entry in referrer.blobs}
    assert wanted.keys() >= set(digests)
    for entry in wanted.values():
        try:
            layout.check_blob(entry, lambda count: tell("digests", count))
        except RegistryError as error:
            wrong.append(str(error))
    return [Check(f"{len(wanted)} digests", "; ".join(wrong))]


def _runs(layout: Layout, packed: Packed) -> list[Check]:
    """The golden vectors of a variant, on what it is for."""
    what = f"{packed.variant} on {'the software card' if packed.abi else 'onnxruntime'}"
    file = packed.file(Role.GOLDEN)
    try:
        golden = read_golden(layout.blob_path(file.digest)) if file else None
        with tempfile.TemporaryDirectory(prefix="tepi-verify-") as folder:
            wrong, skipped = _run(layout, packed, golden, Path(folder))
    except (PackageError, ModelError, InputError, CardError, OSError) as error:
        wrong, skipped = str(error), ""
    return [Check(what, wrong, skipped)]


def _run(layout: Layout, packed: Packed, golden: Golden | None, folder: Path) -> tuple[str, str]:
    place(packed.files, layout.blob_path, folder)
    model = _path(packed, Role.MODEL, folder)
    if model is None:
        return "it has no file of the role model", ""
    if packed.variant != Variant.CARD:
        with Session(model, card="none") as session:
            return _judged(golden, session)
    if packed.abi != ABI_VERSION:
        return "", f"it is for a card of ABI {packed.abi}; this software has {ABI_VERSION}"
    program = _path(packed, Role.PROGRAM, folder)
    if program is None:
        return "it has no file of the role program", ""
    with (
        Card.open(memory=CARD_MEMORY) as card,
        Session(model, card, compiled=program) as session,
    ):
        return (session.not_used, "") if session.not_used else _judged(golden, session)


def _judged(golden: Golden | None, session: Session) -> tuple[str, str]:
    if golden is None:
        return "", "it has no golden vectors; it was loaded only"
    return "; ".join(check_golden(golden, session.run)), ""


def _path(packed: Packed, role: Role, folder: Path) -> Path | None:
    file = packed.file(role)
    return folder / file.path if file else None
