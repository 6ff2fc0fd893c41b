# SPDX-License-Identifier: Apache-2.0
"""An update against an emulated controller: the whole way, cut short anywhere, and gone back on."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from firmware_bridge.controller.faultlog import Code
from firmware_bridge.controller.injected import Injected
from firmware_bridge.errors import BridgeError, CardSilent, CardVanished
from firmware_bridge.history import History
from firmware_bridge.image import parse_image
from firmware_bridge.update.errors import NotBack, Reverted, TrialRuns
from firmware_bridge.update.steps import Event, Step
from tests.firmware_bridge.controller.bench_board import SERIAL, firmware
from tests.firmware_bridge.update.emulated_card import (
    Diary,
    EmulatedCard,
    FakeServer,
    Killed,
    updating,
)

NEW = firmware("1.1.0", 2)
WHOLE = [
    Step.INSPECT,
    Step.CHECK,
    Step.UPLOAD,
    Step.DRAIN,
    Step.TEST,
    Step.RESET,
    Step.WAIT,
    Step.COMPARE,
    Step.TAKE_BACK,
    Step.HEALTH,
    Step.CONFIRM,
]


@pytest.fixture
def card(tmp_path: Path) -> Iterator[EmulatedCard]:
    found = EmulatedCard(tmp_path / "card.flash")
    yield found
    found.flash.close()


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def test_the_whole_way(card: EmulatedCard, history: History) -> None:
    diary, server = Diary(), FakeServer()
    outcome = updating(card, NEW, history, diary, server=server).run()
    assert diary.steps == WHOLE
    assert (outcome.card, outcome.end, outcome.changed) == (SERIAL, Step.DONE, True)
    assert (outcome.before, outcome.version, card.running) == ("1.0.0", "1.1.0", "1.1.0")
    assert server.calls == ["drain", "take back", "diagnose"]
    assert diary.most == len(NEW)
    card.cut_power()
    assert card.running == "1.1.0", "confirmed: a reset keeps it"
    done = [record.outcome for record in history.read(SERIAL)]
    assert done[0] == "began" and done[-1] == "confirmed"
    assert history.left_drained(SERIAL) == ""


def test_again_is_nothing_to_do(card: EmulatedCard, history: History) -> None:
    updating(card, NEW, history).run()
    before, diary, server = card.operations, Diary(), FakeServer()
    outcome = updating(card, NEW, history, diary, server=server).run()
    assert diary.steps == [Step.INSPECT, Step.CHECK, Step.SETTLE]
    assert not outcome.changed and server.calls == []
    assert card.operations == before


def test_plan_writes_nothing(card: EmulatedCard, history: History) -> None:
    before = card.operations
    plan = updating(card, NEW, history).plan()
    assert plan.event is Event.NEEDED
    assert list(plan.steps) == WHOLE[2:]
    assert card.operations == before and not history.folder.exists()


def test_left_on_trial_and_confirmed_by_the_next_run(card: EmulatedCard, history: History) -> None:
    outcome = updating(card, NEW, history, confirm=False).run()
    assert outcome.end is Step.ON_TRIAL and card.running == "1.1.0"
    diary = Diary()
    assert updating(card, NEW, history, diary).run().end is Step.DONE
    assert diary.steps == [*WHOLE[:2], Step.TAKE_BACK, Step.HEALTH, Step.CONFIRM]
    card.cut_power()
    assert card.running == "1.1.0"


def test_somebody_elses_trial_is_left_alone(card: EmulatedCard, history: History) -> None:
    updating(card, NEW, history, confirm=False).run()
    with pytest.raises(TrialRuns, match=r"card TC1-TEST.*runs 1\.1\.0 on trial") as caught:
        updating(card, firmware("1.2.0", 2), history).run()
    assert "tepi card revert" in caught.value.remedy


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


def test_bootloader_that_refuses_the_image(card: EmulatedCard, history: History) -> None:
    """The slot's content rots between upload and reset: only the bootloader can see that."""

    class Rotting(Diary):
        def step(self, name: str, step: Step, text: str) -> None:
            super().step(name, step, text)
            if step is Step.RESET:
                at = card.flash.layout.slots[1].start + 0x400
                card.flash.program(at, bytes(8))

    diary = Rotting()
    with pytest.raises(Reverted, match="its bootloader refused the image") as caught:
        updating(card, NEW, history, diary, server=FakeServer()).run()
    assert caught.value.exit_code == 20
    assert card.running == "1.0.0"
    assert diary.steps[-2:] == [Step.COMPARE, Step.RESTORE]


