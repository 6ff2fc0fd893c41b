# SPDX-License-Identifier: Apache-2.0
"""What a card can be in and what moves it: one table, from which docs/card-states.md is drawn.

python -m edge_server.card.states docs/card-states.md
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final


class CardState(StrEnum):
    """See MEANINGS."""

    NONE = "none"
    ABSENT = "absent"
    STARTING = "starting"
    PROBATION = "probation"
    READY = "ready"
    DEGRADED = "degraded"
    RESETTING = "resetting"
    FAILED = "failed"
    RESTING = "resting"


class CardEvent(StrEnum):
    """What happens to a card."""

    FOUND = "found"  # it answers on its bus
    LOADED = "loaded"  # the models' programs are on it, those that it takes
    PASSED = "passed"  # its answers are onnxruntime's
    DOUBTED = "doubted"  # its answers are not
    FAULTED = "faulted"  # a fault that only a reset mends, or one after the other
    LEFT = "left"  # it does not answer on its bus any more
    RETRIED = "retried"  # a reset is due, by the clock or an operator
    RESET = "reset"  # and done
    REFUSED = "refused"  # and failed
    GIVEN_UP = "given up"  # after so many
    TAKEN_AWAY = "taken away"  # by an operator, who will bring it back
    WITHHELD = "withheld"  # its controller says that it must rest, or its firmware is changed
    RELIEVED = "relieved"  # that is over


MEANINGS: Final = MappingProxyType(
    {
        CardState.NONE: "The server was started with `--card none`.",
        CardState.ABSENT: "Nothing answers on the bus. It is sought, ever more seldom, up to every "
        "30 s; where an operator took it away, not before they bring it back.",
        CardState.STARTING: "It answers; the models' programs are loaded onto it.",
        CardState.PROBATION: "Shadow requests run on it: made-up ones, and those that onnxruntime "
        "answered meanwhile. All answers must be onnxruntime's.",
        CardState.READY: "Requests run on it.",
        CardState.DEGRADED: "It faulted, or its answers were doubted. A reset follows, at once the "
        "first time, later after a pause that doubles from 0.1 s to 30 s.",
        CardState.RESETTING: "It is being reset.",
        CardState.FAILED: "Five resets in a row did not bring it back. One more is tried every "
        "5 minutes; `tepi card reset` tries at once and says what is wrong.",
        CardState.RESTING: "Its management controller reports heat or a power fault, or its "
        "firmware is being changed (`tepi card drain`). Runs under way finish; it is loaded and "
        "proven again once that is over.",
    }
)

_S, _E = CardState, CardEvent
_ANYWHERE = {_E.LEFT: _S.ABSENT, _E.TAKEN_AWAY: _S.ABSENT}
_REST = {_E.WITHHELD: _S.RESTING}
_UNTRUSTED = {_E.FAULTED: _S.DEGRADED, _E.DOUBTED: _S.DEGRADED}

TABLE: Final = MappingProxyType(
    {
        _S.NONE: {},
        _S.ABSENT: {_E.FOUND: _S.STARTING, _E.TAKEN_AWAY: _S.ABSENT},
        _S.STARTING: {_E.LOADED: _S.PROBATION, **_UNTRUSTED, **_REST, **_ANYWHERE},
        _S.PROBATION: {_E.PASSED: _S.READY, **_UNTRUSTED, **_REST, **_ANYWHERE},
        _S.READY: {_E.RETRIED: _S.RESETTING, **_UNTRUSTED, **_REST, **_ANYWHERE},
        _S.DEGRADED: {_E.RETRIED: _S.RESETTING, _E.GIVEN_UP: _S.FAILED, **_ANYWHERE},
        _S.RESETTING: {_E.RESET: _S.STARTING, _E.REFUSED: _S.DEGRADED, **_ANYWHERE},
        _S.FAILED: {_E.RETRIED: _S.RESETTING, **_ANYWHERE},
        _S.RESTING: {_E.RELIEVED: _S.STARTING, _E.RETRIED: _S.RESETTING, **_ANYWHERE},
    }
)
"""The state that follows a state and an event; an event that a state does not know is a defect."""


def document() -> str:
    """docs/card-states.md."""
    edges = [(f, e, t) for f, moves in TABLE.items() for e, t in moves.items()]
    drawn = "\n".join(f"    {f} --> {t}: {e}" for f, e, t in edges if e not in _ANYWHERE)
    follows = {s: ", ".join(f"{e} → {t}" for e, t in moves.items()) for s, moves in TABLE.items()}
    rows = "\n".join(f"| {s} | {text} | {follows[s] or '—'} |" for s, text in MEANINGS.items())
    return f"""# The states of a card

<!-- Drawn by `make gen` from the table in edge_server/card/states.py; do not edit. -->

While a card is *ready* requests run on it. In every other state a model with the policy `prefer` is
answered by onnxruntime (the model is *degraded*, and still ready), and one with `require` is
refused with UNAVAILABLE. Each change is one line of the log, `tepi card info` shows the state,
and `tepi_card_state` tells it to Prometheus.

```mermaid
stateDiagram-v2
    [*] --> absent
{drawn}
```

Not drawn: from every state a card that *left* its bus, or was *taken away*, is absent.

| state | what it means | what follows |
|---|---|---|
{rows}
"""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
