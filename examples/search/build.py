# SPDX-License-Identifier: Apache-2.0
"""Makes the model that the demo serves: exported as float32, then quantized as CHOSEN says.

.venv/bin/python -m examples.search.build
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx

from device.quantize.quantize import Extent, Progress, Report, quantize
from device.quantize.tables import ProgressBars
from examples.search.corpus import passages
from examples.search.export import export
from examples.search.minilm import Tokens, weights

FOLDER = Path(__file__).resolve().parents[2] / "build/search"
MODEL = "minilm"
CALIBRATION = 20  # passages; ranges of more do not rank better
CALIBRATION_TOKENS = 160  # the longest passage

_LOOKUPS_AND_PRODUCTS = ("Gather", "MatMul")
_ATTENTION = ("*.attention.scores", "*.attention.mixed")

SETTINGS = {
    "everything": Extent(),
    "products": Extent(_LOOKUPS_AND_PRODUCTS),
    "float-results": Extent(_LOOKUPS_AND_PRODUCTS, float_results=("MatMul",)),
    "weights": Extent(_LOOKUPS_AND_PRODUCTS, _ATTENTION, ("MatMul",)),
    "weights-smooth": Extent(_LOOKUPS_AND_PRODUCTS, _ATTENTION, ("MatMul",), smooth=0.8),
    "float-results-smooth": Extent(_LOOKUPS_AND_PRODUCTS, (), ("MatMul",), smooth=0.8),
}
"""What becomes int8; README.md tells what each costs and brings."""

CHOSEN = "weights-smooth"


def served(folder: Path = FOLDER) -> Path:
    """The int8 model in its repository, which is `folder`/model_repository."""
    return folder / f"model_repository/{MODEL}/1/model.onnx"


def build(progress: Progress, folder: Path = FOLDER, setting: str = CHOSEN) -> Report:
    """Write fp32.onnx, calibration.npz, the model repository and report.json."""
    output = served(folder)
    output.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(export(weights()), folder / "fp32.onnx")
    whole = passages()
    texts = [passage.whole for passage in whole[:: len(whole) // CALIBRATION][:CALIBRATION]]
    feed = Tokens().feed(texts, CALIBRATION_TOKENS)
    np.savez(folder / "calibration.npz", allow_pickle=False, **feed)
    report = quantize(
        folder / "fp32.onnx",
        folder / "calibration.npz",
        output,
        "minmax",
        progress,
        extent=SETTINGS[setting],
    )
    record = {"setting": setting, **asdict(report)}
    (folder / "report.json").write_text(json.dumps(record, indent=2) + "\n")
    return report


def ready(folder: Path = FOLDER, setting: str = CHOSEN) -> bool:
    """Whether `build` has been there, with this setting."""
    try:
        record = json.loads((folder / "report.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    return served(folder).exists() and bool(record["setting"] == setting)


def main() -> int:
    """Exit code 0 when the model is there, 1 where its weights are not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write to")
    parser.add_argument("--setting", choices=SETTINGS, default=CHOSEN, help="what becomes int8")
    arguments = parser.parse_args()
    try:
        with ProgressBars(quiet=False) as progress:
            build(progress, arguments.output, arguments.setting)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    print(served(arguments.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
