# SPDX-License-Identifier: Apache-2.0
"""Reads one model version from its folder and makes it ready to run. Works on a worker thread:
loading and warming take from milliseconds to minutes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from device.errors import CardError, CardFull, CardGone, CardTimeout, ModelError, ProgramRejected
from edge_server import log, model_config
from edge_server.card.probes import DEADLINE_S, Probes
from edge_server.classification import read_labels
from edge_server.config_text import ConfigError, parse
from edge_server.engines.card import CardEngine, CardLike, NotCompilable, OpenSession
from edge_server.engines.cpu import OnnxRuntimeEngine
from edge_server.engines.engine import (
    Array,
    Engine,
    EngineError,
    FeedError,
    ModelLoadError,
    TensorInfo,
)
from edge_server.model_config import CardPolicy
from edge_server.served import Costs, Loaded, OffCard, Slot
from wire import model_config_pb2 as config_pb2

CONFIG_FILE = "config.pbtxt"
_CONFIG_BYTES = 1 << 20
_WARM_RUNS = 5
_WARM_NS = 200_000_000  # no more warm runs once they have taken this long
_WARM_BYTES = 64 << 20  # inputs larger than this are not made up for a warm run


@dataclass(frozen=True, slots=True)
class Card:
    """The card to load onto, or why there is none."""

    handle: CardLike | None
    absent: OffCard
    checked_later: bool = False  # whether somebody else will look at its answers


@dataclass(slots=True)
class Report:
    """What loading noticed that is worth a line in the log."""

    warnings: list[str] = field(default_factory=list)
    faults: list[CardError] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def tell(self, name: str) -> None:
        """Log the warnings, once."""
        for warning in self.warnings:
            log.warning("model configuration", model=name, warning=warning)
        self.warnings.clear()


def read_config(folder: Path, report: Report) -> config_pb2.ModelConfig:
    """The folder's config.pbtxt; an empty configuration where there is none."""
    path = folder / CONFIG_FILE
    try:
        with path.open("rb") as file:
            data = file.read(_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return config_pb2.ModelConfig()
    except OSError as error:
        raise ConfigError(f"{CONFIG_FILE} cannot be read: {error.strerror}") from None
    if len(data) > _CONFIG_BYTES:
        raise ConfigError(f"{CONFIG_FILE} is larger than {_CONFIG_BYTES >> 20} MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{CONFIG_FILE}: byte {error.start} is not UTF-8 text") from None
    config, warnings = parse(text, CONFIG_FILE)
    report.warnings += warnings
    return config


def version_folders(folder: Path) -> list[int]:
    """The numeric subfolders, in ascending order."""
    return sorted(
        int(p.name)
        for p in folder.iterdir()
        if p.name.isdecimal() and p.name.isascii() and str(int(p.name)) == p.name and p.is_dir()
    )


class Loader:
    """Makes engines out of model files. One object serves all worker threads."""

    def __init__(self, threads: int, open_session: OpenSession) -> None:
        self._threads = threads
        self._open_session = open_session

    def load(
        self,
        name: str,
        folder: Path,
        version: int,
        configured: config_pb2.ModelConfig,
        card: Card,
        report: Report,
    ) -> Loaded:
        """Raises ModelLoadError or ConfigError with what is wrong and where."""
        config = config_pb2.ModelConfig()
        config.CopyFrom(configured)
        path = folder / str(version) / (config.default_model_filename or model_config.MODEL_FILE)
        _check_file(path)
        cpu = OnnxRuntimeEngine(path, self._threads)
        inputs, outputs = model_config.complete(config, name, cpu.inputs, cpu.outputs)
        policy = model_config.policy(config)
        labels = _labels(folder, config)
        probes = Probes.answered_by(cpu)
        on_card = self.load_card(path, policy, card, report)
        if isinstance(on_card, Slot) and not card.checked_later:
            on_card = self._check(name, on_card, probes, report)
        slot: Slot | None = None
        if policy is CardPolicy.REQUIRE:
            cpu.close()
        else:
            slot = Slot(cpu, warm(cpu, report))
        return Loaded(
            path,
            config,
            inputs,
            outputs,
            labels,
            policy,
            slot,
            on_card,
            probes,
            path.stat().st_size,
        )

    def _check(self, name: str, slot: Slot, probes: Probes, report: Report) -> Slot | OffCard:
        """The slot, if what it answers is right."""
        try:
            wrong = probes.check(slot.engine)
        except CardError as error:
            report.faults.append(error)
            why = OffCard(fault_word(error), str(error))
        except NotCompilable as error:
            why = OffCard("not_compilable", str(error))
        else:
            if not wrong:
                return slot
            why = OffCard("card_mismatch", f"the card does not answer as onnxruntime: {wrong}")
            report.doubts.append(f"{name}: {wrong}")
        slot.engine.close()
        return why

    def load_card(
        self, path: Path, policy: CardPolicy, card: Card, report: Report
    ) -> Slot | OffCard:
        """The model on the card, or why it is not there."""
        if policy is CardPolicy.FORBID:
            return OffCard("forbidden", "the model's configuration forbids the card")
        if card.handle is None:
            return card.absent
        try:
            session = self._open_session(path, card.handle, self._threads)
            engine = CardEngine(session, card.handle.in_process)
        except (NotCompilable, ModelError) as error:
            return OffCard("not_compilable", str(error))
        except CardError as error:
            report.faults.append(error)
            return OffCard(fault_word(error), str(error))
        try:
            return Slot(engine, warm(engine, report))
        except NotCompilable as error:
            engine.close()
            return OffCard("not_compilable", str(error))
        except CardError as error:
            report.faults.append(error)
            engine.close()
            return OffCard(fault_word(error), str(error))


def fault_word(error: CardError) -> str:
    """The label under which a fault is counted and told to clients."""
    words = ((CardGone, "card_gone"), (CardTimeout, "card_timeout"), (CardFull, "card_full"))
    for kind, word in (*words, (ProgramRejected, "program_rejected")):
        if isinstance(error, kind):
            return word
    return "card_fault"


def warm(engine: Engine, report: Report) -> Costs:
    """A few runs on zeros, so that the first request finds everything in place; what they cost."""
    costs = Costs()
    shapes = [tuple(1 if d < 0 else d for d in info.shape) for info in engine.inputs]
    size = sum(
        int(np.prod(shape, dtype=object)) * max(1, info.datatype.itemsize)
        for info, shape in zip(engine.inputs, shapes, strict=True)
    )
    if size > _WARM_BYTES:
        report.warnings.append(f"not warmed on {engine.device}: inputs are {size >> 20} MiB")
        return costs
    feeds = {i.name: _zeros(i, s) for i, s in zip(engine.inputs, shapes, strict=True)}
    names = [o.name for o in engine.outputs]
    nbytes = sum(array.nbytes for array in feeds.values())
    began = time.perf_counter_ns()
    for _ in range(_WARM_RUNS):
        start = time.perf_counter_ns()
        try:
            engine.run(names, feeds, DEADLINE_S)
        except (EngineError, FeedError) as error:
            report.warnings.append(f"warm run on {engine.device} failed: {error}")
            break
        end = time.perf_counter_ns()
        costs.add(nbytes, end - start)
        if end - began > _WARM_NS:
            break
    return costs


def _zeros(info: TensorInfo, shape: tuple[int, ...]) -> Array:
    if info.datatype.itemsize:
        return np.zeros(shape, info.datatype.dtype)
    return np.full(shape, "", object)


def _check_file(path: Path) -> None:
    where = f"{path.parent.name}/{path.name}"
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise ModelLoadError(f"{where} is missing") from None
    except OSError as error:
        raise ModelLoadError(f"{where} cannot be read: {error.strerror}") from None
    if empty:
        raise ModelLoadError(f"{where} is empty")


def _labels(folder: Path, config: config_pb2.ModelConfig) -> dict[str, Sequence[str]]:
    labels: dict[str, Sequence[str]] = {}
    for output in config.output:
        if not output.label_filename:
            continue
        path = folder / output.label_filename
        if output.label_filename.startswith("/") or ".." in Path(output.label_filename).parts:
            raise ConfigError(f"label_filename '{output.label_filename}' leaves the model's folder")
        try:
            labels[output.name] = read_labels(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"label_filename '{output.label_filename}' of output '{output.name}': {error}"
            ) from None
    return labels
