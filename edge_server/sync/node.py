# SPDX-License-Identifier: Apache-2.0
"""Puts one node's sync together out of its settings, starts it and stops it in order."""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_server.fill.fills import Fills
from edge_server.fill.origins import Origins
from edge_server.fill.peers import Peers
from edge_server.fill.rate import Rate
from edge_server.fill.receive import Limits
from edge_server.fill.source import PEER_HEADERS, Origin, Peer
from edge_server.fill.time import REAL_TIME, Time
from edge_server.fill.window import Windows, parse_windows
from edge_server.store.disk import REAL_DISK, Disk
from edge_server.store.room import StoreLimits
from edge_server.store.store import BLOCK, Store
from edge_server.sync.deployed import Deployments
from edge_server.sync.follower import Follower
from edge_server.sync.gather import Gatherer
from edge_server.sync.holds import Holds
from edge_server.sync.models import Models
from edge_server.sync.scrub import Scrub
from edge_server.sync.settings import OriginSettings, SettingsError, SyncSettings
from edge_server.sync.status import Status
from edge_server.sync.stick import Stick, as_origin
from edge_server.sync.trust import NodeTrust
from edge_server.tier.tier import Tier
from firmware_bridge.provision.tls import tls_contexts
from registry.origin.app import tls_context
from registry.origin.users import Access, Users
from registry.remote.client import Remote
from registry.remote.credentials import find_credentials

IMPORT = "import"  # in the state folder: a link to what `tepi sync import` was given
_TIMEOUT = 20.0  # seconds of silence of an origin
_PEER_TIMEOUT = 5.0


def card_abi(card: str) -> int | None:
    """Of the programs that this card takes; None for "none"."""
    if card == "none":
        return None
    from device.binding.abi import ABI_VERSION

    return ABI_VERSION


