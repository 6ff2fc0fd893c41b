# SPDX-License-Identifier: Apache-2.0
"""The bar for a node: at least 200 interruptions, by kill -9 and by power cuts that drop what
was not synced, at random points of fill, verify, switch and eviction. After each the node serves
the old release or the new one, its store verifies, and what had arrived is not fetched again.

    make destroy                                              210 interruptions
    python -m tests.e2e.destructive --interruptions 1000 --seed 7
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx

from device.host import open_session
from edge_server.store.view import StoreView
from edge_server.sync.settings import read_settings
from tests.e2e.doomed_node import BLOCK, CUT, Doomed, Order, Outcome, Request, doomed
from tests.e2e.registry_folder import Registry

_CYCLE = 7  # interruptions on the way to one release
_WEIGHTS = 3 << 20  # bytes beside the digits model's own, so that a fill has several blocks
_IMAGE = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8) % 17


@contextmanager
def releases(folder: Path) -> Iterator[Registry]:
    """A registry of three, none of which shares its weights with another."""
    found = Registry(folder)
    with found.serving():
        for release in (1, 2, 3):
            found.pack(str(release), release, extra=weights(release))
            found.vouch(str(release))
        found.desire("1")
        yield found


def weights(release: int) -> onnx.TensorProto:
    """What a large model has and the digits model lacks: megabytes. No node uses them."""
    data = np.random.default_rng(release).integers(0, 256, _WEIGHTS, np.uint8)
    return onnx.numpy_helper.from_array(data, "more_weights")


def served(models: Path) -> int:
    """The release that a server would answer with."""
    session = open_session(str(models / "digits" / "1" / "model.onnx"), 1)
    (answer,) = session.run(None, {"image": _IMAGE})
    assert (models / "digits" / "config.pbtxt").is_file()
    return round(float(answer.sum()))


def orders(rng: random.Random, steps: int) -> list[Order]:
    """How the next children die."""
    found = []
    for _ in range(_CYCLE):
        how = rng.choice(("kill", "cut", "cut", "time"))
        step = rng.randint(1, steps)
        found.append(Order(how, step, rng.uniform(0.001, 0.4), rng.getrandbits(32)))
    return found


def check_requests(before: list[Request], now: list[Request], how: str) -> None:
    """What had arrived of a blob is not asked for again, but for what was in flight: the last piece
    received, which may not have been written; with the power, a block that was not synced."""
    slack = BLOCK if how == "cut" else 0
    for request in now:
        had = [r.first + r.got - r.last for r in before if r.digest == request.digest]
        assert request.first >= max(had, default=0) - slack, (how, request, before)


def bring(
    node: Doomed, models: Path, old: int, new: int, doom: list[Order], ends: Counter[str]
) -> int:
    """One release, interrupted again and again, then not; the steps of the last."""
    done: list[Request] = []
    how = ""
    for order in [*doom, Order("run")]:
        outcome: Outcome = node.order(order)
        fetched = node.requests()
        check_requests(done, fetched, how)
        done += fetched
        assert served(models) in {old, new}, order
        damaged = StoreView.look(models.parent / "store").verify()
        assert damaged == [], order
        if outcome.code == 0:
            assert served(models) == new
        else:
            assert outcome.code < 0 or outcome.code == CUT, order
            ends[order.how] += 1
        how = order.how
    assert outcome.code == 0
    return outcome.steps


def destroy(folder: Path, interruptions: int, seed: int) -> Counter[str]:
    """So many interruptions; how often each kind. Raises AssertionError where one did harm."""
    rng = random.Random(seed)
    done: Counter[str] = Counter()
    with releases(folder) as registry:
        settings = registry.settings(folder / "node")
        # Room for three packages and a bit: eviction is on the way of each release.
        room = f"[store]\nmax_bytes = {_WEIGHTS * 7 // 2}\nreserve_bytes = 0\n"
        settings.write_text(settings.read_text() + room)
        models = read_settings(settings).models
        with doomed(settings) as node:
            assert node.order(Order("run")).code == 0
            node.requests()
            registry.desire("2")
            steps = bring(node, models, 1, 2, [], done)
            old = 2
            while done.total() < interruptions:
                new = old % 3 + 1
                registry.desire(str(new))
                bring(node, models, old, new, orders(rng, steps), done)
                old = new
    return done


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interruptions", type=int, default=210)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tepi-destroy-") as folder:
        done = destroy(Path(folder), chosen.interruptions, chosen.seed)
    kinds = ", ".join(f"{count} {how}" for how, count in sorted(done.items()))
    print(f"{done.total()} interruptions ({kinds}): old or new each time, nothing lost")


if __name__ == "__main__":
    main()
