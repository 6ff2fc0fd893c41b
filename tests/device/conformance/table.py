# SPDX-License-Identifier: Apache-2.0
"""Writes docs/conformance.md: where ONNX's own tests run, with versions. `make conformance`."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime

from device.binding import Card
from device.onnx_backend import TepiBackend

from .official import KINDS, cases, on_onnxruntime
from .quantized import Comparison, compare, variants, where

PAGE = Path(__file__).resolve().parents[3] / "docs" / "conformance.md"
PLACES = ("card", "both", "onnxruntime")
INTRODUCTION = f"""# Conformance

ONNX's own backend tests through `device.onnx_backend`, an `onnx.backend.base.Backend`. Whatever
onnxruntime passes by itself, a card in front of it has to pass. Written by `make conformance` with
onnx {onnx.__version__} and onnxruntime {onnxruntime.__version__}.
"""
OFFICIAL = """
## As ONNX gives them

Nearly all of these models compute in float32 or on whole numbers, which is onnxruntime's part.
"""
QUANTIZED = """
## Quantized

The node tests of the operators that the card has, with weights, shapes and bounds as constants,
quantized by `onnxruntime.quantization` (QDQ, uint8 and int8 activations, int8 weights) with the
tests' own data for calibration; those of operators on quantized tensors as they are, at opset 25
where they name a newer one. Operators that move data, and those which the quantizer leaves in float
behind a float tensor, have a LeakyRelu in front. Steps are those of the quantized result, against
onnxruntime on the same model. A model that runs partly on the card can differ where onnxruntime,
cut off from the operators before, computes its own part in another way.
"""


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown; every column after the first to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n" + "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def reasons(counted: Counter[str]) -> str:
    """Most frequent first."""
    return table(["reason", "tests"], [(why, count) for why, count in counted.most_common()])


def official() -> str:
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    excluded: Counter[str] = Counter()
    for case in cases().values():
        count = counts[case.kind]
        count["tests"] += 1
        theirs = on_onnxruntime(case)
        if isinstance(theirs, str):
            excluded[theirs] += 1
            continue
        count["onnxruntime passes"] += 1
        rep = TepiBackend.prepare(case.model)
        try:
            for given, expected in case.data_sets:
                case.check(rep.run(given), expected)
            count["Tepi passes"] += 1
            count[where(rep.session.placement)] += 1
        except Exception as error:
            print(f"{case.kind}/{case.name}: {type(error).__name__}: {error}")
        finally:
            rep.session.close()
    columns = ("tests", "onnxruntime passes", "Tepi passes", *PLACES)
    head = ("kind", *columns[:3], "wholly on the card", "partly", "on onnxruntime")
    rows = [[kind, *(count[column] for column in columns)] for kind, count in counts.items()]
    return (
        OFFICIAL
        + table(head, rows)
        + "\nTests that onnxruntime does not pass by itself are left out:\n"
        + reasons(excluded)
    )


def quantized(card: Card) -> str:
    found: dict[str, list[Comparison]] = {}
    excluded: Counter[str] = Counter()
    for name, kind in variants():
        result = compare(cases()[name], kind, card)
        if isinstance(result, str):
            excluded[result] += 1
        else:
            found.setdefault(result.op, []).append(result)
    rows = []
    for op, results in sorted(found.items()):
        places = Counter(result.where for result in results)
        differing = sum(result.differing for result in results)
        values = sum(result.values for result in results)
        most = max(result.steps for result in results)
        rows.append(
            [op, len(results), *(places[p] for p in PLACES), most, f"{differing} of {values}"]
        )
    every = [result for results in found.values() for result in results]
    places = Counter(result.where for result in every)
    rows.append(
        [
            "all",
            len(every),
            *(places[p] for p in PLACES),
            max(result.steps for result in every),
            f"{sum(r.differing for r in every)} of {sum(r.values for r in every)}",
        ]
    )
    head = ("operator", "models", "wholly on the card", "partly", "on onnxruntime")
    off = Counter(f"{r.op}: {r.reason}" for r in every if r.where != "card")
    return (
        QUANTIZED
        + table((*head, "largest difference, steps", "values that differ"), rows)
        + "\nWhy some are off the card, or partly:\n"
        + reasons(off)
        + "\nLeft out, since onnxruntime itself does not run them:\n"
        + reasons(excluded)
    )


def main() -> None:
    logging.disable(logging.WARNING)  # onnxruntime.quantization recommends preprocessing
    with Card.open("inproc") as card:
        PAGE.write_text(INTRODUCTION + official() + quantized(card), encoding="utf-8")


if __name__ == "__main__":
    main()
