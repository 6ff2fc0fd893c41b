# SPDX-License-Identifier: Apache-2.0
"""Everything that an operator can set, read once at start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_server.sync.settings import SyncSettings

DEFAULT_QUEUE_SIZE = 4096
DEFAULT_CARD_DEADLINE_MS = 250
DEFAULT_SHADOW_SHARE = 0.001
DEFAULT_SHADOW_LIMIT = 3


@dataclass(frozen=True, slots=True)
class Settings:
    """One server's settings. Addresses are HOST:PORT or unix:PATH; port 0 takes a free one."""

    model_repository: Path
    grpc_address: str = "127.0.0.1:8001"
    metrics_address: str = "127.0.0.1:8002"  # empty: no HTTP side
    card: str = "inproc"  # the card, as Card.open names it, or "none"
    isa: str = "auto"  # the instruction set that the software card is held to
    threads: int = 1  # of the software card, and of each onnxruntime session
    card_control: bool = False
    controller: str = ""  # the port of the card's management controller; empty: none
    card_deadline_ms: int = DEFAULT_CARD_DEADLINE_MS  # least that the card has for a request
    shadow_share: float = (
        DEFAULT_SHADOW_SHARE  # of the card's answers that onnxruntime checks afterwards
    )
    shadow_limit: int = DEFAULT_SHADOW_LIMIT  # wrong ones in 100 that end the trust in the card
    shadow_samples: Path | None = None  # where wrong answers are kept
    load_models: tuple[str, ...] | None = None  # None: every model of the repository
    max_queue_size: int = (
        DEFAULT_QUEUE_SIZE  # requests that wait for one model, unless its configuration says
    )
    inline_limit_us: int = 200  # runs cheaper than this take place on the event loop
    identity: Path | None = None  # the node's certificate: gRPC speaks mutual TLS with it
    sync: SyncSettings | None = (
        None  # what the models folder follows, with `model_repository` in it
    )
    drain_seconds: float = 30.0  # how long requests under way may take once told to stop
