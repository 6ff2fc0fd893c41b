# SPDX-License-Identifier: Apache-2.0
"""What a new version of a model costs a node that has the old one, in percent of its bytes.

    .venv/bin/python -m bench.delta [--hidden 2240] [--layers 3] [--level 19] [--json]

A perceptron is trained on scikit-learn's digits, made int8 by `tepi model quantize`'s own code, and
trained on in the ways that models are: every weight at several learning rates (Adam, so that each
step moves each weight by about the rate), the last layers only, or not at all. *blocks* is what the
block index leaves to fetch, *zstd* what `zstd --patch-from` at the same level would send, *delta*
what `tepi model delta` makes; *program* is the delta of the compiled card program that goes with
the model. *encode* is the delta's time at the publisher, *apply* its speed at the node, SHA-256
and all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import zstandard
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from registry.delta.apply import apply_delta
from registry.delta.block_index import common, index_file, missing, parse
from registry.delta.encode import encode_delta

Floats = NDArray[np.float32]
Weights = list[tuple[Floats, Floats]]  # of each layer: (inputs, outputs) and (outputs,)

PIXELS, CLASSES = 64, 10
_BATCH = 128
_INDEXED = 64 << 20  # bytes
_SAMPLES = 60  # to calibrate with


class _Quiet:
    """Nobody watches the quantizer."""

    def begin(self, what: str, total: int) -> None:
        """See Progress."""

    def step(self) -> None:
        """See Progress."""


def digits() -> tuple[Floats, NDArray[np.int64]]:
    """Images from 0 to 1 and what they show."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), np.asarray(labels, np.int64)


def fresh(sizes: Sequence[int], seed: int = 0) -> Weights:
    """An untrained perceptron (He's initialization)."""
    rng = np.random.default_rng(seed)
    return [
        (
            rng.normal(0, np.sqrt(2 / rows), (rows, columns)).astype(np.float32),
            np.zeros(columns, np.float32),
        )
        for rows, columns in itertools.pairwise(sizes)
    ]


def train(
    weights: Weights, rate: float, epochs: int, layers: Sequence[int] = (), seed: int = 0
) -> Weights:
    """The weights after so many epochs of Adam (Kingma and Ba, 2015); `layers`: only these move."""
    images, labels = digits()
    moving = [w for n in layers or range(len(weights)) for w in (2 * n, 2 * n + 1)]
    values = [array.copy() for layer in weights for array in layer]
    first = {at: np.zeros_like(values[at]) for at in moving}
    second = {at: np.zeros_like(values[at]) for at in moving}
    rng = np.random.default_rng(seed)
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            gradients = _gradients(values, images[batch], labels[batch])
            step += 1
            for at in moving:
                first[at] += 0.1 * (gradients[at] - first[at])
                second[at] += 0.001 * (gradients[at] ** 2 - second[at])
                spread = np.sqrt(second[at] / np.float32(1 - 0.999**step)) + np.float32(1e-8)
                values[at] -= np.float32(rate / (1 - 0.9**step)) * first[at] / spread
    return list(zip(values[::2], values[1::2], strict=True))


def _gradients(values: list[Floats], x: Floats, labels: NDArray[np.int64]) -> list[Floats]:
    """Of the mean cross entropy, by all weights and biases in turn."""
    last = len(values) // 2 - 1
    seen = [x]
    for layer in range(last + 1):
        y = seen[-1] @ values[2 * layer] + values[2 * layer + 1]
        seen.append(y if layer == last else np.maximum(y, 0))
    odds = np.exp(seen[-1] - seen[-1].max(axis=1, keepdims=True))
    slope = odds / odds.sum(axis=1, keepdims=True)
    slope[np.arange(len(labels)), labels] -= 1
    slope = slope / np.float32(len(labels))
    found: list[Floats] = []
    for layer in range(last, -1, -1):
        found = [seen[layer].T @ slope, slope.sum(axis=0), *found]
        slope = (slope @ values[2 * layer].T) * (seen[layer] > 0)
    return found


def float_model(weights: Weights, producer: str = "bench") -> onnx.ModelProto:
    """The perceptron as ONNX, float32."""
    nodes, initializers, name = [], [], "pixels"
    for n, (matrix, bias) in enumerate(weights):
        initializers.append(numpy_helper.from_array(matrix, f"layer{n}.weight"))
        initializers.append(numpy_helper.from_array(bias, f"layer{n}.bias"))
        inputs = [name, f"layer{n}.weight", f"layer{n}.bias"]
        last = n == len(weights) - 1
        name = "scores" if last else f"layer{n}.sums"
        nodes.append(helper.make_node("Gemm", inputs, [name], name=f"layer{n}"))
        if not last:
            nodes.append(helper.make_node("Relu", [name], [f"layer{n}.out"], name=f"relu{n}"))
            name = f"layer{n}.out"
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, PIXELS])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, CLASSES])],
        initializers,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, producer_name=producer, opset_imports=opset, ir_version=9)


