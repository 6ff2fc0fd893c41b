# SPDX-License-Identifier: Apache-2.0
"""/metrics in the words of existing dashboards, and what else HTTP answers."""

import asyncio
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from edge_server.app import Server
from edge_server.processor import cpu_seconds, memory_bytes
from tests.edge_server import onnx_models as models
from tests.edge_server.fakes import Bench, gone
from tests.edge_server.running import request, running

X = np.array([1, 2], np.float32)
SCALE = {"model": "scale", "version": "1"}


async def http(server: Server, text: str) -> tuple[str, str]:
    """(head, body) of the answer to this request."""
    host, port = server.metrics_address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text.encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return head, body


async def get(server: Server, path: str) -> tuple[str, str]:
    """(status line, body) of a GET."""
    head, body = await http(server, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
    return head.split("\r\n")[0], body


async def samples(server: Server) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of /metrics by name and labels. (The parser adds _total to counters.)"""
    _, body = await get(server, "/metrics")
    return {
        (_own_name(s.name), tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(body)
        for s in family.samples
    }


def _own_name(name: str) -> str:
    return name.removesuffix("_total") if name.startswith("nv_") else name


async def test_counters_say_what_happened(tmp_path: Path) -> None:
    models.put(tmp_path, "scale", models.scale(2))
    bench = Bench()
    async with running(tmp_path, bench.parts(), card="inproc", metrics_address="127.0.0.1:0") as (
        server,
        call,
    ):
        for _ in range(3):
            await call.infer(request("scale", {"x": X}))
        await call.refusal(request("scale", {"x": np.ones(3, np.float32)}))
        bench.card.alive = False
        bench.card.absent = True
        bench.open_error = gone()
        await call.infer(request("scale", {"x": X}))
        seen = await samples(server)

        def value(name: str, **labels: str) -> float:
            return seen[name, tuple(sorted((SCALE | labels).items()))]

        assert value("nv_inference_request_success") == 4
        assert value("nv_inference_count") == value("nv_inference_exec_count") == 4
        assert value("nv_inference_request_failure", reason="OTHER") == 1
        for reason in ("REJECTED", "CANCELED", "BACKEND"):
            assert value("nv_inference_request_failure", reason=reason) == 0
        assert value("nv_inference_pending_request_count") == 0
        assert value("nv_model_load_duration_secs") > 0
        total = value("nv_inference_request_duration_us")
        parts = ("queue", "compute_input", "compute_infer", "compute_output")
        spent = sum(value(f"nv_inference_{part}_duration_us") for part in parts)
        assert round(total, 3) >= round(spent, 3) > 0  # microseconds; whole nanoseconds were added
        assert value("tepi_fallback_total", reason="card_gone") == 1
        for phase in ("request", *parts):
            assert value(f"tepi_{phase}_seconds_count") == 4
            assert value(f"tepi_{phase}_seconds_bucket", le="+Inf") == 4
        bus = (("bus", "inproc"),)
        assert seen["tepi_card_losses_total", bus] == 1
        assert seen["tepi_card_state", (*bus, ("state", "absent"))] == 1
        assert seen["tepi_card_state", (*bus, ("state", "ready"))] == 0
        assert seen["tepi_card_faults_total", (*bus, ("code", "64"))] >= 1
        assert 0 <= seen["nv_cpu_utilization", ()] <= 1
        assert seen["nv_cpu_memory_total_bytes", ()] > seen["nv_cpu_memory_used_bytes", ()] > 0


async def test_nv_counters_are_typed_by_their_own_name(tmp_path: Path) -> None:
    models.put(tmp_path, "scale", models.scale(2))
    async with running(tmp_path, metrics_address="127.0.0.1:0") as (server, _):
        _, body = await get(server, "/metrics")
        assert "# TYPE nv_inference_request_success counter\n" in body
        assert "# TYPE tepi_fallback_total counter\n" in body
        assert "nv_inference_count_total" not in body


async def test_pages_and_wrong_requests(tmp_path: Path) -> None:
    async with running(tmp_path, metrics_address="127.0.0.1:0") as (server, _):
        assert await get(server, "/livez") == ("HTTP/1.1 200 OK", "live\n")
        assert await get(server, "/readyz?x=1") == ("HTTP/1.1 200 OK", "ready\n")
        assert (await get(server, "/"))[0] == "HTTP/1.1 200 OK"
        assert (await get(server, "/secret"))[0] == "HTTP/1.1 404 Not Found"
        server.phase.ready = False
        assert (await get(server, "/readyz"))[0] == "HTTP/1.1 503 Service Unavailable"
        head, body = await http(server, "HEAD /metrics HTTP/1.1\r\n\r\n")
        assert head.startswith("HTTP/1.1 200") and body == ""
        head, _ = await http(server, "POST /metrics HTTP/1.1\r\n\r\n")
        assert head.startswith("HTTP/1.1 405")
        head, _ = await http(server, "nonsense\r\n\r\n")
        assert head.startswith("HTTP/1.1 400")
        assert await http(server, "GET / HTTP/1.1\r\n" + "a: b\r\n" * 20000 + "\r\n") == ("", "")
        assert (await get(server, "/livez"))[1] == "live\n"


async def test_metrics_on_a_unix_socket(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/m"
    async with running(tmp_path, metrics_address=address) as (server, _):
        assert server.metrics_address == address
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/m")
        writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
        assert (await reader.read()).endswith(b"live\n")
        writer.close()
        await writer.wait_closed()
    assert not (tmp_path / "m").exists()


def test_processor_reads_proc(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  10 1 5 80 4 0 0 0 7 7\ncpu0 1 1 1 1 1 1 1 1\n")
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 40 kB\n")
    assert cpu_seconds(tmp_path / "stat") == (16, 100)
    assert memory_bytes(tmp_path / "meminfo") == (60 * 1024, 100 * 1024)
