# SPDX-License-Identifier: Apache-2.0
"""CNCF ModelPack (model-spec v1: spec.md, config.md, annotations.md) as this software writes it and
takes it. The one module that knows the format; it is before version 1.0 and may change.

A package is an OCI index with one manifest for each variant: `card`, with a program compiled for
one version of the card's ABI, and `cpu`, for a node whose card takes no such program or that has
none. Layers are raw files, each with the path it has in the model's folder. Nothing is ever
unarchived: a layer that would have to be is refused by its media type, before it is fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from registry.digest import check_digest
from registry.errors import BadDigest
from registry.oci import MANIFEST, Descriptor, Index, Manifest
from registry.package.errors import NotAPackage, NoVariant, PackedLayer, UnsafePath

ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DATASET = "application/vnd.cncf.model.dataset.v1.raw"
DOC = "application/vnd.cncf.model.doc.v1.raw"
RAW = frozenset({WEIGHT, WEIGHT_CONFIG, DATASET, DOC})

FILEPATH = "org.cncf.model.filepath"
ROLE = "dev.tepi.role"
TOLERANCE = "dev.tepi.tolerance"
BLOCKS = "dev.tepi.blocks"
VARIANT = "dev.tepi.variant"
ABI = "dev.tepi.abi"
SOURCE = "dev.tepi.source"
CALIBRATION = "dev.tepi.calibration"
TOOL = "dev.tepi.tool."
NO_CARD = "dev.tepi.no-card"
CREATED = "org.opencontainers.image.created"
TITLE = "org.opencontainers.image.title"
VERSION = "org.opencontainers.image.version"
CARD_PLATFORM = {"architecture": "any", "os": "linux"}

CONFIG_LIMIT = 1 << 20  # bytes
FILES_LIMIT = 1000
_PATH_LIMIT, _NAME_LIMIT, _DEPTH_LIMIT = 1024, 200, 8
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ARCHIVE = re.compile(r"(\.|\+|/|-|^)(tar|t?gz|gzip|zip|zstd|bzip2|xz|squashfs)(\.|\+|-|$)")
_REPACK = "pack it anew with `tepi model pack`, which stores plain files"


class Role(StrEnum):
    """What a layer is for. Roles that are not known here are other people's."""

    MODEL = "model"
    PROGRAM = "program"
    LABELS = "labels"
    CONFIG = "config"
    GOLDEN = "golden"
    CARD = "card"  # the model card, a text for people
    PREPROCESSING = "preprocessing"


MEDIA_TYPES = {
    Role.MODEL: WEIGHT,
    Role.PROGRAM: WEIGHT,
    Role.LABELS: WEIGHT_CONFIG,
    Role.CONFIG: WEIGHT_CONFIG,
    Role.PREPROCESSING: WEIGHT_CONFIG,
    Role.GOLDEN: DATASET,
    Role.CARD: DOC,
}


class Variant(StrEnum):
    """Which nodes a manifest is for."""

    CARD = "card"
    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class File:
    """One file of a variant. `path` is relative to the model's folder and safe to join to it.

    `tolerance` is the largest difference that a golden answer may show, as a share of the largest
    value expected; `blocks` the digest of the file's block index, empty where there is none.
    """

    path: str
    digest: str
    size: int
    role: str
    tolerance: float | None = None
    blocks: str = ""
    media_type: str = WEIGHT


@dataclass(frozen=True, slots=True)
class About:
    """What the configuration and the annotations say of a model, and where it is from."""

    name: str
    version: str = ""
    description: str = ""
    created: str = ""  # RFC 3339
    architecture: str = ""
    precision: str = ""
    quantization: str = ""
    parameters: str = ""  # "6.7M"
    source: str = ""  # digest of the ONNX file
    calibration: str = ""  # digest of the data it was quantized with
    tools: Mapping[str, str] = field(default_factory=dict)
    no_card: str = ""  # why there is no card variant


def layer(file: File) -> Descriptor:
    """A file's descriptor."""
    notes = {FILEPATH: check_path(file.path), ROLE: file.role}
    if file.tolerance is not None:
        notes[TOLERANCE] = f"{file.tolerance:g}"
    if file.blocks:
        notes[BLOCKS] = check_digest(file.blocks)
    return Descriptor(file.media_type, file.digest, file.size, notes)


