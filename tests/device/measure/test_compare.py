# SPDX-License-Identifier: Apache-2.0
"""Engines take turns, and their times are told apart."""

from device.measure.compare import alternate


def test_engines_take_turns() -> None:
    order: list[str] = []

    def engine(name: str, steps: int) -> object:
        order.append(name)
        return sum(range(steps))

    found = alternate(
        {"quick": lambda: engine("quick", 10), "slow": lambda: engine("slow", 200_000)}, 0.0
    )
    assert found["quick"].runs == found["slow"].runs >= 10
    assert found["quick"].median_ms < found["slow"].median_ms
    for row in found.values():
        assert 0 < row.least_ms <= row.median_ms <= row.p90_ms <= row.p99_ms
    turns = [name for at, name in enumerate(order) if at == 0 or order[at - 1] != name]
    assert len(turns) >= 10
