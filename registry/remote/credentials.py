# SPDX-License-Identifier: Apache-2.0
"""Who asks: docker's and podman's files of credentials, and the programs that keep them.

Formats: config.json of the docker CLI, containers-auth.json(5), docker-credential-helpers.
Nothing here prints a secret: `Credentials` shows a user's name only.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.remote.errors import BadCredentials

_HELPER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FILE_LIMIT = 4 << 20
_HELPER_SECONDS = 60.0
_DOCKER_HUB = {"docker.io", "index.docker.io", "registry-1.docker.io"}
_TOKEN_USER = "<token>"  # a helper's word for: the secret is an identity token

Helper = Callable[[str, str], str]  # (program, registry) -> what it printed, '' for none


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user with a password, or an identity token (OAuth2 refresh token) of a token server."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of `Authorization: Basic` (RFC 7617, in UTF-8)."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")


def find_credentials(
    registry: str, files: Iterable[Path], run: Helper | None = None
) -> Credentials | None:
    """What the first of `files` that knows `registry` (HOST[:PORT]) says; a file that does not
    exist knows nothing. Raises BadCredentials."""
    for path in files:
        try:
            with path.open("rb") as file:
                text = file.read(_FILE_LIMIT + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BadCredentials(
                f"credentials cannot be read: {error}", "give another file with --auth-file"
            ) from None
        if len(text) > _FILE_LIMIT:
            raise BadCredentials(f"{path} has more than {_FILE_LIMIT} bytes", "see --auth-file")
        found = parse_credentials(text, registry, str(path), run or run_helper)
        if found is not None:
            return found
    return None


def parse_credentials(text: bytes, registry: str, what: str, run: Helper) -> Credentials | None:
    """The credentials for a registry in the bytes of a file; `what` begins messages. A helper of
    this registry wins over the file's own entry, which wins over the general store."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadCredentials(f"{what} is not a JSON object", "see `docker login`, or --auth-file")
    helpers = found.get("credHelpers")
    if isinstance(helpers, dict):
        for key in _keys(registry):
            if key in helpers:
                return _from_helper(helpers[key], key, what, run)
    auths = found.get("auths")
    for key, entry in auths.items() if isinstance(auths, dict) else ():
        if isinstance(entry, dict) and _host_of(key) in _keys(registry):
            credentials = _from_entry(entry, f"{what}: auths: {key}")
            if credentials is not None:
                return credentials
    store = found.get("credsStore")
    if isinstance(store, str) and store:
        asked = "https://index.docker.io/v1/" if registry in _DOCKER_HUB else registry
        return _from_helper(store, asked, what, run)
    return None


def run_helper(program: str, registry: str) -> str:
    """Ask docker-credential-PROGRAM; '' where it knows nothing. Raises BadCredentials."""
    name = f"docker-credential-{program}"
    try:
        done = subprocess.run(
            [name, "get"],
            input=registry.encode(),
            capture_output=True,
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadCredentials(
            f"{name} does not answer: {error}",
            "install it, or give --username and --password-stdin",
        ) from None
    said = done.stdout.decode(errors="replace")
    if done.returncode == 0:
        return said
    if "credentials not found" in said.lower():
        return ""
    reason = (said or done.stderr.decode(errors="replace")).strip()[:200]
    raise BadCredentials(
        f"{name} failed for {registry}: {reason}",
        "log in with its own tool, or give --username and --password-stdin",
    )


def _keys(registry: str) -> set[str]:
    return _DOCKER_HUB if registry in _DOCKER_HUB else {registry}


def _host_of(key: str) -> str:
    """`https://index.docker.io/v1/` and `registry:5000` name a registry; a path below it, as
    containers-auth.json allows, names one of its repositories and is not taken."""
    scheme, found, rest = key.partition("://")
    if not found:
        return key.rstrip("/")
    host, _, path = rest.partition("/")
    legacy = scheme in ("http", "https") and path.strip("/") in ("", "v1", "v2")
    return host if legacy else key


def _from_helper(program: object, registry: str, what: str, run: Helper) -> Credentials | None:
    if not isinstance(program, str) or not _HELPER.fullmatch(program):
        raise BadCredentials(f"{what}: {program!r} cannot name a credential helper")
    said = run(program, registry)
    if not said.strip():
        return None
    try:
        found = json.loads(said)
        user, secret = found["Username"], found["Secret"]
    except (ValueError, RecursionError, LookupError, TypeError):
        user = secret = None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise BadCredentials(f"docker-credential-{program} printed no Username and Secret")
    if user == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(user, secret) if user or secret else None


def _from_entry(entry: dict[str, Any], what: str) -> Credentials | None:
    def text(key: str) -> str:
        value = entry.get(key, "")
        if not isinstance(value, str):
            raise BadCredentials(f"{what}: {key} is not a text")
        return value

    user, password = text("username"), text("password")
    if pair := text("auth"):
        try:
            user, colon, password = base64.b64decode(pair, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            colon = ""
        if not colon:
            raise BadCredentials(f"{what}: auth is not the base64 of USER:PASSWORD")
        password = password.rstrip("\0")  # as the docker CLI reads it
    token = text("identitytoken")
    return Credentials(user, password, token) if user or password or token else None
