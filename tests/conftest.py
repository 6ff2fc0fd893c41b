# SPDX-License-Identifier: Apache-2.0
"""`pytest --isa avx2`: every card that a test opens without a word on it is held to that set."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from device.binding import Card
from device.binding.card import IsaName
from tests.device.binding import card_process
from tests.e2e import server_process


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--isa",
        choices=get_args(IsaName),
        default="auto",
        help="Hold the tests' cards to an instruction set, where a test does not choose one.",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    """A set that the machine lacks is an error of the command line, not of each test."""
    try:
        Card.open(isa=session.config.getoption("--isa")).close()
    except ValueError as error:
        raise pytest.UsageError(f"--isa: {error}") from None


@pytest.fixture(scope="session", autouse=True)
def _default_isa(pytestconfig: pytest.Config) -> Iterator[None]:
    held: str = pytestconfig.getoption("--isa")
    product = Card.open.__func__  # type: ignore[attr-defined]

    def opened(cls: type[Card], /, kind: str = "inproc", *, isa: str = "auto", **rest: Any) -> Card:
        own = kind == "inproc"  # a card in another process is held by whoever starts that
        card: Card = product(cls, kind, isa=held if own and isa == "auto" else isa, **rest)
        return card

    with pytest.MonkeyPatch.context() as patch:
        if held != "auto":
            patch.setattr(Card, "open", classmethod(opened))
            patch.setattr(server_process, "ISA", held)
            patch.setattr(card_process, "ISA", held)
        yield
