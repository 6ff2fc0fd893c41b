# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told of a sync; read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_server.sync.node import Node
from edge_server.sync.states import SyncState
from edge_server.sync.stick import NAME


class SyncCollector(Collector):
    """Everything that /metrics shows of one node's sync."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client.registry.Collector."""
        found = self._node.status.found
        if found:
            yield from _look(found)
            yield from _models(found["models"])
        yield from self._origins()
        yield from self._store()
        yield from self._trust()
        yield from self._tier()

    def _origins(self) -> Iterable[Metric]:
        up = GaugeMetricFamily(
            "tepi_sync_origin_up", "1 where the origin answered last", labels=("origin", "region")
        )
        requests = CounterMetricFamily(
            "tepi_sync_origin_requests", "Requests to an origin", labels=("origin",)
        )
        failures = CounterMetricFamily(
            "tepi_sync_origin_failures", "Requests that failed", labels=("origin",)
        )
        fetched = CounterMetricFamily(
            "tepi_fill_bytes", "Bytes of blobs, by where they came from", labels=("source",)
        )
        for origin in self._node.origins.report():
            if origin.name == NAME and not origin.bytes:
                continue  # nobody has imported anything
            up.add_metric((origin.name, origin.region), float(origin.healthy))
            requests.add_metric((origin.name,), origin.requests)
            failures.add_metric((origin.name,), origin.failures)
        for source, count in self._node.fills.totals().items():
            fetched.add_metric((source,), count)
        liars = GaugeMetricFamily(
            "tepi_sync_peers_left_out",
            "Peers that gave wrong bytes and are not asked any more",
            len(self._node.peers.liars()),
        )
        yield liars
        yield from (up, requests, failures, fetched)

    def _store(self) -> Iterable[Metric]:
        blobs = self._node.store.entries()
        size = GaugeMetricFamily("tepi_store_bytes", "Bytes of blobs held", labels=("pinned",))
        for pinned in (True, False):
            held = sum(entry.size for entry in blobs if bool(entry.pins) is pinned)
            size.add_metric((str(pinned).lower(),), held)
        yield size
        scrub = CounterMetricFamily(
            "tepi_store_damaged_blobs", "Blobs found damaged", self._node.scrub.damaged
        )
        mended = CounterMetricFamily(
            "tepi_store_mended_blobs", "Damaged blobs fetched again", self._node.scrub.mended
        )
        yield from (scrub, mended)

    def _tier(self) -> Iterable[Metric]:
        counts = self._node.tier.counts
        requests = CounterMetricFamily(
            "tepi_tier_requests", "Blobs that nodes below asked for", labels=("how",)
        )
        for how in ("hits", "joined", "misses"):
            requests.add_metric((how,), getattr(counts, how))
        sent = CounterMetricFamily("tepi_tier_sent_bytes", "Bytes sent to them", counts.bytes)
        yield from (requests, sent)

    def _trust(self) -> Iterable[Metric]:
        trusted = self._node.trust.good
        if trusted is None:
            return
        expires = GaugeMetricFamily(
            "tepi_sync_trust_expires_timestamp_seconds",
            "When a role's metadata expires",
            labels=("role",),
        )
        for role, when in trusted.expires.items():
            expires.add_metric((role,), when)
        yield expires


def _look(found: dict[str, Any]) -> Iterable[Metric]:
    yield GaugeMetricFamily("tepi_sync_release", "Release that is wanted", found["release"])
    yield GaugeMetricFamily(
        "tepi_sync_last_look_timestamp_seconds",
        "When what is wanted was last learnt",
        found["looked_at"],
    )
    yield CounterMetricFamily(
        "tepi_sync_looks_failed", "Times that it could not be learnt", found["looks_failed"]
    )
    yield GaugeMetricFamily(
        "tepi_sync_installing", "1 where something new may be installed", not found["trouble"]
    )


def _models(rows: list[dict[str, Any]]) -> Iterable[Metric]:
    state = GaugeMetricFamily(
        "tepi_sync_model_state", "1 for the state that the model is in", labels=("model", "state")
    )
    there = GaugeMetricFamily(
        "tepi_sync_model_bytes", "Bytes of a wanted package", labels=("model", "kind")
    )
    for row in rows:
        for each in SyncState:
            state.add_metric((row["model"], each.value), float(row["state"] == each))
        there.add_metric((row["model"], "here"), row["bytes_done"])
        there.add_metric((row["model"], "all"), row["bytes_total"])
    yield from (state, there)
