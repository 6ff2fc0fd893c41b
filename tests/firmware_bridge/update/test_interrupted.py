# SPDX-License-Identifier: Apache-2.0
"""An update cut short: power cuts in every flash operation, the tool killed at every step, the plug
pulled; the same command again finishes."""

from pathlib import Path
from random import Random

import pytest

from firmware_bridge.controller.injected import Injected
from firmware_bridge.errors import BridgeError, CardSilent, CardVanished
from firmware_bridge.history import History
from firmware_bridge.update.errors import NotBack, Reverted
from firmware_bridge.update.steps import Step
from tests.firmware_bridge.controller.bench_board import SERIAL, firmware
from tests.firmware_bridge.update.emulated_card import (
    WHOLE,
    Diary,
    EmulatedCard,
    FakeServer,
    Killed,
    updating,
)

NEW = firmware("1.1.0", 2)


@pytest.mark.parametrize("step", WHOLE)
def test_tool_killed_at_a_step_finishes_when_run_again(
    card: EmulatedCard, history: History, step: Step
) -> None:
    server = FakeServer()
    with pytest.raises(Killed):
        updating(card, NEW, history, Diary(kill_at=step), server=server).run()
    card.sleep(1.0)  # a reset that was told finishes without the tool
    outcome = updating(card, NEW, history, server=server).run()
    assert outcome.end is Step.DONE and card.running == "1.1.0"
    assert server.calls.count("drain") == 0 or server.calls.index("drain") < len(
        server.calls
    ) - 1 - server.calls[::-1].index("take back"), "what was drained was taken back after"
    assert history.left_drained(SERIAL) == ""


@pytest.mark.parametrize("step", WHOLE[2:])
def test_power_cut_and_tool_killed_at_a_step_finishes_when_run_again(
    card: EmulatedCard, history: History, step: Step
) -> None:
    with pytest.raises(Killed):
        updating(card, NEW, history, Diary(kill_at=step)).run()
    card.cut_power()
    assert card.running in {"1.0.0", "1.1.0"}
    assert updating(card, NEW, history).run().end is Step.DONE
    assert card.running == "1.1.0"


def test_interrupted_run_gives_the_card_back(card: EmulatedCard, history: History) -> None:
    server = FakeServer()

    class Interrupted(Diary):
        def step(self, card: str, step: Step, text: str) -> None:
            if step is Step.TEST:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        updating(card, NEW, history, Interrupted(), server=server).run()
    assert server.calls == ["drain", "take back"]


def worn_card(path: Path) -> EmulatedCard:
    """Its second slot holds something else, which an upload erases first."""
    card = EmulatedCard(path)
    with pytest.raises(Killed):
        updating(
            card, firmware("1.5.0", 2), History(path.parent / "old"), Diary(kill_at=Step.DRAIN)
        ).run()
    return card


def count_of_operations(tmp_path: Path) -> int:
    card = worn_card(tmp_path / "count.flash")
    before = card.operations
    updating(card, NEW, History(tmp_path / "count")).run()
    card.flash.close()
    return card.operations - before


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_power_cut_at_every_flash_operation_of_an_update(tmp_path: Path, share: float) -> None:
    """The run may end with an error, never with a card that does not boot what is signed; the same
    command again finishes."""
    total = count_of_operations(tmp_path)
    assert total > 50
    for number in range(1, total + 1):
        card = worn_card(tmp_path / f"{number}.flash")
        card.cuts, card.cut_share = {card.operations + number}, share
        history = History(tmp_path / f"h{number}")
        try:
            updating(card, NEW, history).run()
        except BridgeError as error:
            assert SERIAL in str(error) or "/dev/card0" in str(error)
            assert card.running in {"1.0.0", "1.1.0"}
            assert updating(card, NEW, history).run().end is Step.DONE
        assert card.running == "1.1.0", number
        assert card.power_cuts == 1, number
        card.flash.close()
        card.path.unlink()


def test_power_cut_at_random_twice_in_an_update(tmp_path: Path) -> None:
    chance = Random(6)
    total = count_of_operations(tmp_path)
    for number in range(60):
        card = worn_card(tmp_path / f"{number}.flash")
        card.cut_share = chance.random()
        first = card.operations + chance.randrange(1, total)
        card.cuts = {first, first + chance.randrange(1, 20)}
        history = History(tmp_path / f"h{number}")
        for _ in range(4):
            try:
                updating(card, NEW, history).run()
                break
            except BridgeError:
                assert card.running in {"1.0.0", "1.1.0"}
        assert card.running == "1.1.0", number
        card.flash.close()
        card.path.unlink()


class Pulling(Diary):
    """Pulls the plug in mid-upload."""

    def __init__(self, card: EmulatedCard) -> None:
        super().__init__()
        self.card = card
        self.first = -1

    def progress(self, card: str, done: int, total: int) -> None:
        if self.first < 0:
            self.first = done
        if done > total // 2:
            self.card.plugged = False


def test_card_pulled_out_in_mid_upload(card: EmulatedCard, history: History) -> None:
    with pytest.raises(CardVanished, match=f"card {SERIAL} at /dev/card0: upload:") as caught:
        updating(card, NEW, history, Pulling(card)).run()
    assert caught.value.exit_code == 18
    assert "run the same command again" in caught.value.remedy
    card.plugged = True
    again = Pulling(card)
    with pytest.raises(CardVanished):
        updating(card, NEW, history, again).run()
    assert again.first > len(NEW) // 2, "it went on where it was"
    card.plugged = True
    assert updating(card, NEW, history).run().end is Step.DONE


class Crashing(Diary):
    """The new firmware restarts by itself before it is confirmed, so often."""

    def __init__(self, card: EmulatedCard, times: int) -> None:
        super().__init__()
        self.card = card
        self.times = times

    def step(self, card: str, step: Step, text: str) -> None:
        super().step(card, step, text)
        if step is Step.CONFIRM and self.times:
            self.times -= 1
            self.card.cut_power()


def test_power_cut_before_confirm_does_not_confirm_the_firmware_before(
    card: EmulatedCard, history: History
) -> None:
    diary = Crashing(card, 1)
    assert updating(card, NEW, history, diary).run().end is Step.DONE
    assert diary.steps.count(Step.RESET) == 2
    assert card.running == "1.1.0"


def test_firmware_that_restarts_before_every_confirm_is_given_up(
    card: EmulatedCard, history: History
) -> None:
    with pytest.raises(Reverted, match=r"it restarted, twice.*the card runs 1\.0\.0"):
        updating(card, NEW, history, Crashing(card, 5)).run()
    assert card.running == "1.0.0"


def test_card_that_does_not_come_back(card: EmulatedCard, history: History) -> None:
    class Pulled(Diary):
        def step(self, name: str, step: Step, text: str) -> None:
            card.plugged = step is not Step.WAIT

    server = FakeServer()
    with pytest.raises(NotBack, match=r"no such port|gone") as caught:
        updating(card, NEW, history, Pulled(), server=server).run()
    assert caught.value.exit_code == 17
    assert "switch its power off and on" in caught.value.remedy
    assert server.calls == ["drain", "take back"]
    card.plugged = True
    assert updating(card, NEW, history).run().end is Step.DONE


def test_silent_card(card: EmulatedCard, history: History, tmp_path: Path) -> None:
    silent = EmulatedCard(tmp_path / "silent.flash", Injected(wedge_after=0))
    with pytest.raises(CardSilent, match="card /dev/card0: ") as caught:
        updating(silent, NEW, history).run()
    assert caught.value.exit_code == 17
    silent.flash.close()
