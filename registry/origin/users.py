# SPDX-License-Identifier: Apache-2.0
"""Who may pull and who may push: a file of users with scrypt hashes, and HTTP Basic (RFC 7617).

The file has one user a line, `NAME:RIGHTS:scrypt:N:R:P:SALT:HASH`; rights are `pull` or `push`,
which includes pull; salt and hash are base64. It is read again when it changes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from registry.errors import RegistryError
from registry.origin.problems import Denied, Handler, Unauthorized

RIGHTS = ("pull", "push")
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_COST = (1 << 14, 8, 1)  # scrypt's N, r, p: 16 MiB and about 40 ms
_MEMORY = 64 << 20
_REMEMBERED = 1000


class BadUsers(RegistryError):
    """The file of users cannot be understood, or a user cannot be added."""


@dataclass(frozen=True, slots=True)
class User:
    """One line of the file."""

    name: str
    rights: str
    cost: tuple[int, int, int]
    salt: bytes
    hashed: bytes

    def fits(self, password: str) -> bool:
        """Whether this is the password; slow on purpose."""
        return hmac.compare_digest(_scrypt(password, self.salt, self.cost), self.hashed)

    def line(self) -> str:
        """As it stands in the file."""
        numbers = ":".join(str(number) for number in self.cost)
        salt, hashed = (base64.b64encode(part).decode() for part in (self.salt, self.hashed))
        return f"{self.name}:{self.rights}:scrypt:{numbers}:{salt}:{hashed}"


def _scrypt(password: str, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    n, r, p = cost
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MEMORY, dklen=32)


def make_user(name: str, rights: str, password: str) -> User:
    """A user with a new salt. Raises BadUsers."""
    if not _NAME.fullmatch(name):
        raise BadUsers(f"{name[:80]!r} cannot be a user", "use letters, digits, '.', '_', '@', '-'")
    if len(password) < 8:
        raise BadUsers(f"the password of {name} has less than 8 characters", "choose a longer one")
    salt = secrets.token_bytes(16)
    return User(name, rights, _COST, salt, _scrypt(password, salt, _COST))


def parse_users(text: str, what: str) -> dict[str, User]:
    """The users of a file; raises BadUsers with the line."""
    found: dict[str, User] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, rights, scheme, n, r, p, salt, hashed = line.strip().split(":")
            cost = (int(n), int(r), int(p))
            user = User(name, rights, cost, _decode(salt), _decode(hashed))
        except (ValueError, binascii.Error):
            raise BadUsers(f"{what}, line {number} does not have eight fields", _ADD) from None
        if scheme != "scrypt" or rights not in RIGHTS or not _NAME.fullmatch(name):
            raise BadUsers(f"{what}, line {number}: name, rights or scheme is wrong", _ADD)
        if not (2 <= cost[0] <= 1 << 20 and 1 <= cost[1] <= 32 and 1 <= cost[2] <= 16):
            raise BadUsers(f"{what}, line {number}: scrypt's numbers are out of bounds", _ADD)
        found[name] = user
    return found


_ADD = "write it with `tepi registry serve DIR --add-user NAME`"


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def add_user(path: Path, user: User) -> None:
    """Add a user to a file, or replace that of the same name. Raises BadUsers, OSError."""
    users = parse_users(path.read_text(encoding="utf-8"), str(path)) if path.exists() else {}
    users[user.name] = user
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{one.line()}\n" for one in users.values())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Users:
    """The file, and the passwords that were right since it changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._users: dict[str, User] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._one = asyncio.Lock()  # guesses wait for each other, not for the processor
        self._nobody = make_user("nobody", "pull", secrets.token_hex(16))

    async def rights(self, name: str, password: str) -> str:
        """`pull`, `push`, or '' for a user or password that is wrong."""
        self.read()
        user = self._users.get(name)
        text = f"{name}:{password}".encode("utf-8", "surrogateescape")
        mark = hmac.digest(self._key, text, "sha256")
        if user is not None and mark in self._right:
            return user.rights
        async with self._one:
            fits = await asyncio.to_thread((user or self._nobody).fits, password)
        if user is None or not fits:
            return ""
        self._right[mark] = None
        while len(self._right) > _REMEMBERED:
            self._right.popitem(last=False)
        return user.rights

    @property
    def present(self) -> bool:
        """Whether there is a file, or was one: removing it opens nothing."""
        return self._stamp is not None or self._path.exists()

    def read(self) -> None:
        """Take note of a change. Raises BadUsers, OSError."""
        found = self._path.stat()
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != self._stamp:
            self._users = parse_users(self._path.read_text(encoding="utf-8"), str(self._path))
            self._right.clear()
            self._stamp = stamp


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what. Without `users`, or while their file was never there, everybody may pull,
    and push where `open_push` is set."""

    users: Users | None = None
    anonymous_pull: bool = False
    open_push: bool = False

    async def check(self, request: web.Request) -> None:
        """Raises Unauthorized, Denied. /tuf and everything read needs `pull`, the rest `push`."""
        reads = request.method in ("GET", "HEAD")
        if self.users is None or not self.users.present:
            if not reads and not self.open_push:
                raise Denied("nobody may push here", f"give the pushers a user: {_ADD}")
            return
        name, password = credentials(request.headers.get("Authorization", ""))
        if not name:
            # The ping tells a client that there are passwords even where reading needs none;
            # skopeo sends an empty user if it has none.
            asks = request.path in ("/v2", "/v2/") and "Authorization" not in request.headers
            if reads and self.anonymous_pull and not asks:
                return
            raise _challenge("a user and a password are needed")
        rights = await self.users.rights(name, password)
        if not rights:
            raise _challenge(f"the user {name!r} or the password is wrong")
        if not reads and rights != "push":
            raise Denied(f"{name} may pull, not push", "ask for the right to push")

    @property
    def middleware(self) -> Middleware:
        """For aiohttp, inside of answer_problems."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            await self.check(request)
            return await handler(request)

        return check


def _challenge(message: str) -> Unauthorized:
    realm = {"WWW-Authenticate": 'Basic realm="tepi registry", charset="UTF-8"'}
    return Unauthorized(message, "give the right ones", realm)


def credentials(header: str) -> tuple[str, str]:
    """Name and password of an Authorization header; empty where it is not a good Basic one."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, colon, password = _decode(rest.strip()).decode("utf-8").partition(":")
    except (ValueError, binascii.Error):
        return "", ""
    return (name, password) if colon else ("", "")
