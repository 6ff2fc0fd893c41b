# SPDX-License-Identifier: Apache-2.0
"""What is counted for each model version. Plain integers without locks: only the event loop's
thread writes, and a reader on the same thread sees them between two requests."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field

# Upper bounds in microseconds: from a small model's run to a batch that takes seconds.
BOUNDS_US = (
    *(10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4),
    *(2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7),
)
_RECENT = 256  # answered requests that are kept before they are added up
_BOUNDS_NS = tuple(int(b * 1000) for b in BOUNDS_US)


@dataclass(slots=True)
class Duration:
    """How often, and how long altogether."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """One more event."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class Histogram:
    """Counts per bound of BOUNDS_US, the last one for everything above."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_US) + 1))
    ns: int = 0

    def add(self, ns: int) -> None:
        """One more event."""
        self.counts[bisect_left(_BOUNDS_NS, ns)] += 1
        self.ns += ns


@dataclass(slots=True)
class BatchCounters:
    """The compute phases of executions of one batch size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class ModelCounters:
    """One model version since the server started; a reload goes on counting.

    Readers call `settle` first.
    """

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    failures: dict[str, int] = field(default_factory=dict)
    fallbacks: dict[str, int] = field(default_factory=dict)
    inference_count: int = 0
    execution_count: int = 0
    last_inference_ms: int = 0
    shadow_checks: int = 0
    shadow_mismatches: int = 0
    pending: int = 0
    load_ns: int = 0
    request: Histogram = field(default_factory=Histogram)
    queue: Histogram = field(default_factory=Histogram)
    compute_input: Histogram = field(default_factory=Histogram)
    compute_infer: Histogram = field(default_factory=Histogram)
    compute_output: Histogram = field(default_factory=Histogram)
    batches: dict[int, BatchCounters] = field(default_factory=dict)
    recent: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)

    def succeeded(
        self, batch: int, start: int, decoded: int, began: int, ran: int, done: int
    ) -> None:
        """One answered request, by the perf_counter_ns at the end of each of its phases."""
        self.recent.append((batch, start, decoded, began, ran, done))
        if len(self.recent) == _RECENT:
            self.settle()

    def settle(self) -> None:
        """Bring the totals up to date. Many at once cost a request less than one by one."""
        for batch, start, decoded, began, ran, done in self.recent:
            self.success.add(done - start)
            self.inference_count += batch
            self.execution_count += 1
            self.request.add(done - start)
            self.compute_input.add(decoded - start)
            self.queue.add(began - decoded)
            self.compute_infer.add(ran - began)
            self.compute_output.add(done - ran)
            counters = self.batches.get(batch)
            if counters is None:
                counters = self.batches[batch] = BatchCounters()
            counters.compute_input.add(decoded - start)
            counters.compute_infer.add(ran - began)
            counters.compute_output.add(done - ran)
        if self.recent:
            ago = time.perf_counter_ns() - self.recent[-1][5]
            self.last_inference_ms = (time.time_ns() - ago) // 1_000_000
            self.recent.clear()

    def failed(self, reason: str, ns: int) -> None:
        """One request that got an error; `reason` is a status.Failure."""
        self.fail.add(ns)
        self.failures[reason] = self.failures.get(reason, 0) + 1

    def fell_back(self, reason: str) -> None:
        """One request answered by onnxruntime in the card's stead."""
        self.fallbacks[reason] = self.fallbacks.get(reason, 0) + 1


class Counters:
    """The counters of every model version ever served, by (name, version)."""

    def __init__(self) -> None:
        self.models: dict[tuple[str, str], ModelCounters] = {}

    def of(self, name: str, version: str) -> ModelCounters:
        """The counters of one version, made on first use."""
        return self.models.setdefault((name, version), ModelCounters())
