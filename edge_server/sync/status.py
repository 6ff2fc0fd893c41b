# SPDX-License-Identifier: Apache-2.0
"""What a sync does now, for `tepi sync status` and metrics: one file that is written anew."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from edge_server import log
from edge_server.fill.origins import Origins
from edge_server.fill.time import REAL_TIME, Time
from edge_server.sync.deployed import Deployment, Deployments
from edge_server.sync.stick import NAME
from edge_server.sync.tracker import Tracker

_EVERY_SECONDS: Final = 0.5
_FILE = "status.json"


class Status:
    """Written by the thread of the sync, read by any."""

    def __init__(
        self,
        state: Path,
        ring: str,
        origins: Origins,
        time: Time = REAL_TIME,
        on_change: Callable[[dict[str, Any]], None] = lambda _found: None,
    ) -> None:
        self._path = state / _FILE
        self._ring = ring
        self._origins = origins
        self._time = time
        self._on_change = on_change
        self._written = float("-inf")
        self._last = ""
        self._lock = threading.Lock()
        self._found: dict[str, Any] = {}
        self._release = 0
        self._looked = 0.0
        self._source = ""
        self._trouble = ""
        self._failures = 0

    def looked(self, release: int, source: str) -> None:
        """What is wanted was learnt, from an origin or a folder."""
        if self._trouble:
            log.info("sync: the registry answers again")
        if release != self._release:
            log.info("sync: release", ring=self._ring, release=release)
        self._release, self._source = release, source
        self._looked, self._trouble = self._time.wall(), ""

    def trouble(self, reason: str, remedy: str) -> None:
        """It was not, for this reason."""
        self._failures += 1
        said = f"{reason}; {remedy}" if remedy else reason
        if said != self._trouble:
            log.warning("sync: nothing is installed; serving goes on", reason=said)
        self._trouble = said

    def write(self, trackers: Iterable[Tracker], deployments: Deployments) -> None:
        """Write it where something changed, at most twice a second where that is but a count."""
        rows = [tracker.as_json() for tracker in trackers]
        states = json.dumps([(r["model"], r["digest"], r["state"], r["reason"]) for r in rows])
        states += f"{self._release} {self._looked} {self._trouble}"
        now = self._time.now()
        if states == self._last and now < self._written + _EVERY_SECONDS:
            return
        for row in rows:
            row["current"] = _told(deployments.current(row["model"]))
            row["previous"] = _told(deployments.previous(row["model"]))
        found = {
            "ring": self._ring,
            "release": self._release,
            "looked_at": self._looked,
            "source": self._source,
            "trouble": self._trouble,
            "looks_failed": self._failures,
            "origins": [
                {"name": o.name, "url": o.url, "healthy": o.healthy, "reason": o.reason}
                for o in self._origins.report()
                if o.name != NAME
            ],
            "models": rows,
            "pid": os.getpid(),
        }
        self._last, self._written = states, now
        with self._lock:
            self._found = found
        self._on_change(found)
        new = self._path.with_name(_FILE + ".new")
        try:
            new.write_text(json.dumps(found, indent=1), encoding="utf-8")
            new.replace(self._path)
        except OSError as error:  # a full disk is no reason to stop; the log and metrics tell too
            log.warning("sync: the status is not written", reason=error.strerror)

    @property
    def found(self) -> dict[str, Any]:
        """What was last written."""
        with self._lock:
            return self._found


def read_status(state: Path) -> dict[str, Any] | None:
    """What a sync of this state folder last wrote; None where none ever did."""
    try:
        found = json.loads((state / _FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _told(deployment: Deployment | None) -> dict[str, str] | None:
    if deployment is None:
        return None
    model = deployment.package.model
    return {"package": f"{model.repository}:{model.tag}", "digest": model.digest}
