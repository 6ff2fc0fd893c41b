# SPDX-License-Identifier: Apache-2.0
"""Measures the serving path: requests a second and latency of `tepi serve` on the digits model.

    .venv/bin/python -m bench.serving [--seconds N]

A bare gRPC echo of the same bytes, in a process of its own, is measured beside it: what any Python
server could reach at most on this machine. The client shares the machine and so counts in both.
"""

import argparse
import asyncio
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from examples.digits.server import ServerProcess
from wire import inference_pb2 as pb

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples/digits"
INFER = "/inference.GRPCInferenceService/ModelInfer"
DEPTHS = (1, 16, 64)
ECHO = """
import asyncio, grpc, uvloop
async def echo(data, _context):
    return data
async def main():
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
        "inference.GRPCInferenceService", {"ModelInfer": handler}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()
uvloop.run(main())
"""


def request() -> bytes:
    """One held-out digit as a serialized ModelInferRequest."""
    with np.load(DIGITS / "held-out.npz") as file:
        image = file["images"][:1].astype(np.float32)
    message = pb.ModelInferRequest(model_name="digits")
    message.inputs.add(name="image", datatype="FP32", shape=[1, 1, 8, 8])
    message.raw_input_contents.append(image.tobytes())
    return message.SerializeToString()


async def closed_loop(
    call: Callable[[bytes], Awaitable[bytes]], data: bytes, depth: int, seconds: float
) -> list[float]:
    """Latencies in seconds of as many calls as `depth` loops make in that time."""
    end = time.perf_counter() + seconds
    taken: list[float] = []

    async def loop() -> None:
        while (started := time.perf_counter()) < end:
            await call(data)
            taken.append(time.perf_counter() - started)

    await asyncio.gather(*(loop() for _ in range(depth)))
    return taken


async def measure(address: str, data: bytes, seconds: float) -> dict[int, list[float]]:
    """Latencies by requests in flight, after a second of warming up."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(INFER)
        await closed_loop(call, data, 4, 1.0)
        return {depth: await closed_loop(call, data, depth, seconds) for depth in DEPTHS}


async def measure_echo(data: bytes, seconds: float) -> dict[int, list[float]]:
    """The same load against a server that does nothing."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ECHO, stdout=PIPE)
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        return await measure(f"127.0.0.1:{port}", data, seconds)
    finally:
        process.terminate()
        await process.wait()


async def measure_tepi(data: bytes, seconds: float) -> dict[int, list[float]]:
    """The load against `tepi serve`."""
    server = await ServerProcess.start(DIGITS / "model_repository")
    try:
        return await measure(server.address, data, seconds)
    finally:
        await server.stop()


async def run(seconds: float) -> None:
    """Measure both and print them side by side."""
    data = request()
    echo = await measure_echo(data, seconds)
    ours = await measure_tepi(data, seconds)
    table = Table(title="serving the digits model")
    for column in ("in flight", "requests/s", "of the echo", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for depth in DEPTHS:
        p50, p99 = np.percentile(np.array(ours[depth]) * 1e3, [50, 99])
        rate = len(ours[depth]) / seconds
        share = len(ours[depth]) / len(echo[depth])
        table.add_row(str(depth), f"{rate:,.0f}", f"{share:.2f}", f"{p50:.2f}", f"{p99:.2f}")
    Console().print(table)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="per measured point")
    uvloop.run(run(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
