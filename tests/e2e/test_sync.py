# SPDX-License-Identifier: Apache-2.0
"""A registry, a node that follows it, and clients that notice nothing: all of them real
processes."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edge_server.client import INFERENCE, Client
from tests.e2e.registry_folder import RING, Registry, following, tepi
from tests.e2e.server_process import Served, serving
from tests.edge_server.store.test_faults import mount
from tests.edge_server.store.test_faults import tmpfs as tmpfs
from wire import inference_pb2 as pb

_WAIT = 60.0
_POLL = 0.5  # seconds between two looks of a node
_IMAGE = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8) % 17


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with release 1, served; tests publish further ones."""
    registry = Registry(tmp_path_factory.mktemp("registry"))
    with registry.serving():
        registry.publish("1.0", 1)
        registry.pack("1.1", 2)
        registry.vouch("1.1")
        yield registry


@pytest.fixture
def registry(made: Registry) -> Registry:
    """The same, wanting 1.0."""
    made.desire("1.0")
    return made


def release(client: Client) -> int:
    """Which release answers now."""
    request = pb.ModelInferRequest(model_name="digits")
    request.inputs.add(name="image", datatype="FP32", shape=_IMAGE.shape)
    request.raw_input_contents.append(_IMAGE.tobytes())
    answer = client.call(INFERENCE, "ModelInfer", request, pb.ModelInferResponse)
    total = float(np.frombuffer(answer.raw_output_contents[0], np.float32).sum())
    assert abs(total - round(total)) < 0.05 * round(total), total
    return round(total)


def until(condition: Callable[[], object], what: str) -> None:
    """Ask again and again: each time it is work for the other side, not a pause."""
    end = time.monotonic() + _WAIT
    while not condition():
        assert time.monotonic() < end, f"not within {_WAIT:g} s: {what}"


def status(settings: Path) -> dict[str, Any]:
    """What the node says of itself."""
    found: dict[str, Any] = json.loads(tepi("sync", "status", settings, "--json"))
    return found


@contextmanager
def clients(node: Served) -> Iterator[list[int | Exception]]:
    """Clients that never stop asking; what they were answered, release by release."""
    seen: list[int | Exception] = []
    stop = threading.Event()

    def ask() -> None:
        with Client(node.grpc, 10.0) as client:
            while not stop.is_set():
                try:
                    found: int | Exception = release(client)
                except Exception as error:  # whatever it is, it is a request that failed
                    found = error
                if not seen or seen[-1] != found:
                    seen.append(found)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_new_release_and_a_rollback_under_load(registry: Registry, tmp_path: Path) -> None:
    settings = registry.settings(tmp_path, poll_seconds=_POLL)
    with serving(settings) as node, Client(node.grpc, 10.0) as client:
        until(lambda: "state=current" in node.log, "release 1")
        with clients(node) as seen:
            registry.desire("1.1")
            until(lambda: release(client) == 2, "release 2")
            tepi("sync", "rollback", "digits", settings)
            assert release(client) == 1
        assert not [each for each in seen if isinstance(each, Exception)], seen
        assert {1, 2} == set(seen)
        (row,) = status(settings)["models"]
        assert row["state"] == "rolled back" and row["current"]["package"] == "vision/digits:1.0"


def test_all_origins_down_the_node_restarts_serves_and_converges_within_one_poll(
    tmp_path: Path,
) -> None:
    registry = Registry(tmp_path)
    with registry.serving():
        registry.publish("1.0", 1)
        settings = registry.settings(tmp_path / "node", poll_seconds=_POLL)
        tepi("sync", "run", settings, "--once")
    with serving(settings) as node, Client(node.grpc, 10.0) as client:
        assert release(client) == 1  # from the first request on
        until(lambda: "nothing is installed; serving goes on" in node.log, "it notices")
        with registry.serving():
            registry.publish("1.1", 2)
            before = status(settings)["looks_failed"]
            until(lambda: release(client) == 2, "release 2")
            assert status(settings)["looks_failed"] <= before + 1  # one was under way, at most
        assert release(client) == 2


def test_a_package_whose_golden_vectors_fail_is_refused(registry: Registry, tmp_path: Path) -> None:
    settings = registry.settings(tmp_path, poll_seconds=_POLL)
    tag = "wrong"
    registry.pack_wrong(tag)
    registry.vouch(tag)
    with serving(settings) as node, Client(node.grpc, 10.0) as client:
        until(lambda: "state=current" in node.log, "release 1")
        registry.desire(tag)
        until(lambda: "state=refused" in node.log, "the refusal")
        assert release(client) == 1
        (row,) = status(settings)["models"]
        assert "golden vector" in row["reason"] and row["current"]["package"].endswith(":1.0")
        registry.desire("1.1")
        until(lambda: release(client) == 2, "release 2")


