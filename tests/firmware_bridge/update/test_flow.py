# SPDX-License-Identifier: Apache-2.0
"""An update against an emulated controller: the whole way, cut short anywhere, and gone back on."""

from pathlib import Path

import pytest

from firmware_bridge.controller.faultlog import Code
from firmware_bridge.errors import BridgeError
from firmware_bridge.history import History
from firmware_bridge.image import parse_image
from firmware_bridge.update.errors import Reverted, TrialRuns
from firmware_bridge.update.steps import Event, Step
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


def test_card_that_its_server_does_not_get_back_goes_back(
    card: EmulatedCard, history: History
) -> None:
    server = FakeServer(refusals=1)
    with pytest.raises(Reverted, match=r"did not pass: the card does not answer on its bus"):
        updating(card, NEW, history, server=server).run()
    assert card.running == "1.0.0"
    assert server.calls == ["drain", "take back", "drain", "take back"]


def test_card_that_went_back_and_whose_server_is_gone(card: EmulatedCard, history: History) -> None:
    with pytest.raises(Reverted, match="the server has not taken the card back"):
        updating(card, NEW, history, server=FakeServer(refusals=2)).run()
    assert card.running == "1.0.0"


def test_server_that_does_not_drain_keeps_the_card_as_it_is(
    card: EmulatedCard, history: History
) -> None:
    class Stubborn(FakeServer):
        def drain(self) -> None:
            super().drain()
            raise BridgeError("requests are still running")

    with pytest.raises(BridgeError, match="drain: requests are still running") as caught:
        updating(card, NEW, history, server=Stubborn()).run()
    assert "run the same command again" in caught.value.remedy
    card.cut_power()
    assert card.running == "1.0.0"
    assert updating(card, NEW, history, server=FakeServer()).run().end is Step.DONE


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
