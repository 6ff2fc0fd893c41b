# SPDX-License-Identifier: Apache-2.0
"""A process that fills one blob and says how far it is, to be killed.

python -m tests.edge_server.fill.filling_process STORE URL NAME DIGEST SIZE
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge_server.fill.fill import Fill, Want
from edge_server.fill.fills import Fills
from edge_server.fill.origins import Origins
from edge_server.fill.source import Origin
from edge_server.store.store import Store
from registry.remote.client import Remote


def main() -> None:
    """Print the bytes that are here after each step."""
    folder, url, name, digest, size = sys.argv[1:]

    def tell(fill: Fill) -> None:
        print(fill.available, flush=True)

    with Store.open(Path(folder)) as store, Remote(url) as remote:
        fills = Fills(store, Origins([Origin("o0", url, remote)]))
        fill = fills.start(Want(name, digest, int(size)))
        fill.subscribe(tell)
        fill.wait()
        fills.stop()


if __name__ == "__main__":
    main()
