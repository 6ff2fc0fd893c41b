# SPDX-License-Identifier: Apache-2.0
"""The front door: lazy commands, exit codes, errors that a person can read."""

import subprocess
import sys
from collections.abc import Mapping

import click
import pytest
from click.testing import CliRunner

import tepi


def test_help_lists_every_command_without_importing_a_room() -> None:
    probe = (
        "import sys, tepi; tepi.main(['--help']);"
        "assert not {'grpc', 'onnxruntime', 'numpy', 'edge_server', 'device'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in tepi.COMMANDS)
    assert "Exit codes" in done.stdout


def paths() -> list[list[str]]:
    """Every command and group, as the words that a person types."""
    found = []
    for name, entry in sorted(tepi.COMMANDS.items()):
        found.append([name])
        if isinstance(entry, tepi.Folder):
            found += [[name, inner] for inner in sorted(entry.entries)]
    return found


@pytest.mark.parametrize("path", paths(), ids=" ".join)
def test_summaries_are_what_the_rooms_say(path: list[str]) -> None:
    group: click.Command | None = tepi.cli
    entries: Mapping[str, tepi.Entry | tepi.Folder] = tepi.COMMANDS
    for word in path:
        assert isinstance(group, click.Group)
        group, entry = group.get_command(click.Context(group), word), entries[word]
        entries = entry.entries if isinstance(entry, tepi.Folder) else {}
    assert group is not None
    assert group.get_short_help_str(200) == entry.summary
    assert CliRunner().invoke(group, ["--help"]).exit_code == 0


def test_help_of_a_group_imports_no_room() -> None:
    probe = (
        "import sys, tepi; tepi.main(['card', '--help']);"
        "assert not {'grpc', 'onnxruntime', 'numpy', 'edge_server', 'device'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "explain" in done.stdout and "detach" in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert tepi.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tepi 0.")


def test_wrong_usage_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert tepi.main(["sevre"]) == 2
    assert "sevre" in capsys.readouterr().err


def fail_with(error: BaseException) -> click.Command:
    @click.command("boom")
    def boom() -> None:
        raise error

    return boom


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (OSError("port 8001 is in use"), 1, "port 8001 is in use"),
        (RuntimeError("oops"), 70, "defect in Tepi"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_lines_not_tracebacks(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    text: str,
) -> None:
    monkeypatch.setattr(tepi.Rooms, "get_command", lambda *_: fail_with(error))
    assert tepi.main(["boom"]) == code
    shown = capsys.readouterr().err
    assert text in shown
    assert "Traceback" not in shown
    assert tepi.main(["--debug", "boom"]) == code
    assert "Traceback" in capsys.readouterr().err