def test_an_air_gapped_node_takes_a_stick(registry: Registry, tmp_path: Path) -> None:
    settings = tmp_path / "sync.toml"
    settings.write_text(
        f'state = "state"\nroot = "{registry.root}"\nring = "{RING}"\npoll_seconds = {_POLL}\n'
    )
    stick = tmp_path / "stick"
    tepi("registry", "export", registry.folder, "--to", stick, "--ring", RING, "--packages")
    tepi("sync", "import", stick, settings)  # without a server
    shutil.rmtree(stick)
    with serving(settings) as node, Client(node.grpc, 10.0) as client:
        assert release(client) == 1
        registry.desire("1.1")
        tepi("registry", "export", registry.folder, "--to", stick, "--ring", RING, "--packages")
        tepi("sync", "import", stick, settings)  # beside one
        assert release(client) == 2
        assert status(settings)["origins"] == []


def test_two_processes_on_one_store(registry: Registry, tmp_path: Path) -> None:
    settings = registry.settings(tmp_path, poll_seconds=_POLL)
    with serving(settings) as node:
        assert str(node.process.pid) in failing("sync", "run", settings, "--once")
        assert str(node.process.pid) in failing("serve", "--sync", settings)


@pytest.mark.parametrize("way", ["blocks", "delta"])
def test_a_header_only_change_moves_under_two_percent(tmp_path: Path, way: str) -> None:
    registry = Registry(tmp_path)
    data = np.random.default_rng(5).standard_normal(4 << 20).astype(np.float32)
    weights = onnx.numpy_helper.from_array(data, "more_weights")
    with registry.serving():
        for tag in ("1.0", "1.1"):
            registry.pack(tag, extra=weights, doc=f"made by the {tag} of some trainer")
            if tag == "1.1" and way == "delta":
                tepi("model", "delta", registry.layout, "--new", tag, "--from", "1.0")
            registry.vouch(tag)
        registry.desire("1.0")
        settings = registry.settings(tmp_path / "node")
        tepi("sync", "run", settings, "--once")
        (first,) = status(settings)["models"]
        registry.desire("1.1")
        tepi("sync", "run", settings, "--once")
        (row,) = status(settings)["models"]
    assert row["state"] == "current" and row["current"]["package"].endswith(":1.1")
    moved = row["bytes_from"]["origin origin"]
    assert first["bytes_from"]["origin origin"] >= 16 << 20
    assert moved < 0.02 * row["bytes_total"], row
    assert ("delta" if way == "delta" else "local") in row["bytes_from"], row


def test_a_peer_of_the_lan_gives_what_it_holds(registry: Registry, tmp_path: Path) -> None:
    first = registry.settings(tmp_path / "first")
    first.write_text(first.read_text() + '[tier]\nlisten = "127.0.0.1:0"\n')
    tepi("sync", "run", first, "--once")
    with following(first) as tier:
        second = registry.settings(tmp_path / "second")
        second.write_text(second.read_text() + f'[[peers]]\nurl = "{tier}"\nname = "first"\n')
        tepi("sync", "run", second, "--once")
    (row,) = status(second)["models"]
    assert row["state"] == "current" and set(row["bytes_from"]) == {"peer first"}


def on_small_disk(registry: Registry, folder: Path) -> Path:
    """Settings of a node that leaves nothing free for others."""
    settings = registry.settings(folder / "node", poll_seconds=_POLL)
    settings.write_text(settings.read_text() + "[store]\nreserve_bytes = 0\n")
    return settings


def test_read_only_disk_serves_what_it_holds(registry: Registry, tmpfs: Path) -> None:
    settings = on_small_disk(registry, tmpfs)
    tepi("sync", "run", settings, "--once")
    mount(tmpfs, "remount,ro")
    with serving(settings) as node, Client(node.grpc, 10.0) as client:
        assert release(client) == 1
        assert "sync is off until the next start" in node.log and "read-only" in node.log
    assert "read-only" in failing("sync", "run", settings, "--once")


def test_disk_full_serves_on_and_goes_on_once_there_is_room(
    registry: Registry, tmpfs: Path
) -> None:
    settings = on_small_disk(registry, tmpfs)
    with serving(settings) as node, Client(node.grpc, 10.0) as client:
        until(lambda: "state=current" in node.log, "release 1")
        with (tmpfs / "hog").open("wb", buffering=0) as hog:
            hog.write(bytes(8 << 20))  # more than there is: it takes all
        registry.desire("1.1")
        until(lambda: "No space left" in node.log, "the disk to be found full")
        assert release(client) == 1
        (tmpfs / "hog").unlink()
        until(lambda: release(client) == 2, "release 2")


def failing(*words: str | Path) -> str:
    """What a command says that ends with 1."""
    return tepi(*words, code=1)
