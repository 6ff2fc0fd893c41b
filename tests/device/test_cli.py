# SPDX-License-Identifier: Apache-2.0
"""`tepi card explain`, `card bench` and `model quantize` as a person or a script runs them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

import tepi
from device.session import Session

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples/digits"
INT8 = DIGITS / "model_repository/digits/1/model.onnx"
FP32 = DIGITS / "fp32.onnx"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, standard output and standard error of `tepi` with these words."""

    def invoke(*words: object) -> tuple[int, str, str]:
        code = tepi.main([str(word) for word in words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return invoke


def images(count: int, dtype: str = "f4") -> npt.NDArray[Any]:
    with np.load(DIGITS / "held-out.npz") as file:
        return np.asarray(file["images"][:count, None], dtype)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.npz"
    np.savez(path, image=images(60))
    return path


def save(path: Path, graph: onnx.GraphProto) -> Path:
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def negation(path: Path, shape: list[int | str]) -> Path:
    """A model with nothing for the card."""
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y")]
    node = helper.make_node("Neg", ["x"], ["y"], "negate")
    return save(path, helper.make_graph([node], "g", ports[:1], ports[1:]))


def test_explain_accounts_for_every_instruction(run: Run) -> None:
    code, out, _ = run("card", "explain", INT8, "--runs", 3, "--json")
    assert code == 0
    told = json.loads(out)
    lines = [line for part in told["parts"] for line in part["lines"]]
    nodes = {node.name for node in onnx.load(INT8).graph.node}
    convolutions = [line for line in lines if line["code"] == "conv"]
    assert len(convolutions) == 4
    assert all(line["node"] in nodes and line["macs"] > 0 for line in convolutions)
    assert all(line["kernel"] and line["measured_us"] >= 0 for line in lines)
    assert told["macs"] == sum(line["macs"] for line in lines)
    assert sum(line["share"] for line in lines) == pytest.approx(1)
    assert told["predicted_us"] == pytest.approx(sum(line["predicted_us"] for line in lines))
    assert told["off_card"] == []
    assert told["parts"][0]["card_bytes"] > told["parts"][0]["arena_bytes"] > 0


def test_explain_for_people_fits_its_columns(run: Run) -> None:
    code, out, _ = run("card", "explain", INT8, "--runs", 1)
    assert code == 0
    assert "off the card: nothing" in out
    assert "conv 3x3" in out
    assert max(map(len, out.splitlines())) <= 200


def test_explain_holds_the_card_to_an_instruction_set(run: Run) -> None:
    code, out, _ = run("card", "explain", INT8, "--runs", 1, "--isa", "scalar", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["isa"] == "scalar"
    kernels = {line["kernel"] for part in told["parts"] for line in part["lines"]}
    assert all(kernel.endswith("-scalar") or kernel == "u8-fill" for kernel in kernels)


def test_explain_says_why_a_model_stays_off_the_card(run: Run, tmp_path: Path) -> None:
    path = negation(tmp_path / "negation.onnx", [1, 4])
    code, out, _ = run("card", "explain", path, "--runs", 2, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["parts"][0]["nodes"] == ["negate"]
    assert told["off_card"][0]["node"] == "negate"
    assert told["off_card"][0]["reason"]
    assert "1 x Neg" in run("card", "explain", path, "--runs", 2)[1]


@pytest.mark.parametrize("command", ["explain", "bench"])
def test_open_shapes_must_be_given(run: Run, tmp_path: Path, command: str) -> None:
    path = negation(tmp_path / "open.onnx", [1, "length"])
    code, _, err = run("card", command, path)
    assert code == 1
    assert "--shape x=1,128" in err
    brief = ["--runs", 1] if command == "explain" else ["--seconds", 0]
    code, out, _ = run("card", command, path, "--shape", "x=1,7", *brief, "--json")
    assert code == 0
    assert json.loads(out)["shapes"] == {"x": [1, 7]}
    for shape, complaint in (("x=1", "shape"), ("z=1,7", "no input"), ("x=a", "no shape")):
        code, _, err = run("card", command, path, "--shape", shape)
        assert (code, complaint in err) == (1, True), err


@pytest.mark.parametrize("command", ["explain", "bench"])
def test_a_file_that_is_no_model(run: Run, tmp_path: Path, command: str) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\x00not a model")
    code, _, err = run("card", command, path)
    assert code == 1
    assert "broken.onnx" in err
    assert run("card", command, tmp_path / "absent.onnx")[0] == 2


def test_bench_gives_medians_ratio_and_difference(run: Run) -> None:
    code, out, _ = run("card", "bench", INT8, "--seconds", 0.2, "--json")
    assert code == 0
    found = json.loads(out)
    card, peer = found["card"], found["onnxruntime"]
    assert card["runs"] == peer["runs"] >= 10
    for row in (card, peer):
        assert 0 < row["least_ms"] <= row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert found["ratio"] == pytest.approx(peer["median_ms"] / card["median_ms"])
    assert found["on_card"] == found["nodes"]
    assert 0 <= found["difference"] < 0.02
    assert "x onnxruntime" in run("card", "bench", INT8, "--seconds", 0.1, "--threads", 2)[1]


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_quantize_makes_a_model_that_agrees(
    run: Run, tmp_path: Path, calibration: Path, method: str
) -> None:
    output = tmp_path / "int8.onnx"
    words = ["model", "quantize", FP32, "--calibration", calibration, "-o", output]
    code, out, err = run(*words, "--method", method, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["samples"] == 60
    assert report["bytes_after"] == output.stat().st_size < report["bytes_before"]
    assert report["outputs"][0]["top1"] >= 0.95
    assert report["outputs"][0]["sqnr_db"] > 15
    assert report["on_card"] == report["nodes"]
    assert report["layers"] == sorted(report["layers"], key=lambda row: -row["drop_db"])
    assert all(value > 0 for value in report["times"].values())
    with Session(output) as ours, Session(FP32, "none") as original:
        feed = {"image": images(100)}
        got, wanted = ours.run(None, feed)[0], original.run(None, feed)[0]
    assert (got.argmax(1) == wanted.argmax(1)).mean() >= 0.95


def test_quantize_some_operators(run: Run, tmp_path: Path, calibration: Path) -> None:
    output = tmp_path / "int8.onnx"
    words = ["model", "quantize", FP32, "--calibration", calibration, "-o", output, "--json"]
    options = ["--operator", "Conv", "--keep", "conv[12]", "--float-result", "Conv"]
    code, out, _ = run(*words, *options, "--smooth", 0.5)
    assert code == 0
    assert json.loads(out)["outputs"][0]["top1"] == 1
    operations = [node.op_type for node in onnx.load(output).graph.node]
    assert operations.count("QuantizeLinear") == 1
    code, _, err = run(*words, "--operator", "MatMul")
    assert (code, "has no MatMul; its operators are Conv" in err) == (1, True)


def test_quantize_for_people(run: Run, tmp_path: Path, calibration: Path) -> None:
    output = tmp_path / "int8.onnx"
    code, out, err = run("model", "quantize", FP32, "--calibration", calibration, "-o", output)
    assert code == 0
    assert "layers that lose most" in out
    assert "Conv+Relu" in out
    assert "calibration" in err  # the bars


def _with(**changes: Any) -> dict[str, Any]:
    return {"image": images(4), **changes}


NAN = images(4)
NAN[2, 0, 3, 3] = np.nan
INFINITE = images(4)
INFINITE[3] = np.inf


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        pytest.param({}, "input 'image' is missing", id="missing"),
        pytest.param(_with(label=np.zeros(4)), "no input 'label'", id="unknown"),
        pytest.param(_with(image=images(4, "f8")), "must be float32, got float64", id="type"),
        pytest.param(_with(image=images(4)[:, :, :7]), "got an array of [4, 1, 7, 8]", id="shape"),
        pytest.param(_with(image=images(4)[:, 0]), "got an array of [4, 8, 8]", id="rank"),
        pytest.param(_with(image=images(0)), "'image' is empty", id="empty"),
        pytest.param(_with(image=NAN), "NaN or infinity, first in sample 2", id="nan"),
        pytest.param(_with(image=INFINITE), "NaN or infinity", id="infinity"),
    ],
)
def test_calibration_data_that_does_not_fit(
    run: Run, tmp_path: Path, arrays: dict[str, Any], complaint: str
) -> None:
    path, output = tmp_path / "data.npz", tmp_path / "int8.onnx"
    np.savez(path, **arrays)
    code, _, err = run("model", "quantize", FP32, "--calibration", path, "-o", output)
    assert code == 1
    assert complaint in err
    assert not output.exists()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04cut short"])
def test_calibration_file_that_is_no_archive(run: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    code, _, err = run("model", "quantize", FP32, "--calibration", path, "-o", tmp_path / "out")
    assert code == 1
    assert "data.npz" in err


def test_calibration_file_with_pickled_objects(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, image=np.array([{}], object))
    code, _, err = run("model", "quantize", FP32, "--calibration", path, "-o", tmp_path / "out")
    assert code == 1
    assert "plain arrays" in err


def test_models_that_cannot_be_quantized(run: Run, tmp_path: Path, calibration: Path) -> None:
    words = ["--calibration", calibration, "-o", tmp_path / "int8.onnx"]
    code, _, err = run("model", "quantize", INT8, *words)
    assert (code, "quantized already" in err) == (1, True)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x00not a model")
    assert run("model", "quantize", broken, *words)[0] == 1
    assert run("model", "quantize", FP32, "--calibration", calibration, "-o", FP32)[0] == 2
    missing = tmp_path / "no/such/folder/int8.onnx"
    assert run("model", "quantize", FP32, "--calibration", calibration, "-o", missing)[0] == 1
