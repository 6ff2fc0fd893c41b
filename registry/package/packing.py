# SPDX-License-Identifier: Apache-2.0
"""A model's files to a package in a layout: compiled, tried, described. The same files give the
same digest, with the same versions of the tools that compile and answer."""

from __future__ import annotations

import importlib.metadata
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from device.binding import Card
from device.binding.abi import ABI_VERSION
from device.compiled import PROGRAM_FILE, NotStorable, Source, write_compiled
from device.compiler import CompiledModel, TensorInfo, compile_model
from device.errors import CardError, InputError, ModelError
from device.measure.feeds import Shapes, concrete_shapes, random_feeds
from device.quantize.calibration import read_calibration
from device.session import Session
from device.source import open_lean
from registry.delta import block_index
from registry.digest import digest_of_file
from registry.oci import EMPTY, EMPTY_JSON, Descriptor, Manifest
from registry.package.errors import NotPackable
from registry.package.golden import TOLERANCE, Golden, check_golden, make_golden, write_golden
from registry.package.layout import Layout
from registry.package.model_folder import Gathered
from registry.package.modelpack import (
    CONFIG,
    MEDIA_TYPES,
    About,
    File,
    Role,
    Variant,
    config_json,
    index_of,
    manifest_of,
)

GOLDEN_FILE = "golden.tepi"
INDEXED = 1 << 20  # bytes; larger files get a block index
CARD_MEMORY = 4 << 30
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
Tell = Callable[[str, int], None]


def _nothing(_step: str, _done: int) -> None:
    """Nobody watches the progress."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to pack. `golden` vectors are made up unless `golden_data`, an .npz with an array for
    each input, holds them; `shapes` are sizes that the model leaves open; `created` is RFC 3339."""

    tag: str = "latest"
    variants: tuple[Variant, ...] = (Variant.CARD, Variant.CPU)
    golden: int = 3
    golden_data: Path | None = None
    tolerance: float = TOLERANCE
    shapes: Shapes = field(default_factory=dict)
    calibration: Path | None = None
    created: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """What was packed. `no_card` says why there is no card variant, where there is none."""

    name: str
    tag: str
    digest: str
    variants: Mapping[str, str]  # the digest of each
    golden: int
    no_card: str


def pack(gathered: Gathered, options: Options, layout: Layout, tell: Tell = _nothing) -> Made:
    """Put the model into the layout and let the tag name it.

    Raises NotPackable where the model cannot be run, where its golden vectors fail, or where the
    card variant alone is wanted and there is none. `tell` gets a step's name and bytes done in it.
    """
    if options.created and not _CREATED.fullmatch(options.created):
        raise NotPackable(f"{options.created!r} is no time such as 2026-01-31T12:00:00Z")
    with tempfile.TemporaryDirectory(prefix="tepi-pack-") as folder:
        return _Packing(gathered, options, layout, Path(folder), tell).run()


