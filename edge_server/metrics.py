# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics: Triton's nv_* names, so that existing dashboards work, and ours as tepi_*.

The counters of edge_server.statistics are read when somebody scrapes; requests pay nothing here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edge_server.card.link import CardLink
from edge_server.card.states import CardState
from edge_server.processor import cpu_seconds, memory_bytes
from edge_server.served import ModelState, ServedVersion
from edge_server.statistics import BOUNDS_US, Counters, Histogram, ModelCounters
from edge_server.status import Failure

_LABELS = ("model", "version")
_PHASES = ("queue", "compute_input", "compute_infer", "compute_output")
_COUNTS: tuple[tuple[str, str, Callable[[ModelCounters], float]], ...] = (
    ("nv_inference_request_success", "Requests answered", lambda c: c.success.count),
    ("nv_inference_count", "Inferences: requests times their batch", lambda c: c.inference_count),
    ("nv_inference_exec_count", "Executions of the model", lambda c: c.execution_count),
    (
        "nv_inference_request_duration_us",
        "Time of answered requests in microseconds",
        lambda c: c.success.ns / 1e3,
    ),
)


class ServerCollector(Collector):
    """Everything that /metrics shows of one server."""

    def __init__(
        self,
        counters: Counters,
        link: CardLink,
        served: Callable[[], Sequence[ServedVersion]] = tuple,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._counters = counters
        self._link = link
        self._served = served
        self._clock_ns = clock_ns
        self._last = (clock_ns(), cpu_seconds())

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client.registry.Collector."""
        models = sorted(self._counters.models.items())
        for _, counters in models:
            counters.settle()
        yield from _model_counts(models)
        yield from _failures(models)
        yield from _gauges(models)
        yield from _latencies(models)
        yield from _shadows(models)
        yield from self._models()
        yield from self._card()
        yield from self._processor()

    def _models(self) -> Iterable[Metric]:
        state = GaugeMetricFamily(
            "tepi_model_state",
            "1 for the state that the model is in",
            labels=(*_LABELS, "state"),
        )
        for served in self._served():
            for each in ModelState:
                labels = (served.name, served.version, each)
                state.add_metric(labels, float(each is served.state))
        yield state

    def _card(self) -> Iterable[Metric]:
        state = GaugeMetricFamily(
            "tepi_card_state", "1 for the state that the card is in", labels=("bus", "state")
        )
        for each in CardState:
            state.add_metric((self._link.bus, each), float(each is self._link.state))
        yield state
        faults = CounterMetricFamily(
            "tepi_card_faults", "Faults that the card answered with", labels=("bus", "code")
        )
        for code, count in sorted(self._link.faults.items()):
            faults.add_metric((self._link.bus, str(code)), count)
        yield faults
        for name, text, value in (
            ("tepi_card_losses", "Times that the card was lost", self._link.losses),
            ("tepi_card_returns", "Times that the card came back", self._link.returns),
            ("tepi_card_resets", "Times that the card was reset", self._link.resets),
        ):
            family = CounterMetricFamily(name, text, labels=("bus",))
            family.add_metric((self._link.bus,), value)
            yield family

    def _processor(self) -> Iterable[Metric]:
        now, seconds = self._clock_ns(), cpu_seconds()
        then, before = self._last
        self._last = (now, seconds)
        busy, total = (new - old for new, old in zip(seconds, before, strict=True))
        share = busy / total if now > then and total > 0 else 0.0
        used, size = memory_bytes()
        for name, text, value in (
            ("nv_cpu_utilization", "Share of the processor in use since the last scrape", share),
            ("nv_cpu_memory_total_bytes", "Main memory", size),
            ("nv_cpu_memory_used_bytes", "Main memory in use", used),
        ):
            yield GaugeMetricFamily(name, text, value=value)


Models = list[tuple[tuple[str, str], ModelCounters]]


def _model_counts(models: Models) -> Iterable[Metric]:
    for name, text, value in _COUNTS:
        family = _PlainCounter(name, text, labels=_LABELS)
        for labels, counters in models:
            family.add_metric(labels, value(counters))
        yield family
    for phase in _PHASES:
        family = _PlainCounter(
            f"nv_inference_{phase}_duration_us", f"Time in {phase} in microseconds", labels=_LABELS
        )
        for labels, counters in models:
            histogram: Histogram = getattr(counters, phase)
            family.add_metric(labels, histogram.ns / 1e3)
        yield family


def _failures(models: Models) -> Iterable[Metric]:
    failures = _PlainCounter(
        "nv_inference_request_failure", "Requests that got an error", labels=(*_LABELS, "reason")
    )
    fallbacks = CounterMetricFamily(
        "tepi_fallback",
        "Requests answered by onnxruntime in the card's stead",
        labels=(*_LABELS, "reason"),
    )
    for labels, counters in models:
        for reason in Failure:
            failures.add_metric((*labels, reason), counters.failures.get(reason, 0))
        for word, count in sorted(counters.fallbacks.items()):
            fallbacks.add_metric((*labels, word), count)
    yield failures
    yield fallbacks


def _shadows(models: Models) -> Iterable[Metric]:
    for name, text, value in (
        ("tepi_shadow_checks", "Card answers that onnxruntime checked", "shadow_checks"),
        ("tepi_shadow_mismatches", "Card answers found wrong", "shadow_mismatches"),
    ):
        family = CounterMetricFamily(name, text, labels=_LABELS)
        for labels, counters in models:
            family.add_metric(labels, getattr(counters, value))
        yield family


def _gauges(models: Models) -> Iterable[Metric]:
    pending = GaugeMetricFamily(
        "nv_inference_pending_request_count", "Requests that wait or run", labels=_LABELS
    )
    loading = GaugeMetricFamily(
        "nv_model_load_duration_secs", "Time that the last load took", labels=_LABELS
    )
    for labels, counters in models:
        pending.add_metric(labels, counters.pending)
        loading.add_metric(labels, counters.load_ns / 1e9)
    yield pending
    yield loading


def _latencies(models: Models) -> Iterable[Metric]:
    for phase in ("request", *_PHASES):
        family = HistogramMetricFamily(
            f"tepi_{phase}_seconds", f"Time in {phase} of answered requests", labels=_LABELS
        )
        for labels, counters in models:
            histogram: Histogram = getattr(counters, phase)
            bounds = [repr(b / 1e6) for b in BOUNDS_US] + ["+Inf"]
            buckets = zip(bounds, accumulate(histogram.counts), strict=True)
            family.add_metric(labels, list(buckets), sum_value=histogram.ns / 1e9)
        yield family


class _PlainCounter(Metric):
    """A counter whose samples carry the family's own name, without the _total of newer ones."""

    def __init__(self, name: str, documentation: str, labels: tuple[str, ...]) -> None:
        super().__init__(name, documentation, "counter")
        self._names = labels

    def add_metric(self, labels: Iterable[str], value: float) -> None:
        """One sample."""
        self.add_sample(self.name, dict(zip(self._names, labels, strict=True)), value)
