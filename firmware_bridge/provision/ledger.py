# SPDX-License-Identifier: Apache-2.0
"""What an authority has to remember: certificates, tokens, cards and denials, in SQLite.

Every change is one transaction that is on the disk when it returns (WAL, synchronous FULL), so a
token's use and the certificate that it gave are remembered together or not at all. Several
processes may share it: the service and a person's commands.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from firmware_bridge.provision.errors import BadAuthority, Unavailable

_BUSY_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS certificates (
    serial TEXT PRIMARY KEY, node TEXT NOT NULL, spki BLOB NOT NULL, card TEXT,
    starts REAL NOT NULL, ends REAL NOT NULL, made REAL NOT NULL, how TEXT NOT NULL,
    pem BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS certificates_of_node ON certificates (node, spki);
CREATE INDEX IF NOT EXISTS certificates_of_card ON certificates (card);
CREATE INDEX IF NOT EXISTS certificates_by_end ON certificates (ends);
CREATE TABLE IF NOT EXISTS tokens (
    hash BLOB PRIMARY KEY, node TEXT, card TEXT, made REAL NOT NULL, ends REAL NOT NULL,
    used REAL, spki BLOB, certificate TEXT) STRICT;
CREATE TABLE IF NOT EXISTS nodes (
    node TEXT PRIMARY KEY, names TEXT NOT NULL, card TEXT, first REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS cards (
    serial TEXT PRIMARY KEY, node TEXT, listed REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS denied (
    kind TEXT NOT NULL, value TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (kind, value)) STRICT;
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
"""

Row = sqlite3.Row


class Ledger:
    """Safe among threads. Methods raise Unavailable where the disk is full or another process
    holds the file for long."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(
                path, _BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            path.chmod(0o600)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise BadAuthority(f"{path} cannot be used: {error}") from None

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction; an error undoes all of it."""
        with self._lock, _named():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def rows(self, question: str, *values: Any) -> list[Row]:
        """Of one SELECT."""
        with self._lock, _named():
            return self._db.execute(question, values).fetchall()

    def prune(self, before: float) -> int:
        """Forget certificates that ended before this time, except each node's last, which keeps its
        name taken; and tokens that ended, or that gave them: such a token is then unknown, and
        refused as before. How many certificates went."""
        with self.change() as db:
            gone = db.execute(
                "DELETE FROM certificates WHERE ends < ? AND rowid NOT IN "
                "(SELECT max(rowid) FROM certificates GROUP BY node)",
                (before,),
            ).rowcount
            db.execute(
                "DELETE FROM tokens WHERE ends < ? OR (certificate IS NOT NULL AND "
                "certificate NOT IN (SELECT serial FROM certificates))",
                (before,),
            )
        return gone

    def secret(self, name: str, made: bytes) -> bytes:
        """The secret of this name; `made` becomes it where there is none."""
        with self.change() as db:
            db.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, made))
            row = db.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
        value: bytes = row["value"]
        return value


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(
            f"the authority's ledger cannot be used: {error}", "try again in a moment"
        ) from None