def config_json(about: About, files: Sequence[File]) -> bytes:
    """The configuration blob (config.md, and schema/config-schema.json, which allows no other
    properties); without what is not known."""
    check_model_name(about.name)
    described = {
        "createdAt": about.created,
        "name": about.name,
        "version": about.version,
        "description": about.description,
    }
    technical = {
        "architecture": about.architecture,
        "format": "onnx",
        "paramSize": about.parameters,
        "precision": about.precision,
        "quantization": about.quantization,
    }
    found = {
        "descriptor": {k: v for k, v in described.items() if v},
        "config": {k: v for k, v in technical.items() if v},
        "modelfs": {"type": "layers", "diffIds": [file.digest for file in files]},
    }
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()


def manifest_of(
    about: About, files: Sequence[File], config: Descriptor, variant: Variant, abi: int | None
) -> Manifest:
    """One variant's manifest; `config` is the descriptor of config_json(about, files)."""
    notes = {VARIANT: str(variant), **_lineage(about)}
    if abi is not None:
        notes[ABI] = str(abi)
    return Manifest(config, tuple(layer(file) for file in files), ARTIFACT, notes)


def index_of(about: About, variants: Sequence[tuple[Descriptor, Variant, int | None]]) -> Index:
    """The package: an entry for each manifest. An entry for nodes without a card has no platform,
    so that tools which look for their own machine's find it. Entries have no artifactType, and
    annotations no text of people: older tools encode both otherwise, and the digest with them."""
    entries = []
    for found, variant, abi in variants:
        notes = {VARIANT: str(variant)} | ({} if abi is None else {ABI: str(abi)})
        platform = CARD_PLATFORM if variant is Variant.CARD else {}
        entries.append(
            Descriptor(MANIFEST, found.digest, found.size, notes, platform=dict(platform))
        )
    return Index(tuple(entries), annotations=_lineage(replace(about, no_card="")))


def _lineage(about: About) -> dict[str, str]:
    notes = {
        TITLE: about.name,
        VERSION: about.version,
        CREATED: about.created,
        SOURCE: about.source,
        CALIBRATION: about.calibration,
        NO_CARD: about.no_card,
        **{TOOL + name: version for name, version in about.tools.items()},
    }
    return {key: value for key, value in notes.items() if value}


def about_of(manifest: Manifest, config: bytes) -> About:
    """What a variant says of itself; `config` is its configuration blob. Raises NotAPackage."""
    found = _object(_json(config), "the configuration")
    told = _object(found.get("descriptor"), "the configuration's descriptor")
    technical = _object(found.get("config"), "the configuration's config")
    fs = _object(found.get("modelfs"), "the configuration's modelfs")
    layers = [entry.digest for entry in manifest.layers]
    if fs.get("type") != "layers" or fs.get("diffIds") != layers:
        raise NotAPackage("the configuration names other layers than the manifest", _REPACK)
    notes = manifest.annotations
    return About(
        check_model_name(_text(told, "name") or notes.get(TITLE, "")),
        _text(told, "version"),
        _text(told, "description"),
        _text(told, "createdAt"),
        _text(technical, "architecture"),
        _text(technical, "precision"),
        _text(technical, "quantization"),
        _text(technical, "paramSize"),
        notes.get(SOURCE, ""),
        notes.get(CALIBRATION, ""),
        {k.removeprefix(TOOL): v for k, v in sorted(notes.items()) if k.startswith(TOOL)},
        notes.get(NO_CARD, ""),
    )


def variant_of(entry: Descriptor | Manifest) -> tuple[str, int | None]:
    """The variant and the ABI that an entry or a manifest names; cpu where it names none."""
    abi = entry.annotations.get(ABI, "")
    number = int(abi) if abi.isascii() and abi.isdecimal() and len(abi) < 6 else None
    return entry.annotations.get(VARIANT, Variant.CPU), number


def choose(index: Index, abi: int | None) -> Descriptor:
    """The variant for a node whose card takes programs of `abi` (None: it has no card): the one
    compiled for that ABI, else the one for nodes without. Raises NoVariant."""
    entries = [e for e in index.manifests if e.media_type == MANIFEST]
    wanted = [(str(Variant.CARD), abi)] if abi is not None else []
    for entry in entries:
        if variant_of(entry) in wanted:
            return entry
    for entry in entries:
        if variant_of(entry)[0] == Variant.CPU:
            return entry
    there = ", ".join(
        f"{v}{'' if a is None else f' (ABI {a})'}" for v, a in map(variant_of, entries)
    )
    raise NoVariant(
        f"the package has no variant for ABI {abi} and none for nodes without a card; "
        f"it has: {there or 'none'}",
        "pack it with --variant card,cpu",
    )


