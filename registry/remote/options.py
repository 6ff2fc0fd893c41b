# SPDX-License-Identifier: Apache-2.0
"""The options with which a command reaches a registry, the same for all of them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from registry.remote.client import Remote
from registry.remote.credentials import Credentials, find_credentials

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_OPTIONS: tuple[Any, ...] = (
    click.option(
        "--auth-file",
        type=_FILE,
        envvar="REGISTRY_AUTH_FILE",
        show_envvar=True,
        help="Credentials, as docker and podman keep them.  [default: podman's auth.json, then "
        "docker's config.json]",
    ),
    click.option("--username", metavar="NAME", help="Who asks; with --password-stdin."),
    click.option("--password-stdin", is_flag=True, help="Read the password from standard input."),
    click.option(
        "--insecure",
        is_flag=True,
        help="Speak plain HTTP, also with another machine than this one.",
    ),
    click.option(
        "--ca-file",
        type=_FILE,
        help="PEM file of the authority that signs the registry's certificate.  [default: the "
        "system's]",
    ),
    click.option("--client-cert", type=_FILE, help="PEM file of a certificate to show who asks."),
    click.option("--client-key", type=_FILE, help="PEM file of the key of --client-cert."),
    click.option(
        "--timeout",
        type=click.FloatRange(1, 3600),
        default=30.0,
        show_default=True,
        help="Seconds of silence after which a server counts as dead.",
    ),
    click.option(
        "--docker-config",
        type=_FOLDER,
        envvar="DOCKER_CONFIG",
        hidden=True,
        help="Folder of docker's config.json.",
    ),
    click.option(
        "--runtime-dir",
        type=_FOLDER,
        envvar="XDG_RUNTIME_DIR",
        hidden=True,
        help="Folder of podman's containers/auth.json.",
    ),
)


@dataclass(frozen=True)
class Access:
    """What these options say."""

    auth_file: Path | None
    username: str | None
    password_stdin: bool
    insecure: bool
    ca_file: Path | None
    client_cert: Path | None
    client_key: Path | None
    timeout: float
    docker_config: Path | None
    runtime_dir: Path | None

    def remote(self, registry: str) -> Remote:
        """A client of a registry; raises BadCredentials, Untrusted, click.UsageError."""
        if (self.client_cert is None) != (self.client_key is None):
            raise click.UsageError("--client-cert and --client-key go together")
        both = None
        if self.client_cert is not None and self.client_key is not None:
            both = (self.client_cert, self.client_key)
        return Remote(
            registry,
            self._credentials(registry.rpartition("://")[2]),
            insecure=self.insecure,
            ca=self.ca_file,
            client_certificate=both,
            timeout=self.timeout,
        )

    def _credentials(self, registry: str) -> Credentials | None:
        if (self.username is None) == self.password_stdin:
            raise click.UsageError("--username and --password-stdin go together")
        if self.username is not None:
            password = sys.stdin.read().rstrip("\r\n")
            return Credentials(self.username, password)
        return find_credentials(registry, self._files())

    def _files(self) -> Iterator[Path]:
        """In the order of containers-auth.json(5)."""
        if self.auth_file is not None:
            yield self.auth_file
            return
        if self.runtime_dir is not None:
            yield self.runtime_dir / "containers" / "auth.json"
        yield (self.docker_config or Path.home() / ".docker") / "config.json"


def registry_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets them as its argument `access`."""

    @functools.wraps(command)
    def with_access(**values: Any) -> Any:
        names = Access.__dataclass_fields__
        own = {key: value for key, value in values.items() if key not in names}
        return command(access=Access(**{key: values[key] for key in names}), **own)

    found: Callable[..., Any] = with_access
    for add in _OPTIONS[::-1]:
        found = add(found)
    return found
