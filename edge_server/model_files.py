# SPDX-License-Identifier: Apache-2.0
"""The repository's files: which models and versions there are, and what a load request brings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from edge_server import model_config
from edge_server.engines.engine import ModelLoadError
from edge_server.loader import Report, read_config, version_folders
from wire import model_config_pb2 as config_pb2


class RepositoryError(Exception):
    """The repository folder cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Override:
    """What a load request brings itself: a configuration, files by `version/name`, or both."""

    config: config_pb2.ModelConfig | None = None
    files: dict[str, bytes] = field(default_factory=dict)


def model_folders(root: Path) -> list[Path]:
    """The model folders. Raises RepositoryError where the repository cannot be read."""
    try:
        return sorted(p for p in root.iterdir() if is_model_folder(p))
    except FileNotFoundError:
        raise RepositoryError(
            f"model repository '{root}' does not exist; create it, or name another with "
            "--model-repository"
        ) from None
    except NotADirectoryError:
        raise RepositoryError(
            f"model repository '{root}' is not a folder; it must hold <model>/<version>/model.onnx"
        ) from None
    except OSError as error:
        raise RepositoryError(
            f"model repository '{root}' cannot be read: {error.strerror}"
        ) from None


def plan(
    name: str, folder: Path, override: Override, report: Report
) -> tuple[config_pb2.ModelConfig, list[int]]:
    """The configuration to load with and the versions it asks for."""
    config = override.config
    if config is None:
        config = read_config(folder, report)
    report.warnings += model_config.check(config, name)
    numbers = model_config.served_versions(config, version_folders(folder))
    if not numbers:
        raise ModelLoadError(f"no version folder; expected '{name}/1/{model_config.MODEL_FILE}'")
    return config, numbers


def write_files(name: str, files: dict[str, bytes]) -> TemporaryDirectory[str] | None:
    """The files of a load request in a folder of their own, which lasts as long as the model."""
    if not files:
        return None
    scratch = TemporaryDirectory(prefix=f"tepi-{name}-")
    for path, data in files.items():
        target = Path(scratch.name) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return scratch


def is_model_folder(path: Path) -> bool:
    """Folders but hidden ones."""
    return not path.name.startswith(".") and path.is_dir()


def is_plain(name: str) -> bool:
    """True for a name that stays inside the folder it is looked up in."""
    return bool(name) and "/" not in name and "\0" not in name and not name.startswith(".")
