# SPDX-License-Identifier: Apache-2.0
"""A vendor's cards, an authority that knows them, and its rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_bridge.provision.admission import Admission
from firmware_bridge.provision.authority import Authority
from tests.firmware_bridge.provision.cards import Vendor
from tests.firmware_bridge.provision.running import FakeClock, authority


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def ca(tmp_path: Path, clock: FakeClock, vendor: Vendor) -> Iterator[Authority]:
    with authority(tmp_path, clock, (vendor.file(tmp_path),)) as made:
        yield made


@pytest.fixture
def rules(ca: Authority) -> Admission:
    return Admission(ca)
