# SPDX-License-Identifier: Apache-2.0
"""What a node follows and how, read from one TOML file (docs/sync.md has every key)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from registry.errors import RegistryError

DEFAULT_POLL_SECONDS: Final = 60.0
DEFAULT_SCRUB_DAYS: Final = 7.0
DEFAULT_RESERVE: Final = 1 << 30

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{unit}i": 1 << (10 * power) for power, unit in enumerate("KMGT", 1)}
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?(?:/s)?", re.IGNORECASE)
_RING = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FILE_LIMIT = 1 << 20


class SettingsError(RegistryError):
    """The settings file cannot be used; the message names file and key."""


@dataclass(frozen=True, slots=True)
class OriginSettings:
    """One registry, or one peer of the LAN."""

    url: str  # http(s)://HOST[:PORT]
    name: str = ""
    region: str = ""
    credentials: Path | None = None  # a docker credential file
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """A node's settings. Sizes in bytes, rates in bytes per second."""

    state: Path  # store, trust and models lie in here
    root: Path  # the first root.json, brought to the node by hand
    ring: str
    origins: tuple[OriginSettings, ...] = ()
    peers: tuple[OriginSettings, ...] = ()
    poll_seconds: float = DEFAULT_POLL_SECONDS
    rate: int | None = None  # of all fills together
    window: str = ""  # HH:MM-HH:MM[,…], when fills may run; empty: always
    max_bytes: int | None = None  # of the store
    reserve_bytes: int = DEFAULT_RESERVE  # of the disk, left free
    scrub_days: float = DEFAULT_SCRUB_DAYS  # between two readings of all blobs; 0: never
    tier_listen: str = ""  # HOST:PORT where nodes below pull; empty: nowhere
    identity: Path | None = None  # the node's certificate, for origins and for the tier
    tier_users: Path | None = (
        None  # who may pull from it, as `tepi registry serve --add-user` writes
    )
    tier_cert: Path | None = None  # with its key: HTTPS
    tier_key: Path | None = None
    tier_client_ca: Path | None = None  # nodes below must show a certificate of this authority
    deltas: bool = True

    @property
    def store(self) -> Path:
        """The content-addressed blobs."""
        return self.state / "store"

    @property
    def trust(self) -> Path:
        """TUF metadata and floors."""
        return self.state / "trust"

    @property
    def models(self) -> Path:
        """The model repository that a server serves."""
        return self.state / "models"


