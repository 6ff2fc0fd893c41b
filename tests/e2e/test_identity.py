# SPDX-License-Identifier: Apache-2.0
"""Nodes with certificates of one authority: mutual TLS of `tepi serve`, and who is not let in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_server.client import INFERENCE, CallError, Client
from tests.e2e.registry_folder import RING, Registry, following, tepi
from tests.e2e.server_process import TEPI, serving
from wire import inference_pb2 as pb


@contextmanager
def authority(folder: Path) -> Iterator[str]:
    """The enrolment service of a new authority; its URL."""
    tepi("provision", "init-ca", folder)
    command = [str(TEPI), "provision", "serve", str(folder), "--listen", "127.0.0.1:0", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.terminate()
    assert process.returncode == 0


def enrolled(url: str, ca: Path, folder: Path, node: str) -> Path:
    """The identity of a node."""
    words = ("provision", "token", ca, "--node", node, "--also", "127.0.0.1", "--json")
    token = json.loads(tepi(*words))["token"]
    tepi("provision", "enroll", url, "--node", node, "--token", token, "--identity", folder)
    return folder


def ready(address: str) -> bool:
    """Whether the server answers this caller."""
    with Client(address, 10.0) as client:
        answer = client.call(
            INFERENCE, "ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse
        )
        return bool(answer.ready)


def refusal(address: str) -> str:
    """What a caller gets that is not let in."""
    with pytest.raises(CallError) as error:
        ready(address)
    return str(error.value)


def test_only_nodes_of_the_authority_that_are_not_denied_are_let_in(
    tmp_path: Path, digits_repository: Path
) -> None:
    ca = tmp_path / "ca"
    with authority(ca) as url, authority(tmp_path / "other") as other:
        shop = enrolled(url, ca, tmp_path / "shop", "shop-17")
        friend = enrolled(url, ca, tmp_path / "friend", "desk-1")
        stranger = enrolled(other, tmp_path / "other", tmp_path / "stranger", "desk-1")
        with serving(digits_repository, f"--identity={shop}") as server:
            us = f"grpcs://{server.grpc}?identity={friend}"
            assert ready(us)
            assert "digits/1" in tepi("infer", "digits", "--random", "--address", us)
            with pytest.raises(CallError):
                ready(server.grpc)  # plain text
            assert refusal(f"grpcs://{server.grpc}?identity={stranger}").endswith(
                "trust each other"
            )
            before = (shop / "current").resolve()
            tepi("provision", "renew", "--force", "--identity", shop)
            tepi("provision", "renew", "--force", "--identity", friend)
            assert (shop / "current").resolve() != before
            assert ready(us)  # with the new pair on both sides, and no restart
        tepi("provision", "deny", ca, "--node", "desk-1", "--reason", "stolen")
        tepi("provision", "renew", "--force", "--identity", shop)  # brings the list as well
        with serving(digits_repository, f"--identity={shop}") as server:
            until = f"grpcs://{server.grpc}?identity={friend}"
            assert refusal(until).startswith("PERMISSION_DENIED: node desk-1 is on")


def test_an_identity_that_is_not_there_is_named(digits_repository: Path, tmp_path: Path) -> None:
    said = tepi(
        "serve",
        f"--model-repository={digits_repository}",
        "--grpc-address=127.0.0.1:0",
        "--metrics-address=",
        f"--identity={tmp_path}",
        code=1,
    )
    assert str(tmp_path) in said and "tepi provision enroll" in said


def test_a_region_serves_only_nodes_of_the_authority(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    ca = tmp_path / "ca"
    with authority(ca) as url, registry.serving():
        registry.publish("1.0")
        here = enrolled(url, ca, tmp_path / "region-id", "region-1")
        shop = enrolled(url, ca, tmp_path / "shop-id", "shop-17")
        region = registry.settings(tmp_path / "region", identity=str(here))
        region.write_text(region.read_text() + '[tier]\nlisten = "127.0.0.1:0"\n')
        with following(region) as tier:
            assert tier.startswith("https://127.0.0.1:")
            head = f'root = "{registry.root}"\nring = "{RING}"\nstate = "state"\n'
            origin = f'[[origins]]\nurl = "{tier}"\nca_file = "{shop / "current" / "ca.pem"}"\n'
            edge = tmp_path / "edge.toml"
            edge.write_text(head + origin)
            refused = tepi("sync", "run", edge, "--once", code=1)
            assert "nothing is installed" in refused
            edge.write_text(head + f'identity = "{shop}"\n' + origin)
            assert "current" in tepi("sync", "run", edge, "--once")