class Node:
    """One node's sync over its state folder: `start`, then `stop`; or `start(follow=False)` and
    `once`. Everything here blocks; a server calls it on a worker thread."""

    def __init__(
        self,
        settings: SyncSettings,
        models: Models,
        abi: int | None,
        *,
        disk: Disk = REAL_DISK,
        block: int = BLOCK,
        time: Time = REAL_TIME,
        rng: random.Random | None = None,
        on_change: Callable[[dict[str, Any]], None] = lambda _found: None,
    ) -> None:
        """Takes the store's lock; `block`: bytes that a power cut may cost a blob.

        Raises SettingsError, StoreBusy and the store's other errors, TrustError where the root is
        of no use."""
        self.settings = settings
        root = _root(settings.root)
        windows = parse_windows(settings.window)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._remotes: list[Remote] = []
        self.tier_address = ""
        origins = [self._origin(entry, number) for number, entry in enumerate(settings.origins)]
        stick = Stick(settings.state / IMPORT)
        origins.insert(0, as_origin(stick, str(settings.state / IMPORT)))
        peers = [self._peer(entry) for entry in settings.peers]
        self.origins = Origins(origins, time=time, rng=rng)
        self.peers = Peers(peers, time=time, rng=rng)
        settings.state.mkdir(parents=True, exist_ok=True)
        limits = StoreLimits(settings.max_bytes, settings.reserve_bytes)
        self.store = Store.open(settings.store, limits, disk, time.wall, block=block)
        try:
            self.deployments = Deployments(settings.state, self.store.path, disk)
            self.fills = self._fills(time, windows, rng)
            self.tier = self._tier(time)
            self.trust = NodeTrust(settings.trust, root, settings.ring, self.origins, stick, time)
            self.status = Status(settings.state, settings.ring, self.origins, time, on_change)
            gatherer = Gatherer(
                self.store, self.fills, self.origins, abi, self._stop, settings.deltas
            )
            self.follower = Follower(
                self.trust,
                gatherer,
                self.store,
                self.deployments,
                models,
                Holds(settings.state, disk),
                self.status,
                self._stop,
                settings.poll_seconds,
                time,
                rng,
            )
            self.scrub = Scrub(
                settings.state,
                self.store,
                self.fills,
                self.deployments,
                models,
                self._stop,
                settings.scrub_days * 86400,
                time,
                rng,
            )
        except BaseException:
            self.store.close()
            raise

    def _tier(self, time: Time) -> Tier:
        settings = self.settings
        users = Users(settings.tier_users) if settings.tier_users is not None else None
        return Tier(
            self.store,
            self.fills,
            self.origins,
            settings.state / "tier",
            time.wall,
            access=Access(users),
            tls=_tier_tls(settings),
        )

    def _fills(self, time: Time, windows: Windows, rng: random.Random | None) -> Fills:
        limits = Limits(rate=Rate(self.settings.rate, time), time=time)
        return Fills(self.store, self.origins, self.peers, limits=limits, windows=windows, rng=rng)

    def start(self, follow: bool = True) -> None:
        """Take up what an earlier run left; then follow on a thread of its own, and serve the nodes
        below. Raises CannotListen."""
        if follow and self.settings.tier_listen:
            self.tier_address = self.tier.start(self.settings.tier_listen)
        self.follower.start()
        if follow:
            for work, name in ((self.follower.run, "tepi-sync"), (self.scrub.run, "tepi-scrub")):
                self._threads.append(threading.Thread(target=work, name=name))
                self._threads[-1].start()

    def once(self) -> bool:
        """Look once and install what is due, each once; whether all that is wanted is current."""
        self.follower.poll()
        return self.follower.settled

    def interrupt(self) -> None:
        """Have `once`, or the thread, end soon."""
        self._stop.set()

    def stop(self) -> None:
        """End it; what arrived is kept."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.tier.stop()
        self.fills.stop()
        self.store.close()
        for remote in self._remotes:
            remote.close()

    def _origin(self, entry: OriginSettings, priority: int) -> Origin:
        remote = self._remote(entry, _TIMEOUT)
        return Origin(entry.name, entry.url, remote, entry.region, priority)

    def _peer(self, entry: OriginSettings) -> Peer:
        remote = self._remote(entry, _PEER_TIMEOUT, PEER_HEADERS)
        return Peer(entry.name, entry.url, remote, entry.region)

    def _remote(
        self, entry: OriginSettings, timeout: float, headers: Mapping[str, str] | None = None
    ) -> Remote:
        host = entry.url.partition("://")[2]
        found = find_credentials(host, [entry.credentials]) if entry.credentials else None
        if (entry.client_cert is None) != (entry.client_key is None):
            raise SettingsError(f"origin {entry.name}: client_cert and client_key go together")
        pair: tuple[Path, Path] | None = None
        if entry.client_cert is not None and entry.client_key is not None:
            pair = (entry.client_cert, entry.client_key)
        elif self.settings.identity is not None and entry.url.startswith("https:"):
            current = self.settings.identity / "current"  # a link that renewals turn
            pair = (current / "cert.pem", current / "key.pem")
        remote = Remote(
            entry.url,
            found,
            insecure=entry.url.startswith("http:"),
            ca=entry.ca_file,
            client_certificate=pair,
            timeout=timeout,
            headers=headers,
        )
        self._remotes.append(remote)
        return remote


def _tier_tls(settings: SyncSettings) -> ssl.SSLContext | None:
    """What nodes below meet; with a client authority they must show a certificate of it."""
    if settings.tier_cert is None or settings.tier_key is None:
        if settings.identity is None or not settings.tier_listen:
            return None
        return tls_contexts(settings.identity, time.time).server()
    try:
        context = tls_context(str(settings.tier_cert), str(settings.tier_key))
        if settings.tier_client_ca is not None:
            context.load_verify_locations(settings.tier_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # SSLError is one
        raise SettingsError(f"[tier] certificates cannot be used: {error}") from None
    return context


def _root(path: Path) -> bytes:
    """The first root, which a node is given by hand."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"root '{path}' cannot be read: {error.strerror}",
            "bring the root.json that `tepi registry init` wrote to this node",
        ) from None