def int8_model(weights: Weights, path: Path) -> Path:
    """The perceptron at `path`, made int8 as `tepi model quantize` does."""
    from device.quantize.quantize import quantize

    with tempfile.TemporaryDirectory() as folder:
        source, data = Path(folder) / "float32.onnx", Path(folder) / "samples.npz"
        onnx.save(float_model(weights), source)
        np.savez(data, pixels=digits()[0][:_SAMPLES])
        quantize(source, data, path, "minmax", _Quiet())
    return path


def with_other_header(model: Path, path: Path) -> Path:
    """The same model with a longer text in front of its weights: every offset moves."""
    proto = onnx.load(model)
    proto.producer_name = "the same exporter, a release later"
    proto.doc_string = "Trained on digits. " * 20
    onnx.save(proto, path)
    return path


def program(model: Path, path: Path) -> Path:
    """The model compiled for the card, as a package holds it."""
    from device.compiled import Source, write_compiled
    from device.compiler import compile_model

    body = model.read_bytes()
    write_compiled(path, compile_model(body), Source.of(body))
    return path


def block_share(new: Path, old: Path) -> float:
    """The share of the new file's bytes that its block index leaves to fetch."""
    after, before = parse(index_file(new)), parse(index_file(old))
    gaps = missing(after, common(after, before))
    return sum(last - first for first, last in gaps) / after.size


def patch_share(new: Path, old: Path, level: int) -> float:
    """The share that zstd sends with the old file as its dictionary."""
    body, prefix = new.read_bytes(), old.read_bytes()
    rules = zstandard.ZstdCompressionParameters.from_level(level, window_log=27, enable_ldm=True)
    raw = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return len(zstandard.ZstdCompressor(dict_data=raw, compression_params=rules).compress(body)) / (
        len(body)
    )


def delta_row(new: Path, old: Path, level: int) -> dict[str, float]:
    """The delta's share, seconds to make it, and MB/s to apply it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "delta"
        begin = time.perf_counter()
        info = encode_delta(old, new, out, level)
        made = time.perf_counter()
        body = bytearray()
        apply_delta(out, old, body.extend)
        end = time.perf_counter()
    assert body == new.read_bytes()
    return {"delta": info.ratio, "encode": made - begin, "apply": len(body) / (end - made) / 1e6}


def changes(base: Weights) -> dict[str, Callable[[], Weights]]:
    """Ways to go on from a trained network, each three epochs long."""
    last = len(base) - 1
    found: dict[str, Callable[[], Weights]] = {
        "head only": lambda: train(base, 1e-3, 3, [last], seed=5),
        "last two layers": lambda: train(base, 1e-4, 3, [last - 1, last], seed=5),
    }
    for rate in (1e-5, 1e-4, 1e-3):
        found[f"full fine-tune lr {rate:.0e}"] = partial(train, base, rate, 3, seed=5)
    return found


def measure(sizes: Sequence[int], level: int, folder: Path) -> list[dict[str, object]]:
    """A row for each change."""
    base = train(fresh(sizes), 1e-3, 5)
    old = int8_model(base, folder / "old.onnx")
    old_program = program(old, folder / "old.tepi")
    rows = []
    new, new_program = folder / "new.onnx", folder / "new.tepi"
    for name, change in {"header moved": None, **changes(base)}.items():
        if change is None:
            with_other_header(old, new)
        else:
            int8_model(change(), new)
        program(new, new_program)
        row: dict[str, object] = {"change": name, "bytes": new.stat().st_size}
        row |= {"blocks": block_share(new, old), "zstd": patch_share(new, old, level)}
        row |= delta_row(new, old, level)
        row["program"] = delta_row(new_program, old_program, level)["delta"]
        rows.append(row)
    return rows


def index_speed(folder: Path) -> float:
    """MB/s of making a block index: cutting, SHA-256 of the blocks, SHA-256 of the whole."""
    path = folder / "noise"
    path.write_bytes(np.random.default_rng(0).bytes(_INDEXED))
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        index_file(path)
        times.append(time.perf_counter() - begin)
    return _INDEXED / min(times) / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=2240, help="neurons of a hidden layer")
    parser.add_argument("--layers", type=int, default=3, help="hidden layers")
    parser.add_argument("--level", type=int, default=19, help="of zstd")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    sizes = [PIXELS, *[options.hidden] * options.layers, CLASSES]
    with tempfile.TemporaryDirectory() as folder:
        speed = index_speed(Path(folder))
        rows = measure(sizes, options.level, Path(folder))
    if options.json:
        print(json.dumps({"rows": rows, "index_mb_s": speed}))
        return
    table = Table(
        "change", "bytes", "blocks %", "zstd %", "delta %", "program %", "encode s", "MB/s"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        shares = [f"{100 * float(str(row[k])):.2f}" for k in ("blocks", "zstd", "delta", "program")]
        speeds = [f"{float(str(row['encode'])):.1f}", f"{float(str(row['apply'])):.0f}"]
        table.add_row(str(row["change"]), f"{row['bytes']:,}", *shares, *speeds)
    console = Console(width=110)
    console.print(table)
    console.print(f"block indexes are made at {speed:.0f} MB/s")


if __name__ == "__main__":
    main()
