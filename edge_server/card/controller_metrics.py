# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told of a card's management controller."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_server.card.controller import ControllerView


class ControllerCollector(Collector):
    """Read when somebody scrapes."""

    def __init__(self, view: ControllerView) -> None:
        self._view = view

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client.registry.Collector."""
        view = self._view
        labels = ("port",)
        up = GaugeMetricFamily(
            "tepi_controller_up", "1 where the controller answers", labels=labels
        )
        up.add_metric((view.port,), float(view.reading is not None))
        failed = CounterMetricFamily(
            "tepi_controller_looks_failed", "Looks that it did not answer", labels=labels
        )
        failed.add_metric((view.port,), view.looks_failed)
        fault = GaugeMetricFamily(
            "tepi_controller_last_fault", "Number of its newest log entry", labels=labels
        )
        fault.add_metric((view.port,), view.faults[-1].number if view.faults else 0)
        yield from (up, failed, fault)
        if view.reading is None:
            return
        sensor = GaugeMetricFamily(
            "tepi_controller_reading",
            "What a sensor reads, in the unit that ends its name",
            labels=("port", "sensor"),
        )
        for name, value in sorted(view.reading.sensors.items()):
            sensor.add_metric((view.port, name), value)
        limit = GaugeMetricFamily(
            "tepi_controller_limit", "What a sensor may not exceed", labels=("port", "sensor")
        )
        for name, value in sorted(view.reading.limits.items()):
            limit.add_metric((view.port, name), value)
        yield from (sensor, limit)
