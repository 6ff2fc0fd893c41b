# SPDX-License-Identifier: Apache-2.0
"""What a model can be in on its way to a node: one table, from which docs/sync-states.md is drawn.

python -m edge_server.sync.states docs/sync-states.md
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final


class SyncState(StrEnum):
    """See MEANINGS."""

    ASSIGNED = "assigned"
    FILLING = "filling"
    STAGED = "staged"
    VERIFYING = "verifying"
    CURRENT = "current"
    WAITING = "waiting"
    REFUSED = "refused"
    ROLLED_BACK = "rolled back"


class SyncEvent(StrEnum):
    """What happens to a model on its way."""

    STARTED = "started"  # its turn has come
    FILLED = "filled"  # every blob is in the store, and is what its digest says
    DEPLOYED = "deployed"  # its files lie in a folder of their own
    SWITCHED = "switched"  # its golden vectors pass on this node, and requests go to it
    FAILED = "failed"  # for a reason that may pass: a network, a disk
    UNFIT = "unfit"  # for a reason that lies in the package
    RETRIED = "retried"  # the pause is over
    CHANGED = "changed"  # another package is desired
    WITHDRAWN = "withdrawn"  # an operator wants the one before


MEANINGS: Final = MappingProxyType(
    {
        SyncState.ASSIGNED: "The registry wants this package here; its turn has not come.",
        SyncState.FILLING: "Its blobs are on their way into the store.",
        SyncState.STAGED: "All are there, each checked against its digest.",
        SyncState.VERIFYING: "It is loaded beside the one in service and answers its golden "
        "vectors, on this node's own card.",
        SyncState.CURRENT: "Requests go to it; the one before is kept for a rollback.",
        SyncState.WAITING: "It failed for a reason that may pass. The next attempt follows after "
        "a pause that doubles from 1 s to 5 minutes, with jitter; what was fetched is kept.",
        SyncState.REFUSED: "It does not do what its golden vectors say, or is not a package that "
        "this node can run. It is not tried again; the one before serves on.",
        SyncState.ROLLED_BACK: "An operator went back to the one before. It stays so until the "
        "registry wants yet another package.",
    }
)

_S, _E = SyncState, SyncEvent
_ANEW = {_E.CHANGED: _S.ASSIGNED}
_TROUBLE = {_E.FAILED: _S.WAITING, _E.UNFIT: _S.REFUSED, **_ANEW}

TABLE: Final = MappingProxyType(
    {
        _S.ASSIGNED: {_E.STARTED: _S.FILLING, **_ANEW},
        _S.FILLING: {_E.FILLED: _S.STAGED, **_TROUBLE},
        _S.STAGED: {_E.DEPLOYED: _S.VERIFYING, **_TROUBLE},
        _S.VERIFYING: {_E.SWITCHED: _S.CURRENT, **_TROUBLE},
        _S.CURRENT: {_E.WITHDRAWN: _S.ROLLED_BACK, **_ANEW},
        _S.WAITING: {_E.RETRIED: _S.ASSIGNED, **_ANEW},
        _S.REFUSED: _ANEW,
        _S.ROLLED_BACK: _ANEW,
    }
)
"""The state that follows a state and an event; an event that a state does not know is a defect."""


def document() -> str:
    """docs/sync-states.md."""
    edges = [(f, e, t) for f, moves in TABLE.items() for e, t in moves.items()]
    ids = {state: state.replace(" ", "_") for state in SyncState}
    drawn = "\n".join(f"    {ids[f]} --> {ids[t]}: {e}" for f, e, t in edges if e not in _ANEW)
    follows = {s: ", ".join(f"{e} → {t}" for e, t in moves.items()) for s, moves in TABLE.items()}
    rows = "\n".join(f"| {s} | {text} | {follows[s]} |" for s, text in MEANINGS.items())
    return f"""# A model on its way to a node

<!-- Drawn by `make gen` from the table in edge_server/sync/states.py; do not edit. -->

Each model that the registry wants a node to run is in one of these states; whatever it is in, the
package that was current before serves on. Each change is one line of the log,
`tepi_sync_model_state` tells the state to Prometheus, and `tepi sync status` shows it.

```mermaid
stateDiagram-v2
    [*] --> assigned
{drawn}
```

Not drawn: from every state a package that *changed* leads to assigned.

| state | what it means | what follows |
|---|---|---|
{rows}
"""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
