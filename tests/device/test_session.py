# SPDX-License-Identifier: Apache-2.0
"""Session over the real software card, held against onnxruntime on the same model."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest

from device.binding import Card
from device.binding.card import IsaName
from device.errors import CardFull, CardGone, InputError, ModelError
from device.session import SHAPES_KEPT, Session

from .compiler.building import Builder
from .compiler.running import card_of, reference

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


def classifier(batch: int | str = "n", opset: int = 17) -> bytes:
    """FP32 [batch, 3, 9, 7] -> QDQ convolution, pool, dense -> FP32 [batch, 5]."""
    b = Builder(opset=opset)
    b.inputs.append(onnx.helper.make_tensor_value_info("x", 1, [batch, 3, 9, 7]))
    b.quantized("x", "xq", 0.02, 120, output=False)
    w, x = b.weights("w", (8, 3, 3, 3), channels=True), b.again("xq")
    y = b.node("Conv", (x, w, b.bias("c", 8, "xq", "w")), "conv", pads=[1, 1, 1, 1])
    b.quantized(y, "yq", 0.05, 100, output=False)
    b.quantized(b.node("GlobalAveragePool", (b.again("yq"),), "pool"), "pq", 0.01, output=False)
    flat = b.node("Flatten", (b.again("pq"),), "flat")
    b.quantized(flat, "fq", 0.01, output=False)
    dense = b.node("MatMul", (b.again("fq"), b.weights("d", (8, 5), channels=False)), "dense")
    b.quantized(dense, "dq", 0.05, output=False)
    b.output(b.again("dq"), onnx.TensorProto.FLOAT)
    return b.model().SerializeToString()


def image(batch: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0, 1, (batch, 3, 9, 7)).astype(np.float32)


def expected(model: bytes, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    (only,) = reference(onnx.load_model_from_string(model), {"x": x}).values()
    return np.asarray(only)


@pytest.fixture
def card() -> Iterator[Card]:
    with Card.open("inproc", threads=1, memory=64 << 20) as opened:
        yield opened


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_one_program_serves_any_batch(batch: int) -> None:
    model = classifier()
    with Session(model) as session:
        (got,) = session.run(None, {"x": image(batch)})
        assert {row.where for row in session.placement} == {"card"}
    assert got.shape == (batch, 5)
    np.testing.assert_array_equal(got, expected(model, image(batch)))


def test_inputs_and_outputs_read_as_declared() -> None:
    with Session(classifier()) as session:
        (x,), (y,) = session.inputs, session.outputs
    assert (x.name, x.type) == ("x", "tensor(float)")
    assert x.dtype == np.float32
    assert x.shape == ["n", 3, 9, 7]
    assert y.dtype == np.float32


def test_an_empty_batch_gives_an_empty_result() -> None:
    with Session(classifier()) as session:
        (got,) = session.run(None, {"x": image(0)})
    assert got.shape == (0, 5)


def test_without_a_card_onnxruntime_runs_it_all() -> None:
    model = classifier()
    with Session(model, card="none") as session:
        (got,) = session.run(None, {"x": image(2)})
        assert {row.where for row in session.placement} == {"onnxruntime"}
        assert session.inputs[0].shape == ["n", 3, 9, 7]
        assert session.inputs[0].dtype == np.float32
    np.testing.assert_array_equal(got, expected(model, image(2)))


def test_feeds_of_any_memory_order() -> None:
    model = classifier()
    x = np.asfortranarray(image(2))
    with Session(model) as session:
        (got,) = session.run(None, {"x": x})
    np.testing.assert_array_equal(got, expected(model, image(2)))


def test_outputs_by_name() -> None:
    with Session(classifier()) as session:
        name = session.outputs[0].name
        (got,) = session.run([name], {"x": image(1)})
        assert got.shape == (1, 5)
        with pytest.raises(InputError, match=f"no output 'nope'; its outputs are {name}"):
            session.run(["nope"], {"x": image(1)})


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, r"needs input 'x' \[n, 3, 9, 7\]"),
        ({"x": image(1), "z": image(1)}, "has no input 'z'; its inputs are x"),
        ({"x": image(1).astype(np.float64)}, "'x' .* must be float32, got float64"),
        ({"x": image(1)[0]}, r"shape \[n, 3, 9, 7\], got \[3, 9, 7\]"),
        ({"x": image(1)[:, :2]}, r"got \[1, 2, 9, 7\]"),
    ],
)
def test_wrong_feeds_name_the_tensor(feeds: dict[str, Any], message: str) -> None:
    with Session(classifier()) as session:
        with pytest.raises(InputError, match=message):
            session.run(None, feeds)
        session.run(None, {"x": image(1)})


def test_a_declared_batch_takes_no_other() -> None:
    model = classifier(2)
    with Session(model) as session:
        (got,) = session.run(None, {"x": image(2)})
        np.testing.assert_array_equal(got, expected(model, image(2)))
        with pytest.raises(InputError, match=r"got \[3, 3, 9, 7\]"):
            session.run(None, {"x": image(3)})


def free_shape() -> bytes:
    """Relu over [h, w]: two symbols, of which neither is a batch for a transposed result."""
    b = Builder()
    b.inputs.append(onnx.helper.make_tensor_value_info("x", 1, ["h", "w"]))
    b.quantized("x", "xq", 0.02, 120, output=False)
    b.quantized(b.node("Transpose", (b.again("xq"),), "t", perm=[1, 0]), "tq", output=False)
    b.output(b.again("tq"), onnx.TensorProto.FLOAT)
    return b.model().SerializeToString()


def test_shapes_are_compiled_when_they_are_seen(card: Card) -> None:
    model = free_shape()
    free = card.info["memory_free"]
    with Session(model, card) as session:
        for size in [*range(1, SHAPES_KEPT + 4), 1, 3]:
            x = np.random.default_rng(size).normal(0, 1, (size, 3)).astype(np.float32)
            (got,) = session.run(None, {"x": x})
            np.testing.assert_array_equal(got, expected(model, x))
    assert card.info["memory_free"] == free, "programs of dropped shapes must leave the card"


def test_many_threads_share_a_session() -> None:
    model = classifier()
    images = [image(1, seed) for seed in range(40)]
    with Session(model, threads=2) as session, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda x: session.run(None, {"x": x})[0], images))
    for x, got in zip(images, results, strict=True):
        np.testing.assert_array_equal(got, expected(model, x))


def test_sessions_share_a_card_and_leave_it_open(card: Card) -> None:
    first, second = Session(classifier(), card), Session(classifier(1), card)
    first.close()
    (got,) = second.run(None, {"x": image(1)})
    np.testing.assert_array_equal(got, expected(classifier(1), image(1)))
    second.close()
    assert card.alive


def test_surprise_removal_and_return(card: Card) -> None:
    model = classifier()
    with Session(model, card) as session:
        session.run(None, {"x": image(1)})
        card.detach()
        with pytest.raises(CardGone) as gone:
            session.run(None, {"x": image(1)})
        assert gone.value.fault == "GONE"
        assert gone.value.remedy
        card.attach()
        with pytest.raises(CardGone, match="load"):
            session.run(None, {"x": image(1)})
        session.reload()
        (got,) = session.run(None, {"x": image(1)})
    np.testing.assert_array_equal(got, expected(model, image(1)))


def test_card_memory_full_names_what_is_missing() -> None:
    with Card.open("inproc", memory=16 << 10) as small, pytest.raises(CardFull, match="memory"):
        Session((DIGITS / "model_repository/digits/1/model.onnx"), small)


def test_a_session_holds_its_card_to_an_instruction_set(card: Card) -> None:
    with Session(classifier(), isa="scalar") as session:
        assert session.card is not None
        assert session.card.info["isa"] == "scalar"
        (got,) = session.run(None, {"x": image(1)})
    np.testing.assert_array_equal(got, expected(classifier(), image(1)))
    for other in (card, "none"):
        with pytest.raises(ValueError, match=r"give it to Card\.open"):
            Session(classifier(), other, isa="scalar")


def test_a_closed_session_says_so() -> None:
    session = Session(classifier())
    session.close()
    with pytest.raises(ValueError, match="closed"):
        session.run(None, {"x": image(1)})


@pytest.mark.parametrize("card_kind", ["inproc", "none"])
def test_missing_file_and_corrupt_bytes(card_kind: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx"):
        Session(tmp_path / "nowhere.onnx", card_kind)
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"\x08\x09" + bytes(range(256)))
    with pytest.raises(ModelError, match=r"corrupt\.onnx"):
        Session(corrupt, card_kind)


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    proto = onnx.load_model_from_string(classifier())
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    with Session(path) as session:
        (got,) = session.run(None, {"x": image(1)})
    np.testing.assert_array_equal(got, expected(classifier(), image(1)))


@pytest.mark.parametrize("isa", get_args(IsaName))
def test_real_digits_equal_onnxruntime_on_every_instruction_set(isa: str) -> None:
    opened = card_of(isa)
    if opened is None:
        pytest.skip(f"this machine lacks {isa}")
    with np.load(DIGITS / "held-out.npz") as held_out:
        images = next(held_out[name] for name in held_out.files if held_out[name].ndim > 1)
    path = DIGITS / "model_repository/digits/1/model.onnx"
    with opened as card, Session(path, card) as session:
        assert {row.where for row in session.placement} == {"card"}
        name = session.inputs[0].name
        x = images.astype(np.float32).reshape(-1, *session.inputs[0].shape[1:])
        got = session.run(None, {name: x})
    with Session(path, card="none") as host:
        want = host.run(None, {name: x})
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
