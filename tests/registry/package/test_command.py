# SPDX-License-Identifier: Apache-2.0
"""`tepi model pack`, `inspect`, `verify` and `unpack` as people and scripts call them."""

import json
from pathlib import Path

import pytest

import tepi
from registry.package.layout import Layout
from registry.package.modelpack import Role
from registry.package.package import open_package

from .models import DIGITS, relu, saved


@pytest.fixture
def layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "layout"
    assert tepi.main(["model", "pack", str(DIGITS), "-o", str(path), "--tag", "1.0"]) == 0
    capsys.readouterr()
    return path


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = tepi.main(["model", *words])
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.mark.parametrize("command", ["pack", "inspect", "verify", "unpack"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, command, "--help")
    assert code == 0
    assert f"tepi model {command} " in out.split("Examples:")[1]


def test_pack_says_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "layout")
    code, out, err = ran(capsys, "pack", str(DIGITS), "-o", output)
    assert (code, err) == (0, "")
    assert "for: card, cpu; 3 golden vectors" in out
    code, out, _ = ran(capsys, "pack", str(DIGITS), "-o", output, "--json", "--variant", "cpu")
    told = json.loads(out)
    assert code == 0
    assert list(told["variants"]) == ["cpu"]
    assert told["digest"] == open_package(Layout(Path(output))).descriptor.digest


def test_pack_names_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(saved(relu(["n", "w"]), tmp_path / "relu.onnx"))
    code, _, err = ran(capsys, "pack", path, "-o", str(tmp_path / "l"))
    assert code == 1
    assert "--shape" in err
    words = ("pack", path, "-o", str(tmp_path / "l"), "--shape", "x=1,5")
    code, out, _ = ran(capsys, *words)
    assert code == 0
    assert "no card variant: relu leaves sizes open" in out
    assert ran(capsys, *words, "--tag", "a/b")[0] == 1
    assert ran(capsys, *words, "--name", "../x")[0] == 1
    assert ran(capsys, *words, "--variant", "gpu")[0] == 2
    assert ran(capsys, *words, "--golden-data", "none.npz")[0] == 2
    assert ran(capsys, "pack", path)[0] == 2


def test_inspect_shows_variants_files_and_lineage(
    layout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = ran(capsys, "inspect", f"{layout}:1.0")
    assert code == 0
    for text in ("digits 1", "variant card, ABI 1", "1/model.tepi", "shared", "int8 qdq"):
        assert text in out
    code, out, _ = ran(capsys, "inspect", str(layout), "--json")
    told = json.loads(out)
    assert [v["variant"] for v in told["variants"]] == ["card", "cpu"]
    assert told["variants"][1]["files"][0]["path"] == "1/model.onnx"
    assert told["about"]["name"] == "digits"


def test_a_tag_or_a_layout_that_is_not_there(
    layout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = ran(capsys, "inspect", f"{layout}:2.0")
    assert (code, "its tags are: 1.0" in err) == (1, True)
    code, _, err = ran(capsys, "verify", str(tmp_path / "none"))
    assert (code, "tepi model pack" in err) == (1, True)


def test_verify_tells_right_from_wrong(layout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "verify", str(layout))
    assert code == 0
    assert out.splitlines()[0] == "right    manifests"
    assert out.count("right") == 4
    found = Layout(layout)
    file = open_package(found).choose(None).file(Role.LABELS)
    assert file is not None
    found.blob_path(file.digest).write_text("other\n")
    code, out, _ = ran(capsys, "verify", str(layout), "--json")
    assert code == 1
    told = json.loads(out)
    assert not told["good"]
    assert file.digest in told["checks"][1]["wrong"]


def test_unpack_writes_a_model_repository(
    layout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    code, out, _ = ran(capsys, "unpack", f"{layout}:1.0", str(models))
    assert (code, out) == (0, f"{models / 'digits'}: 5 files of variant card\n")
    for name in ("config.pbtxt", "labels.txt", "1/model.onnx"):
        assert (models / "digits" / name).read_bytes() == (DIGITS / name).read_bytes()
    code, out, _ = ran(
        capsys, "unpack", str(layout), str(models), "--name", "b", "--variant", "cpu", "--json"
    )
    assert json.loads(out)["variant"] == "cpu"
    assert not (models / "b/1/model.tepi").exists()
    assert ran(capsys, "unpack", str(layout), str(models), "--name", "../b")[0] == 1
