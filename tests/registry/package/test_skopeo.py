# SPDX-License-Identifier: Apache-2.0
"""Packages in the hands of another tool. skopeo 1.9 copies them, byte for byte; `inspect` without
--raw wants an image's configuration and refuses every artifact."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from registry.package.layout import Layout
from registry.package.package import open_package
from registry.package.packing import Options
from registry.package.verifying import verify

from .models import DIGITS, packed

pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")


def skopeo(*words: str) -> bytes:
    done = subprocess.run(["skopeo", *words], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_skopeo_reads_the_index_and_each_tag(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout", create=True)
    packed(DIGITS, layout, Options("one"))
    packed(DIGITS, layout, Options("two", created="2026-01-31T12:00:00Z"))
    for tag in ("one", "two"):
        raw = skopeo("inspect", "--raw", f"oci:{layout.path}:{tag}")
        assert raw == layout.read(layout.resolve(tag).digest, 1 << 20)
        assert [e["annotations"]["dev.tepi.variant"] for e in json.loads(raw)["manifests"]] == [
            "card",
            "cpu",
        ]


def test_a_package_keeps_its_digest_through_skopeo(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout", create=True)
    made = packed(DIGITS, layout, Options("one"))
    source = f"oci:{layout.path}:one"
    skopeo("copy", "--all", source, f"oci:{tmp_path}/copy:one")
    copy = Layout(tmp_path / "copy")
    assert copy.resolve("one").digest == made.digest
    assert not any(check.wrong for check in verify(copy, "one"))
    # A copy of what fits skopeo's own machine is the variant for nodes without a card.
    skopeo("copy", source, f"oci:{tmp_path}/single:one")
    (single,) = open_package(Layout(tmp_path / "single"), "one").variants
    assert single.variant == "cpu"
    assert single.descriptor.digest == made.variants["cpu"]