def files_of(manifest: Manifest) -> list[File]:
    """The files of a variant, checked so that they may be fetched and put into a folder.

    Raises NotAPackage, PackedLayer for what would have to be expanded, and UnsafePath.
    """
    kind = manifest.artifact_type or manifest.config.media_type
    if kind not in (ARTIFACT, CONFIG) or manifest.config.media_type != CONFIG:
        raise NotAPackage(
            f"this is no model: its type is {kind!r}, not {ARTIFACT}",
            "name a package that `tepi model push` published",
        )
    if manifest.config.size > CONFIG_LIMIT:
        raise NotAPackage(f"the configuration has {manifest.config.size} bytes, over a MiB")
    if not 0 < len(manifest.layers) <= FILES_LIMIT:
        raise NotAPackage(f"{len(manifest.layers)} files are not 1 to {FILES_LIMIT}")
    files = [_file(entry) for entry in manifest.layers]
    _check_apart([file.path for file in files])
    return files


def _file(entry: Descriptor) -> File:
    path = entry.annotations.get(FILEPATH, "")
    if entry.media_type not in RAW:
        packed = _ARCHIVE.search(entry.media_type)
        what = "an archive, and none is ever unpacked" if packed else "of a type unknown here"
        raise PackedLayer(f"layer {path[:80]!r} is {what}: {entry.media_type[:120]!r}", _REPACK)
    notes = entry.annotations
    try:
        blocks = check_digest(notes[BLOCKS]) if BLOCKS in notes else ""
    except BadDigest as error:
        raise NotAPackage(f"layer {path[:80]!r}: {BLOCKS}: {error}") from None
    return File(
        check_path(path),
        entry.digest,
        entry.size,
        notes.get(ROLE, ""),
        _tolerance(notes[TOLERANCE], path) if TOLERANCE in notes else None,
        blocks,
        entry.media_type,
    )


def _tolerance(text: str, path: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise NotAPackage(f"layer {path[:80]!r}: tolerance {text[:40]!r} is no share from 0 to 1")
    return value


def check_path(path: str) -> str:
    """`path`, if it is a plain relative path that stays in its folder; raises UnsafePath."""
    parts = path.split("/")
    odd = any(ord(c) < 32 or ord(c) == 127 or c in '\\:*?"<>|' for c in path)
    hidden = any(part.startswith(".") or part.endswith((" ", ".")) for part in parts)
    if not path or odd or hidden or "" in parts or any(0xD800 <= ord(c) < 0xE000 for c in path):
        raise UnsafePath(
            f"filepath {path[:80]!r} is no plain path inside a model's folder", _REPACK
        )
    long = any(len(part.encode()) > _NAME_LIMIT for part in parts)
    if long or len(path.encode()) > _PATH_LIMIT or len(parts) > _DEPTH_LIMIT:
        raise UnsafePath(f"filepath {path[:80]!r}… is too long or too deep", _REPACK)
    return path


def _check_apart(paths: list[str]) -> None:
    """Two files may not be one on a file system that does not tell capitals, and a file may not be
    another's folder."""
    seen = {path.casefold() for path in paths}
    folders = {
        "/".join(p.casefold().split("/")[:n])
        for p in paths
        for n in range(1, _DEPTH_LIMIT)
        if n < len(p.split("/"))
    }
    if len(seen) != len(paths) or seen & folders:
        twice = sorted(p for p in paths if [q.casefold() for q in paths].count(p.casefold()) > 1)
        clash = (twice or sorted(p for p in paths if p.casefold() in folders))[0]
        raise UnsafePath(f"filepath {clash[:80]!r} is given to two layers or is a folder", _REPACK)


def check_model_name(name: str) -> str:
    """`name`, if it may be a model's folder; raises NotAPackage."""
    if not _NAME.fullmatch(name):
        raise NotAPackage(
            f"{name[:80]!r} cannot be a model's name",
            "use at most 128 letters, digits, '_', '.' or '-'; name it with --name",
        )
    return name


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotAPackage(f"the configuration is not JSON: {error}") from None


def _object(found: object, what: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise NotAPackage(f"{what} is not an object")
    return found


def _text(found: dict[str, Any], key: str) -> str:
    value = found.get(key, "")
    if not isinstance(value, str) or len(value) > 4096:
        raise NotAPackage(f"the configuration's {key} is not a text")
    return value
