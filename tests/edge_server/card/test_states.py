# SPDX-License-Identifier: Apache-2.0
"""The table of the card's states: whole, connected, and what the docs show."""

from pathlib import Path

from edge_server.card.states import MEANINGS, TABLE, CardEvent, CardState, document

ROOT = Path(__file__).resolve().parents[3]


def test_every_state_has_a_row_and_a_meaning() -> None:
    assert set(TABLE) == set(MEANINGS) == set(CardState)
    used = {event for moves in TABLE.values() for event in moves}
    assert used == set(CardEvent)


def test_a_card_comes_back_from_everywhere_only_through_probation() -> None:
    for state in set(CardState) - {CardState.NONE}:
        reached, line = {state}, [state]
        while line:
            for after in TABLE[line.pop()].values():
                if after not in reached:
                    reached.add(after)
                    line.append(after)
        assert CardState.READY in reached
    before_ready = {s for s, moves in TABLE.items() if CardState.READY in moves.values()}
    assert before_ready == {CardState.PROBATION}


def test_a_card_may_leave_or_be_taken_away_at_any_time() -> None:
    for state in set(CardState) - {CardState.NONE}:
        assert TABLE[state][CardEvent.TAKEN_AWAY] is CardState.ABSENT
        if state is not CardState.ABSENT:
            assert TABLE[state][CardEvent.LEFT] is CardState.ABSENT


def test_the_docs_are_drawn_from_it() -> None:
    assert (ROOT / "docs" / "card-states.md").read_text(encoding="utf-8") == document()
