# SPDX-License-Identifier: Apache-2.0
"""The table of steps: whole, and a run cut short anywhere goes on."""

from itertools import product
from pathlib import Path

import pytest

from firmware_bridge.update.steps import (
    ENDS,
    MEANINGS,
    TABLE,
    Event,
    Occupied,
    Slot,
    Slots,
    Step,
    document,
    follow,
    plan,
    steps_ahead,
)

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32


def slots(*found: Slot) -> Slots:
    return Slots(found)


def active(sha: bytes, *, confirmed: bool = True) -> Slot:
    return Slot(0, "1.0.0", sha, active=True, confirmed=confirmed)


def second(sha: bytes, *, pending: bool = False, confirmed: bool = False) -> Slot:
    return Slot(1, "1.1.0", sha, pending=pending, confirmed=confirmed)


def test_every_step_has_a_meaning_and_leads_to_an_end() -> None:
    assert set(MEANINGS) == set(Step)
    assert set(TABLE) == set(Step) - ENDS
    reached, todo = {Step.INSPECT}, [Step.INSPECT]
    while todo:
        for following in TABLE.get(todo.pop(), {}).values():
            if following not in reached:
                reached.add(following)
                todo.append(following)
    assert reached == set(Step)


def test_every_event_is_used() -> None:
    assert {event for moves in TABLE.values() for event in moves} == set(Event)


def test_document_is_drawn_from_the_table() -> None:
    path = Path("docs/flash-states.md")
    assert path.read_text(encoding="utf-8") == document()


@pytest.mark.parametrize(
    ("found", "event"),
    [
        (slots(active(OLD)), Event.NEEDED),
        (slots(), Event.NEEDED),
        (slots(active(OLD), second(OTHER)), Event.NEEDED),
        (slots(active(OLD), second(NEW)), Event.UPLOADED),
        (slots(active(OLD), second(NEW, pending=True)), Event.MARKED),
        (slots(active(OLD), second(OTHER, pending=True)), Event.STRAY),
        (slots(active(NEW, confirmed=False), second(OLD, confirmed=True)), Event.ON_TRIAL),
        (slots(active(NEW)), Event.CURRENT),
        (slots(active(NEW), second(OLD)), Event.CURRENT),
        (slots(active(NEW), second(OTHER, pending=True)), Event.STRAY),
    ],
)
def test_what_the_slots_call_for(found: Slots, event: Event) -> None:
    assert plan(found, NEW) is event


@pytest.mark.parametrize("fallback", [NEW, OLD])
def test_somebody_elses_trial_is_left_alone(fallback: bytes) -> None:
    with pytest.raises(Occupied):
        plan(slots(active(OTHER, confirmed=False), second(fallback, confirmed=True)), NEW)


@pytest.mark.parametrize(
    ("event", "first"),
    [
        (Event.NEEDED, Step.UPLOAD),
        (Event.UPLOADED, Step.DRAIN),
        (Event.MARKED, Step.DRAIN),
        (Event.ON_TRIAL, Step.TAKE_BACK),
        (Event.CURRENT, Step.SETTLE),
    ],
)
def test_a_run_goes_on_where_the_slots_say(event: Event, first: Step) -> None:
    ahead = steps_ahead(event)
    assert ahead[0] is first
    if event is not Event.CURRENT:
        assert ahead[-1] is Step.CONFIRM
        assert Step.REVERT not in ahead


def test_a_sick_card_is_drained_before_it_goes_back() -> None:
    step, took = follow(Step.HEALTH, Event.SICK), []
    while step not in ENDS:
        took.append(step)
        step = follow(step, next(iter(TABLE[step])))
    assert took == [Step.WITHDRAW, Step.REVERT, Step.RETURN, Step.RESTORE]
    assert step is Step.REVERTED


FLAGS = list(product([False, True], repeat=3))


@pytest.mark.parametrize("first", [OLD, NEW, None])
@pytest.mark.parametrize("other", [OLD, NEW, OTHER, None])
def test_whatever_the_slots_hold_there_is_a_way_on(
    first: bytes | None, other: bytes | None
) -> None:
    """Or another image is on trial; also where a card reports flags that make no sense."""
    for one, two in product(FLAGS, FLAGS):
        held = [Slot(n, "1.0", sha, *f) for n, sha, f in ((0, first, one), (1, other, two)) if sha]
        try:
            event = plan(slots(*held), NEW)
        except Occupied:
            assert any(slot.on_trial and slot.sha != NEW for slot in held)
            continue
        assert event in TABLE[Step.CHECK]
