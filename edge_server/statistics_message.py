# SPDX-License-Identifier: Apache-2.0
"""ModelStatistics out of the counters that the metrics show too."""

from __future__ import annotations

from edge_server.served import ServedVersion
from edge_server.statistics import Duration, Histogram
from wire import inference_pb2 as pb


def statistics_message(served: ServedVersion) -> pb.ModelStatistics:
    """One version's statistics since the server started."""
    counters = served.counters
    counters.settle()
    message = pb.ModelStatistics(
        name=served.name,
        version=served.version,
        last_inference=counters.last_inference_ms,
        inference_count=counters.inference_count,
        execution_count=counters.execution_count,
        inference_stats=pb.InferStatistics(
            success=_duration(counters.success),
            fail=_duration(counters.fail),
            queue=_total(counters.queue),
            compute_input=_total(counters.compute_input),
            compute_infer=_total(counters.compute_infer),
            compute_output=_total(counters.compute_output),
            cache_hit=pb.StatisticDuration(),
            cache_miss=pb.StatisticDuration(),
        ),
        memory_usage=[pb.MemoryUsage(type="MODEL_FILE", byte_size=served.memory_bytes)],
    )
    for size in sorted(counters.batches):
        batch = counters.batches[size]
        message.batch_stats.add(
            batch_size=size,
            compute_input=_duration(batch.compute_input),
            compute_infer=_duration(batch.compute_infer),
            compute_output=_duration(batch.compute_output),
        )
    return message


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)


def _total(histogram: Histogram) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=sum(histogram.counts), ns=histogram.ns)
