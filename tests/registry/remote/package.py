# SPDX-License-Identifier: Apache-2.0
"""A package in a layout as `tepi model pack` makes it, with random bytes for a model: two variants
that share layers, a block index and a delta that refer to it."""

from __future__ import annotations

import random
from pathlib import Path

from registry import oci
from registry.package import modelpack
from registry.package.layout import Layout
from registry.package.modelpack import Role, Variant

BLOCK_INDEX = "application/vnd.tepi.block-index.v1"
DELTA = "application/vnd.tepi.delta.v1"
MODEL_BYTES = 300_000


def make_package(path: Path, tag: str = "1.0", seed: int = 1) -> Layout:
    """The layout: model, program, labels and two configurations, two referrers' blobs and `{}`."""
    chance = random.Random(seed)
    layout = Layout(path, create=True)
    model = _file(layout, "1/model.onnx", chance.randbytes(MODEL_BYTES), Role.MODEL)
    program = _file(layout, "1/model.tepi", chance.randbytes(50_000), Role.PROGRAM)
    labels = _file(layout, "labels.txt", b"a\nb\n", Role.LABELS)
    about = modelpack.About(f"random{seed}", "1")
    entries = []
    for variant, abi, files in (
        (Variant.CARD, 1, (model, program, labels)),
        (Variant.CPU, None, (model, labels)),
    ):
        config = layout.add(modelpack.config_json(about, files), modelpack.CONFIG)
        manifest = modelpack.manifest_of(about, files, config, variant, abi)
        entries.append((layout.add_document(manifest), variant, abi))
    index = layout.add_document(modelpack.index_of(about, entries))
    layout.tag(tag, index)
    empty = layout.add(oci.EMPTY_JSON, oci.EMPTY)
    for kind, subject in ((BLOCK_INDEX, entries[1][0]), (DELTA, index)):
        blob = layout.add(chance.randbytes(2_000), kind)
        layout.hold(layout.add_document(oci.Manifest(empty, (blob,), kind, subject=subject)))
    return layout


def _file(layout: Layout, path: str, data: bytes, role: Role) -> modelpack.File:
    media_type = modelpack.MEDIA_TYPES[role]
    blob = layout.add(data, media_type)
    return modelpack.File(path, blob.digest, blob.size, role, media_type=media_type)
