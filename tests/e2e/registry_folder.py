# SPDX-License-Identifier: Apache-2.0
"""A registry as its keeper makes it with `tepi`, served by a real process that can be stopped."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from registry.oci import (
    INDEX,
    MANIFEST,
    MANIFEST_LIMIT,
    Descriptor,
    Index,
    parse,
    parse_manifest,
)
from registry.package.layout import Layout
from tests.e2e.server_process import TEPI

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "model_repository" / "digits"
RING = "stable"
_SECONDS = 120.0


def tepi(*words: str | Path, code: int = 0) -> str:
    """Run a command to its end; what it printed, on standard error too where it failed."""
    done = subprocess.run(
        [str(TEPI), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + (done.stderr if code else "")


@contextmanager
def following(settings: Path) -> Iterator[str]:
    """A node that serves nodes below; the URL of its tier."""
    command = [str(TEPI), "sync", "run", str(settings), "--card", "none", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["tier"]
        finally:
            process.terminate()
    assert process.returncode == 0


def numbered(
    model: Path, release: int, extra: onnx.TensorProto | None = None, doc: str = ""
) -> None:
    """Have the digits model say which release it is: its probabilities add up to this."""
    found = onnx.load(model)
    found.producer_name += doc
    if extra is not None:
        found.graph.initializer.append(extra)
    last = found.graph.node[-1]
    assert last.op_type == "DequantizeLinear"
    scale = next(i for i in found.graph.initializer if i.name == last.input[1])
    value = onnx.numpy_helper.to_array(scale) * np.float32(release)
    found.graph.initializer.append(onnx.numpy_helper.from_array(value, "release_scale"))
    last.input[1] = "release_scale"
    onnx.save(found, model)


class Registry:
    """A folder with packages and trust."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "registry"
        self.keys = folder / "keys"
        self.layout = folder / "layout"
        self.address = ""
        self._work = folder
        self._port = 0
        tepi("registry", "init", self.folder, "--keys", self.keys)

    @property
    def root(self) -> Path:
        """What a node is given by hand."""
        return self.folder / "tuf" / "metadata" / "1.root.json"

    def pack(
        self,
        tag: str,
        release: int = 1,
        extra: onnx.TensorProto | None = None,
        doc: str = "",
    ) -> None:
        """A package of the digits model whose probabilities add up to `release`; `doc` is a text in
        its header, `extra` a tensor that no node uses."""
        folder = self._work / f"model-{tag}" / "digits"
        shutil.copytree(DIGITS, folder)
        numbered(folder / "1" / "model.onnx", release, extra, doc)
        tepi("model", "pack", folder, "-o", self.layout, "--tag", tag)

    def pack_wrong(self, tag: str) -> None:
        """A package whose golden vectors are those of another model."""
        self.pack(tag, 3)
        other = Layout(self.layout)
        index = parse(other.read(other.tags()[tag].digest, MANIFEST_LIMIT))
        golden = self._golden("1.0")
        assert isinstance(index, Index)
        entries = []
        for entry in index.manifests:
            manifest = parse_manifest(other.read(entry.digest, MANIFEST_LIMIT))
            layers = tuple(
                replace(golden, annotations=layer.annotations)
                if layer.annotations["dev.tepi.role"] == "golden"
                else layer
                for layer in manifest.layers
            )
            data = replace(manifest, layers=layers).encode()
            found = other.add(data, MANIFEST, entry.annotations)
            entries.append(replace(entry, digest=found.digest, size=found.size))
        data = replace(index, manifests=tuple(entries)).encode()
        other.tag(tag, other.add(data, INDEX, {}))

    def _golden(self, tag: str) -> Descriptor:
        layout = Layout(self.layout)
        index = parse(layout.read(layout.tags()[tag].digest, MANIFEST_LIMIT))
        assert isinstance(index, Index)
        manifest = parse_manifest(layout.read(index.manifests[0].digest, MANIFEST_LIMIT))
        return next(
            each for each in manifest.layers if each.annotations["dev.tepi.role"] == "golden"
        )

    def publish(self, tag: str, release: int = 1) -> None:
        """Pack it, push it, vouch for it, and want it on every node."""
        self.pack(tag, release)
        self.vouch(tag)
        self.desire(tag)

    def vouch(self, tag: str) -> None:
        """Push the package and vouch for it."""
        tepi("model", "push", f"{self.layout}:{tag}", f"{self.address}/vision/digits:{tag}")
        tepi("registry", "sign", self.folder, f"vision/digits:{tag}", "--keys", self.keys)

    def desire(self, tag: str) -> None:
        """Want it on every node."""
        tepi("registry", "desire", self.folder, RING, f"vision/digits:{tag}")

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The origin, on the same port each time."""
        command = [
            "registry",
            "serve",
            self.folder,
            "--listen",
            f"127.0.0.1:{self._port}",
            "--json",
        ]
        with subprocess.Popen(
            [str(TEPI), *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                said = json.loads(process.stdout.readline())
                self.address = said["address"].partition("://")[2]
                self._port = int(self.address.rpartition(":")[2])
                yield
            finally:
                process.terminate()
        assert process.returncode == 0

    def settings(self, node: Path, **more: object) -> Path:
        """A node's settings file, following this registry."""
        node.mkdir(parents=True, exist_ok=True)
        lines = [f'state = "{node / "state"}"', f'root = "{self.root}"', f'ring = "{RING}"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in more.items()]
        lines += ["[[origins]]", f'url = "http://{self.address}"', 'name = "origin"']
        path = node / "sync.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path
