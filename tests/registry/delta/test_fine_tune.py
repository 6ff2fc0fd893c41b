# SPDX-License-Identifier: Apache-2.0
"""What a new version of a really trained, really quantized model costs to fetch (the issue's bars:
a header-only change under 2 % of the bytes, a light full fine-tune under 10 %)."""

from pathlib import Path

import onnx
import pytest

from bench.delta import (
    CLASSES,
    PIXELS,
    Weights,
    block_share,
    delta_row,
    digits,
    float_model,
    fresh,
    int8_model,
    program,
    train,
    with_other_header,
)
from device.session import Session

SIZES = (PIXELS, 1024, 1024, CLASSES)
LEVEL = 19


@pytest.fixture(scope="module")
def trained() -> Weights:
    return train(fresh(SIZES), 1e-3, 4)


@pytest.fixture(scope="module")
def old(trained: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return int8_model(trained, tmp_path_factory.mktemp("old") / "model.onnx")


@pytest.fixture(scope="module")
def tuned(trained: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every weight trained on for three epochs at 1e-5."""
    weights = train(trained, 1e-5, 3, seed=5)
    return int8_model(weights, tmp_path_factory.mktemp("tuned") / "model.onnx")


def test_the_model_has_learned(old: Path) -> None:
    images, labels = digits()
    with Session(old, "none") as session:
        right = [
            int(session.run(None, {"pixels": image[None]})[0].argmax()) == label
            for image, label in zip(images[:200], labels[:200], strict=True)
        ]
    assert sum(right) > 180


def test_a_header_only_change_moves_under_two_percent(old: Path, tmp_path: Path) -> None:
    new = with_other_header(old, tmp_path / "model.onnx")
    assert new.stat().st_size != old.stat().st_size
    assert delta_row(new, old, LEVEL)["delta"] < 0.02


def test_a_header_only_change_moves_under_two_percent_of_the_blocks(tmp_path: Path) -> None:
    """Of a file of 10 MB; what is trained does not matter here."""
    old, new = tmp_path / "old.onnx", tmp_path / "new.onnx"
    onnx.save(float_model(fresh((PIXELS, 1500, 1500, CLASSES))), old)
    with_other_header(old, new)
    assert block_share(new, old) < 0.02
    assert delta_row(new, old, LEVEL)["delta"] < 0.02


def test_a_light_full_fine_tune_moves_under_ten_percent(old: Path, tuned: Path) -> None:
    assert block_share(tuned, old) > 0.9  # blocks alone save nothing
    assert delta_row(tuned, old, LEVEL)["delta"] < 0.10


def test_the_card_program_of_a_fine_tune_moves_under_ten_percent(
    old: Path, tuned: Path, tmp_path: Path
) -> None:
    """Compiled weights lie otherwise than in the model, and have no names."""
    before = program(old, tmp_path / "old.tepi")
    after = program(tuned, tmp_path / "new.tepi")
    assert delta_row(after, before, LEVEL)["delta"] < 0.10