def read_settings(path: Path) -> SyncSettings:
    """The settings in a TOML file; relative paths start at its folder. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT + 1)
        table = tomllib.loads(data.decode())
    except OSError as error:
        raise SettingsError(
            f"sync settings '{path}' cannot be read: {error.strerror}",
            "docs/sync.md shows a file to start from",
        ) from None
    except ValueError as error:  # TOML's, and UTF-8's
        raise SettingsError(f"sync settings '{path}': {error}") from None
    return parse_settings(table, path.parent, str(path))


def parse_settings(table: Mapping[str, Any], base: Path, what: str) -> SyncSettings:
    """The settings of a parsed file. Raises SettingsError, which names the key."""
    top = _Table(table, what, "")
    store = _Table(top.take("store", dict, {}), what, "store.")
    fill = _Table(top.take("fill", dict, {}), what, "fill.")
    tier = _Table(top.take("tier", dict, {}), what, "tier.")
    ring = top.take("ring", str)
    if not _RING.fullmatch(ring):
        top.fail("ring", f"{ring!r} is not 1 to 64 of a-z, 0-9, '.', '_' and '-'")
    poll = top.take("poll_seconds", (int, float), DEFAULT_POLL_SECONDS)
    if not 0.1 <= poll <= 7 * 86400:
        top.fail("poll_seconds", f"{poll} is not between 0.1 and a week")
    scrub = float(store.take("scrub_days", (int, float), DEFAULT_SCRUB_DAYS))
    if not 0 <= scrub <= 3650:
        store.fail("scrub_days", f"{scrub} is not between 0 (never) and 3650")
    settings = SyncSettings(
        state=base / top.take("state", str),
        root=base / top.take("root", str),
        ring=ring,
        origins=_origins(top, "origins", base),
        peers=_origins(top, "peers", base),
        poll_seconds=float(poll),
        rate=fill.bytes("rate", None),
        window=fill.take("window", str, ""),
        deltas=fill.take("deltas", bool, True),
        max_bytes=store.bytes("max_bytes", None),
        reserve_bytes=store.bytes("reserve_bytes", DEFAULT_RESERVE) or 0,
        scrub_days=scrub,
        tier_listen=tier.take("listen", str, ""),
        identity=top.path("identity", base),
        tier_users=tier.path("users", base),
        tier_cert=tier.path("tls_cert", base),
        tier_key=tier.path("tls_key", base),
        tier_client_ca=tier.path("client_ca", base),
    )
    for rest in (top, store, fill, tier):
        rest.end()
    if (settings.tier_cert is None) != (settings.tier_key is None):
        tier.fail("tls_cert", "and tls_key go together")
    if settings.tier_client_ca is not None and settings.tier_cert is None:
        tier.fail("client_ca", "needs tls_cert and tls_key")
    return settings


def parse_bytes(text: str | int) -> int:
    """A number of bytes such as 500000, "20 MB", "2 GiB" or "10MB/s". Raises ValueError."""
    if isinstance(text, int):
        if text < 0 or isinstance(text, bool):
            raise ValueError(f"{text} is not a number of bytes")
        return text
    found = _BYTES.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a number of bytes such as 500000, '20 MB' or '2 GiB'")
    unit = (found[2] or "").upper().replace("I", "i")
    return int(float(found[1]) * _UNITS[unit])


def _origins(top: _Table, key: str, base: Path) -> tuple[OriginSettings, ...]:
    found = []
    for number, entry in enumerate(top.take(key, list, [])):
        if not isinstance(entry, dict):
            top.fail(key, "is to be written as [[origins]] tables")
        table = _Table(entry, top.what, f"{key}[{number}].")
        url = table.take("url", str)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            table.fail("url", f"{url!r} is not http(s)://HOST[:PORT]")
        files = {
            name: table.path(name, base)
            for name in ("credentials", "ca_file", "client_cert", "client_key")
        }
        name = table.take("name", str, "") or parts.netloc
        region = table.take("region", str, "")
        found.append(OriginSettings(url.rstrip("/"), name, region, **files))
        table.end()
    return tuple(found)


@dataclass(slots=True)
class _Table:
    """A TOML table whose keys are taken one by one; what is left over is an error."""

    table: Mapping[str, Any]
    what: str
    prefix: str
    taken: set[str] = field(default_factory=set)

    def fail(self, key: str, why: str) -> None:
        raise SettingsError(f"sync settings '{self.what}': {self.prefix}{key} {why}")

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        self.taken.add(key)
        value = self.table.get(key, default)
        if value is None:
            self.fail(key, "is missing")
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            self.fail(key, f"is not a {' or '.join(k.__name__ for k in kinds)}: {value!r}")
        return value

    def path(self, key: str, base: Path) -> Path | None:
        text = self.take(key, str, "")
        return base / text if text else None

    def bytes(self, key: str, default: int | None) -> int | None:
        if key not in self.table:
            self.taken.add(key)
            return default
        try:
            return parse_bytes(self.take(key, (int, str)))
        except ValueError as error:
            raise SettingsError(
                f"sync settings '{self.what}': {self.prefix}{key}: {error}"
            ) from None

    def end(self) -> None:
        unknown = sorted(set(self.table) - self.taken)
        if unknown:
            known = ", ".join(sorted(self.taken))
            self.fail(unknown[0], f"is no key of ours; there are {known}")
