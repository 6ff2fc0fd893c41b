# SPDX-License-Identifier: Apache-2.0
"""The soak, shortly: each fault once."""

import random
import time
from pathlib import Path

import pytest

from tests.e2e import soak
from tests.e2e.server_process import serving

QUICK = sorted({*soak.FATAL, *soak.PASSING, "kill -9", "operator reset"} - {"reset fails once"})


def test_no_fault_fails_a_request_or_gives_a_wrong_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = soak.CardProcess(tmp_path)
    card.start()
    report = soak.Report()
    options = (f"--card=vfio-user:{card.socket}", "--card-control", "--shadow-share=0.05")
    try:
        with (
            serving(soak.DIGITS / "model_repository", *options) as served,
            soak.loaded(served.grpc) as load,
        ):
            agitator = soak.Agitator(card, served, random.Random(1))
            for name in QUICK:
                agitator.suffer(name, report)
            before = sum(load.devices.values())
            while sum(load.devices.values()) < before + 100:
                time.sleep(0.01)
    finally:
        card.kill()
    assert report.print(load), capsys.readouterr().out
    assert report.faults.keys() == set(QUICK)
    assert load.devices["card"] and load.devices["onnxruntime"]
