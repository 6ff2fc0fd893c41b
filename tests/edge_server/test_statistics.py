# SPDX-License-Identifier: Apache-2.0
"""What is counted for a model version."""

from edge_server.served import Costs
from edge_server.statistics import BOUNDS_US, Counters, Histogram


def test_totals_are_there_after_settling() -> None:
    counters = Counters().of("m", "1")
    for n in range(1000):
        counters.succeeded(2, 0, 10, 30, 60, 100)
        counters.pending += n % 2
    counters.settle()
    assert counters.success.count == counters.execution_count == 1000
    assert (counters.success.ns, counters.inference_count) == (100_000, 2000)
    assert counters.compute_input.ns == 10_000 and counters.queue.ns == 20_000
    assert counters.compute_infer.ns == 30_000 and counters.compute_output.ns == 40_000
    assert counters.batches[2].compute_infer.count == 1000
    assert counters.last_inference_ms > 0 and not counters.recent
    counters.settle()
    assert counters.success.count == 1000


def test_counters_outlive_a_reload() -> None:
    counters = Counters()
    assert counters.of("m", "1") is counters.of("m", "1")
    assert counters.of("m", "1") is not counters.of("m", "2")


def test_histogram_bounds_are_inclusive() -> None:
    histogram = Histogram()
    for us in (0, 10, 10.001, 1e7, 1e7 + 1, 1e12):
        histogram.add(int(us * 1000))
    assert histogram.counts[0] == 2 and histogram.counts[1] == 1
    assert histogram.counts[len(BOUNDS_US) - 1] == 1 and histogram.counts[-1] == 2


def test_costs_forget_a_fast_past_and_ignore_a_slow_moment() -> None:
    costs = Costs()
    assert costs.of(8) is None
    costs.add(8, 100)
    costs.add(8, 90_000)  # waited for the interpreter lock
    assert costs.of(8) == 100
    for _ in range(64):
        costs.add(8, 5000)
    assert costs.of(8) == 5000
    for size in range(1000, 2000):
        costs.add(size, 1)
    assert costs.of(1999) is None  # bounded: unknown sizes go to a worker
