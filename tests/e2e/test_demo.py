# SPDX-License-Identifier: Apache-2.0
"""`make demo` as a person runs it: every promise it prints must hold."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_demo_keeps_its_promises() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.digits.demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == 8
    assert "Traceback" not in done.stdout + done.stderr
