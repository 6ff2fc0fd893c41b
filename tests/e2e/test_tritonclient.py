# SPDX-License-Identifier: Apache-2.0
"""Stock tritonclient against a real server: every method, sync, asyncio and stream."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.server_process import Served

CLIENT = Path(__file__).with_name("stock_client.py")


@pytest.mark.parametrize("flavour", ["sync", "stream", "aio"])
def test_stock_client(served: Served, flavour: str) -> None:
    done = subprocess.run(
        [sys.executable, CLIENT, served.grpc, flavour],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\nserver:\n{served.log}"
    prefix = {"stream": "case_stream", "aio": "case_aio"}.get(flavour, "case_(?!stream|aio)")
    written = re.findall(rf"^(?:async )?def ({prefix}\w*)", CLIENT.read_text(), re.MULTILINE)
    assert re.findall(r"ok (\w+)", done.stdout) == written