def test_rotten_image_of_an_earlier_run_is_uploaded_again(
    card: EmulatedCard, history: History
) -> None:
    with pytest.raises(Killed):
        updating(card, NEW, history, Diary(kill_at=Step.TEST)).run()
    card.flash.program(card.flash.layout.slots[1].start + 0x400, bytes(8))
    diary = Diary()
    assert updating(card, NEW, history, diary).run().end is Step.DONE
    assert Step.UPLOAD in diary.steps and card.running == "1.1.0"


def test_sick_card_goes_back_by_itself(card: EmulatedCard, history: History) -> None:
    diary, server = Diary(), FakeServer(ill="shadow requests differ")
    with pytest.raises(Reverted, match=r"shadow requests differ.*runs 1\.0\.0") as caught:
        updating(card, NEW, history, diary, server=server).run()
    assert caught.value.exit_code == 20
    assert card.running == "1.0.0"
    assert server.calls == ["drain", "take back", "diagnose", "drain", "take back"]
    assert diary.steps[-4:] == [Step.WITHDRAW, Step.REVERT, Step.RETURN, Step.RESTORE]
    assert history.read(SERIAL)[-1].step == "restore"


def test_new_firmware_that_crashes_goes_back(card: EmulatedCard, history: History) -> None:
    class Asserting(Diary):
        def step(self, name: str, step: Step, text: str) -> None:
            super().step(name, step, text)
            if step is Step.HEALTH:
                card.mcu.log.add(Code.ASSERTED, "assertion in fan.c:42")

    with pytest.raises(Reverted, match=r"stopped on an assertion \(assertion in fan\.c:42\)"):
        updating(card, NEW, history, Asserting()).run()
    assert card.running == "1.0.0"


def test_pending_stranger_is_cleared_first(card: EmulatedCard, history: History) -> None:
    with pytest.raises(Killed):
        updating(card, firmware("1.5.0", 2), history, Diary(kill_at=Step.RESET)).run()
    diary = Diary()
    updating(card, NEW, history, diary).run()
    assert diary.steps[:5] == [Step.INSPECT, Step.CHECK, Step.CLEAR, Step.INSPECT, Step.CHECK]
    assert card.running == "1.1.0"


def test_card_in_recovery_is_given_firmware(card: EmulatedCard, history: History) -> None:
    card.flash.program(0x400, bytes(8))
    card.cut_power()
    assert card.running == ""
    assert updating(card, NEW, history).run().end is Step.DONE
    assert card.running == "1.1.0"


def test_line_with_bit_errors(tmp_path: Path, history: History) -> None:
    """A lost answer to a reset is no reset: the card is told again, and no trial is lost."""
    card = EmulatedCard(tmp_path / "noisy.flash")
    drop = {"seen": 0}
    genuine = card.transfer

    def lossy(outgoing: bytes, timeout: float) -> bytes:
        drop["seen"] += 1
        if drop["seen"] % 3 == 0:
            card.sleep(timeout)
            return b""
        return genuine(outgoing, timeout)

    card.transfer = lossy  # type: ignore[method-assign]
    assert updating(card, NEW, history).run().end is Step.DONE
    assert card.running == "1.1.0"
    assert parse_image(NEW).hash.hex() == history.read()[-1].sha
    card.flash.close()


def test_history_that_fills_up_stops_before_the_card(card: EmulatedCard, tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "history.spare").symlink_to("/dev/full")
    before = card.operations
    with pytest.raises(BridgeError, match="no room for the history") as caught:
        updating(card, NEW, History(folder)).run()
    assert caught.value.exit_code == 19
    assert card.operations == before and card.running == "1.0.0"