class _Packing:
    def __init__(
        self, gathered: Gathered, options: Options, layout: Layout, folder: Path, tell: Tell
    ) -> None:
        self._gathered = gathered
        self._options = options
        self._layout = layout
        self._folder = folder
        self._tell = tell
        self._indexes: list[Descriptor] = []

    def run(self) -> Made:
        gathered, options = self._gathered, self._options
        golden = self._golden()
        program, no_card = self._program(golden)
        files = [self._add(gathered.model_path, gathered.model, Role.MODEL)]
        files += [self._add(g.path, g.content, g.role) for g in gathered.others]
        if golden:
            path = self._folder / GOLDEN_FILE
            write_golden(path, golden)
            added = self._add(f"{gathered.version}/{GOLDEN_FILE}", path, Role.GOLDEN)
            files.append(replace(added, tolerance=golden.tolerance))
        about = self._about(files[0].digest, no_card)
        made: list[tuple[Descriptor, Variant, int | None]] = []
        if program:
            path_in = f"{gathered.version}/{PROGRAM_FILE}"
            with_program = [*files, self._add(path_in, program, Role.PROGRAM)]
            made.append(self._variant(about, with_program, Variant.CARD, ABI_VERSION))
        if Variant.CPU in options.variants or not made:
            made.append(self._variant(about, files, Variant.CPU, None))
        package = self._layout.add_document(index_of(about, made))
        if self._indexes:
            self._hold_indexes(package)
        self._layout.tag(options.tag, package)
        digests = {str(variant): entry.digest for entry, variant, _ in made}
        count = len(golden.inputs) if golden else 0
        return Made(gathered.name, options.tag, package.digest, digests, count, no_card)

    def _golden(self) -> Golden | None:
        """Requests with onnxruntime's answers."""
        options, model = self._options, self._gathered.model
        if not options.golden:
            return None
        self._tell("golden vectors", 0)
        try:
            with Session(model, card="none") as host:
                feeds = self._feeds(host.inputs)
                names = [info.name for info in host.outputs]
                return make_golden(feeds, names, host.run, options.tolerance)
        except (InputError, ModelError) as error:
            raise NotPackable(
                f"no golden vectors can be made: {error}",
                "give requests with --golden-data, sizes with --shape, or leave them out with "
                "--golden 0",
            ) from None

    def _feeds(self, inputs: Sequence[TensorInfo]) -> list[dict[str, np.ndarray]]:
        options, name = self._options, self._gathered.name
        if options.golden_data:
            given = read_calibration(options.golden_data, inputs)
            return [given[n] for n in range(min(options.golden, len(given)))]
        shapes = concrete_shapes(inputs, options.shapes, name)
        texts = [info for info in inputs if info.type == "tensor(string)"]
        numbers = [info for info in inputs if info not in texts]
        return [
            random_feeds(numbers, shapes, seed)
            | {info.name: np.full(shapes[info.name], "", object) for info in texts}
            for seed in range(options.golden)
        ]

    def _program(self, golden: Golden | None) -> tuple[Path | None, str]:
        """The compiled program, tried on the software card, or why there is none."""
        if Variant.CARD not in self._options.variants:
            return None, "it was packed without"
        self._tell("compiling", 0)
        why = self._compile()
        if not why and golden:
            self._tell("trying it on the software card", 0)
            why = self._try(golden)
        if why and Variant.CPU not in self._options.variants:
            raise NotPackable(f"there can be no card variant: {why}", "add --variant cpu")
        return (None if why else self._folder / PROGRAM_FILE), why

    def _compile(self) -> str:
        gathered = self._gathered
        if gathered.traits.external:
            return "the model's weights are in files of their own; save it as one file"
        try:
            proto, weights = open_lean(gathered.model, gathered.name)
            compiled = compile_model(proto, name=gathered.name, weights=weights)
            if not compiled.needs_shapes and (reason := _off_card(compiled)):
                return reason
            source = Source.of(gathered.model)
            write_compiled(self._folder / PROGRAM_FILE, compiled, source, _version("tepi"))
        except (NotStorable, ModelError) as error:
            return str(error)
        return ""

    def _try(self, golden: Golden) -> str:
        """What is wrong with the program's answers."""
        program = self._folder / PROGRAM_FILE
        try:
            with (
                Card.open(memory=CARD_MEMORY) as card,
                Session(self._gathered.model, card, compiled=program) as session,
            ):
                if session.not_used:
                    return session.not_used
                wrong = check_golden(golden, session.run)
        except CardError as error:
            return f"the software card fails on it: {error}"
        return f"the card answers otherwise than onnxruntime: {wrong[0]}" if wrong else ""

    def _add(self, path: str, content: Path | bytes, role: Role) -> File:
        kind = MEDIA_TYPES[role]
        step = f"adding {path}"
        found = self._layout.add(content, kind, tell=lambda count: self._tell(step, count))
        file = File(path, found.digest, found.size, role, media_type=kind)
        if found.size <= INDEXED:
            return file
        blob = self._layout.blob_path(found.digest)
        index = block_index.index_file(blob, lambda count: self._tell(f"indexing {path}", count))
        entry = self._layout.add(index, block_index.MEDIA_TYPE, {block_index.OF: found.digest})
        self._indexes.append(entry)
        return replace(file, blocks=entry.digest)

    def _hold_indexes(self, package: Descriptor) -> None:
        """A referrer of the package, without which a registry would drop the indexes."""
        empty = self._layout.add(EMPTY_JSON, EMPTY)
        subject = Descriptor(package.media_type, package.digest, package.size)
        layers = tuple(sorted(self._indexes, key=lambda entry: entry.digest))
        referrer = Manifest(empty, layers, block_index.MEDIA_TYPE, subject=subject)
        self._layout.hold(self._layout.add_document(referrer))

    def _variant(
        self, about: About, files: Sequence[File], variant: Variant, abi: int | None
    ) -> tuple[Descriptor, Variant, int | None]:
        config = self._layout.add(config_json(about, files), CONFIG)
        manifest = manifest_of(about, files, config, variant, abi)
        return self._layout.add_document(manifest), variant, abi

    def _about(self, source: str, no_card: str) -> About:
        gathered, options = self._gathered, self._options
        calibration = digest_of_file(options.calibration) if options.calibration else ""
        return About(
            name=gathered.name,
            version=str(gathered.version),
            description=options.description,
            created=options.created,
            precision=gathered.traits.precision,
            quantization=gathered.traits.quantization,
            parameters=gathered.traits.parameters,
            source=source,
            calibration=calibration,
            tools={name: _version(name) for name in ("tepi", "onnx", "onnxruntime")},
            no_card=no_card,
        )


def _off_card(compiled: CompiledModel) -> str:
    if any(row.where == "card" for row in compiled.placement):
        return ""
    row = compiled.placement[0] if compiled.placement else None
    why = f": {row.op} {row.node!r}: {row.reason}" if row else ""
    return f"no node of the model runs on the card{why}"


def _version(tool: str) -> str:
    try:
        return importlib.metadata.version(tool)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
