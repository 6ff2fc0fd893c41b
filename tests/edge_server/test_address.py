# SPDX-License-Identifier: Apache-2.0
"""Addresses to listen on."""

import socket
from pathlib import Path

import pytest

from edge_server.address import AddressError, claim_unix, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port", "bound"),
    [
        ("127.0.0.1:8001", "127.0.0.1", 8001, "127.0.0.1:9"),
        ("localhost:0", "localhost", 0, "localhost:9"),
        ("[::1]:80", "::1", 80, "[::1]:9"),
        ("0.0.0.0:65535", "0.0.0.0", 65535, "0.0.0.0:9"),
    ],
)
def test_host_and_port(text: str, host: str, port: int, bound: str) -> None:
    address = parse_address("--a", text)
    assert (address.host, address.port, address.path) == (host, port, "")
    assert address.with_port(9) == bound


@pytest.mark.parametrize("text", ["unix:/run/s", "unix:///run/s"])
def test_unix_paths(text: str) -> None:
    address = parse_address("--a", text)
    assert (address.path, address.text) == ("/run/s", "unix:/run/s")


@pytest.mark.parametrize(
    "text", ["", "8001", ":8001", "host:", "host:x", "host:65536", "::1:80", "a b:1", "unix:"]
)
def test_what_is_no_address_is_named_with_its_option(text: str) -> None:
    with pytest.raises(AddressError, match=r"^--metrics-address"):
        parse_address("--metrics-address", text)


def test_a_path_that_no_socket_can_have() -> None:
    with pytest.raises(AddressError, match="107 bytes"):
        parse_address("--a", "unix:/" + "x" * 107)


def test_claiming_a_socket(tmp_path: Path) -> None:
    address = parse_address("--a", f"unix:{tmp_path}/s")
    claim_unix(address)  # nothing there
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address.path)
        server.listen()
        with pytest.raises(AddressError, match="in use"):
            claim_unix(address)
    claim_unix(address)  # nobody listens any more
    assert not Path(address.path).exists()
    with pytest.raises(AddressError, match="is missing"):
        claim_unix(parse_address("--a", f"unix:{tmp_path}/no/s"))
