# SPDX-License-Identifier: Apache-2.0
"""Trust over the node's own origins: metadata comes as blobs do, from the first that is good."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge_server import log
from edge_server.fill.origins import Origins
from edge_server.fill.source import Origin
from edge_server.fill.time import REAL_TIME, Time
from edge_server.sync.stick import Stick
from registry.remote.errors import EndlessData, RemoteError
from registry.remote.errors import Missing as RemoteMissing
from registry.trust.client import TrustClient
from registry.trust.desired import Desired
from registry.trust.errors import NoSource, SourceDown
from registry.trust.sources import Missing, too_large
from registry.trust.trusted import Trusted

_FOLDER: Final = "/tuf/"


class OriginMetadata:
    """An origin's metadata. A timestamp that did not change is taken from memory."""

    def __init__(self, origin: Origin, origins: Origins) -> None:
        self.name = origin.name
        self._origin = origin
        self._origins = origins
        self._held: dict[str, tuple[str, bytes]] = {}  # path: (ETag, bytes)

    def get(self, path: str, limit: int) -> bytes:
        """As MetadataSource. That it answers closes its circuit: blobs need not wait then."""
        etag, held = self._held.get(path, ("", b""))
        try:
            data, etag = self._origin.remote.document(_FOLDER + path, limit, etag)
        except RemoteMissing:
            self._origins.succeeded(self._origin)
            raise Missing(path) from None
        except EndlessData:
            raise too_large(self.name, path, limit) from None
        except RemoteError as error:
            self._origins.failed(self._origin, error)
            raise SourceDown(f"{self.name}: {error}", error.remedy) from None
        self._origins.succeeded(self._origin)
        if data is None:
            data = held
        if len(data) > limit:
            raise too_large(self.name, path, limit)
        if etag and path.endswith("timestamp.json"):  # all else has its version in its name
            self._held[path] = (etag, data)
        return data


class NodeTrust:
    """What this node's ring is to run, and whether that may be acted upon."""

    def __init__(
        self,
        folder: Path,
        root: Path | bytes,
        ring: str,
        origins: Origins,
        stick: Stick,
        time: Time = REAL_TIME,
    ) -> None:
        self._client = TrustClient(folder, root, time.wall)
        self._ring = ring
        self._time = time
        self._stick = stick
        self._sources = [OriginMetadata(o, origins) for o in origins if o.remote is not stick]
        self._seen: tuple[str, ...] = ()
        self._good: Trusted | None = None
        self._silent = False

    def look(self) -> Desired:
        """What this node is to run now. Raises TrustError."""
        self._silent = False
        try:
            stick = [self._stick.source()] if self._stick.there else []
            self._good = self._client.refresh([*stick, *self._sources], self._ring)
        except NoSource:
            self._silent = True
            raise
        finally:
            self._report()
        return self._good.desired(self._ring)

    @property
    def good(self) -> Trusted | None:
        """What was good last."""
        return self._good

    @property
    def source(self) -> str:
        """Where what was good last came from."""
        return self._good.source if self._good is not None else ""

    def accept_clock(self) -> None:
        """Take this machine's clock for right, where it had run ahead. Raises Busy, OSError."""
        self._client.accept_clock()

    def still_good(self) -> bool:
        """Whether what was good last may be acted upon although the last look failed: no origin
        answered, and it has not expired. Peers may have the blobs."""
        good = self._good
        return self._silent and good is not None and good.stale(self._time.wall()) is None

    def last(self) -> Desired | None:
        """What it was to run when that was last known."""
        self._good = self._client.load()
        self._report()
        if self._good is None:
            return None
        return self._good.rings.get(self._ring)

    def _report(self) -> None:
        damage = tuple(self._client.damage)
        if damage != self._seen:
            for line in damage:
                log.warning("sync: trust", damage=line)
        self._seen = damage
