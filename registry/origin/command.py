# SPDX-License-Identifier: Apache-2.0
"""`tepi registry serve`: the embedded origin."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import signal
import ssl
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path

import click

from registry.errors import BadReference, RegistryError
from registry.origin.app import FIELDS, HttpServer, origin_app, tls_context
from registry.origin.problems import LOGGER
from registry.origin.storage import Storage
from registry.origin.sweep import sweep
from registry.origin.uploads import MAX_BLOB, Uploads
from registry.origin.users import RIGHTS, Access, Users, add_user, make_user
from registry.reference import parse_listen

_SWEEP_SECONDS = 3600.0
_EXAMPLES = """\b
Examples:
  tepi registry serve registry
  tepi registry serve registry --add-user ci --rights push
  tepi registry serve registry --listen 0.0.0.0:5000 --anonymous-pull \\
      --tls-cert origin.pem --tls-key origin.key

\b
Without users, whoever reaches the address may pull; pushing is open only where the address is this
machine's own (127.0.0.1). With users, everything needs one, unless --anonymous-pull is given.
SIGTERM and SIGINT end it in order: answers under way have 5 seconds.
"""


class CannotListen(RegistryError):
    """The address or the certificate cannot be used."""


def _listen(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, int]:
    try:
        return parse_listen(text)
    except BadReference as error:
        raise click.BadParameter(str(error)) from None


@click.command(epilog=_EXAMPLES)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--listen",
    default="127.0.0.1:5000",
    show_default=True,
    callback=_listen,
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes a free one.",
)
@click.option(
    "--users",
    "users_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of users and password hashes.  [default: DIR/users, where there is one]",
)
@click.option(
    "--anonymous-pull", is_flag=True, help="Let everybody pull; only pushing needs a user."
)
@click.option(
    "--add-user",
    "new_user",
    metavar="NAME",
    help="Add a user, or change its password, and exit; the password is asked for, or read from "
    "standard input. A running server takes note.",
)
@click.option(
    "--rights",
    type=click.Choice(RIGHTS),
    default="pull",
    show_default=True,
    help="Of the user that is added; push includes pull.",
)
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Certificate chain (PEM) to serve https with.",
)
@click.option(
    "--tls-key",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The certificate's key (PEM).",
)
@click.option(
    "--max-blob-bytes",
    type=click.IntRange(min=1),
    default=MAX_BLOB,
    show_default=True,
    help="Refuse to take larger blobs.",
)
@click.option(
    "--gc",
    is_flag=True,
    help="At the start and then each hour, remove blobs that nothing refers to and that are older "
    "than an hour.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='Print one JSON line on standard output when ready, {"address": …, "port": …}, and log in '
    "JSON.",
)
def serve(  # one parameter for each option
    folder: Path,
    listen: tuple[str, int],
    users_file: Path | None,
    anonymous_pull: bool,
    new_user: str | None,
    rights: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    max_blob_bytes: int,
    gc: bool,
    as_json: bool,
) -> None:
    """Serve the registry folder DIR over HTTP: OCI pull and push, and the trust's metadata.

    DIR is what `tepi registry init` makes; an empty or missing folder becomes a registry without
    trust."""
    users_file = users_file or folder / "users"
    if new_user is not None:
        _add(folder, users_file, new_user, rights)
        return
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    _configure_log(as_json)
    storage = Storage(folder)
    storage.claim()
    try:
        access = _access(users_file, anonymous_pull, listen[0])
        uploads = Uploads(storage, max_blob_bytes)
        app = origin_app(storage, uploads, access)
        tls = _tls(tls_cert, tls_key)
        keeper = _keep(storage if gc else None, uploads)
        asyncio.run(_serve(HttpServer(app, *listen), keeper, tls, storage.root, as_json))
    finally:
        storage.release()


def _add(folder: Path, path: Path, name: str, rights: str) -> None:
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    folder.mkdir(parents=True, exist_ok=True)
    add_user(path, make_user(name, rights, password))
    click.echo(f"{name} may {rights}; written to {path}", err=True)


def _access(path: Path, anonymous_pull: bool, host: str) -> Access:
    users = Users(path)
    if users.present:
        users.read()
    return Access(users, anonymous_pull, open_push=_is_own(host))


def _is_own(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None or key is None:
        return None
    try:
        return tls_context(str(certificate), str(key))
    except ssl.SSLError as error:
        raise CannotListen(f"{certificate} and {key} do not make a certificate: {error}") from None


async def _serve(
    server: HttpServer,
    keep: Coroutine[None, None, None],
    tls: ssl.SSLContext | None,
    root: Path,
    as_json: bool,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await server.start(tls)
    except OSError as error:
        keep.close()
        raise CannotListen(
            f"cannot listen: {error.strerror or error}", "give another --listen; port 0 is free"
        ) from None
    keeper = asyncio.create_task(keep)
    try:
        address = server.address(tls is not None)
        ready = json.dumps({"address": address, "port": server.port})
        click.echo(ready if as_json else f"serving {root} at {address}")
        await stop.wait()
    finally:
        keeper.cancel()
        await server.stop()


async def _keep(storage: Storage | None, uploads: Uploads) -> None:
    """Forget abandoned uploads each hour, and what nothing needs in the storage, where one is
    given."""
    while True:
        try:
            await asyncio.to_thread(uploads.sweep)
            if storage is not None:
                await asyncio.to_thread(sweep, storage)
        except (RegistryError, OSError) as error:
            LOGGER.error("cleaning up: %s", error)
        await asyncio.sleep(_SWEEP_SECONDS)


def _configure_log(as_json: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(as_json))
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


class _Lines(logging.Formatter):
    """`TIME LEVEL message key=value …`, or one JSON object a line."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, object] = getattr(record, FIELDS, {})
        if self._as_json:
            line = {"time": when, "level": record.levelname, "event": record.getMessage()}
            return json.dumps({**line, **fields}, ensure_ascii=False)
        words = [when, record.levelname, record.getMessage()]
        for key, value in fields.items():
            text = str(value)
            plain = text.isprintable() and text and not set(text) & set(" =\"'")
            words.append(f"{key}={text if plain else json.dumps(text)}")
        return " ".join(words)
