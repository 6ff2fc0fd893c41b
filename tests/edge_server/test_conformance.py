# SPDX-License-Identifier: Apache-2.0
"""Every method of the protocol as stock tritonclient calls it: blocking, asyncio and stream, over
TCP and over a UNIX socket."""

import asyncio
import re
import sys
from pathlib import Path

import pytest
from onnx import TensorProto

from edge_server.app import Server, product_parts
from edge_server.settings import Settings
from tests.edge_server import onnx_models as models

CASES = Path(__file__).with_name("triton_cases.py")


@pytest.mark.parametrize("over", ["tcp", "unix"])
async def test_stock_client(tmp_path: Path, over: str) -> None:
    repository = tmp_path / "models"
    models.put(repository, "scale", models.scale(2))
    models.put(repository, "add", models.add(), "max_batch_size: 4")
    models.put(repository, "half", models.identity(TensorProto.FLOAT16))
    models.put(repository, "words", models.identity(TensorProto.STRING))
    models.put(repository, "truth", models.identity(TensorProto.BOOL))
    address = "127.0.0.1:0" if over == "tcp" else f"unix:{tmp_path / 's'}"
    server = Server(
        Settings(repository, grpc_address=address, metrics_address="", card="none"),
        product_parts(),
    )
    await server.start()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, CASES, server.grpc_address, repository),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(120):
            output, _ = await process.communicate()
    finally:
        await server.stop()
    said = output.decode()
    assert process.returncode == 0, said
    written = re.findall(r"^(?:async )?def (case_\w+|stream_\w+)", CASES.read_text(), re.MULTILINE)
    assert len(written) >= 12
    for name in written:
        clients = ["blocking", "asyncio"] if name.startswith("case_") else [""]
        for client in clients:
            assert f"ok {name} {client}".rstrip() in said, said
    assert "ok typed" in said
