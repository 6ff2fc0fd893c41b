# SPDX-License-Identifier: Apache-2.0
"""The `tepi serve` and `tepi infer` commands."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import click
import uvloop

from edge_server import log
from edge_server.app import Server, product_parts
from edge_server.infer_command import infer
from edge_server.settings import (
    DEFAULT_CARD_DEADLINE_MS,
    DEFAULT_QUEUE_SIZE,
    DEFAULT_SHADOW_LIMIT,
    DEFAULT_SHADOW_SHARE,
    Settings,
)
from edge_server.sync.settings import read_settings

__all__ = ["infer", "serve"]

# How long the event loop may wait for the interpreter lock while a model is compiled beside it.
_LOCK_SECONDS = 0.0005
_EXAMPLES = """\b
Examples:
  tepi serve --model-repository models
  tepi serve --model-repository models --card none --grpc-address unix:/run/tepi.sock
  tepi serve --model-repository models --card vfio-user:/run/tepi/card.sock
  tepi serve --model-repository models --model-control-mode explicit --load-model digits
  tepi serve --sync /etc/tepi/sync.toml

\b
The repository holds <model>/<version>/model.onnx and, where you want one, <model>/config.pbtxt.
SIGTERM and SIGINT stop the server in order: it says that it is not ready, finishes the requests
under way and exits 0. It exits 1 where it cannot start: a repository that cannot be read, an
address in use.
"""


def _card_name(_context: click.Context, _option: click.Parameter, name: str) -> str:
    bus, _, where = name.partition(":")
    if name in ("inproc", "none") or (bus in ("vfio-user", "vfio") and where):
        return name
    raise click.BadParameter(f"{name!r} is none of inproc, vfio-user:PATH, vfio:ADDRESS, none")


card_option = click.option(
    "--card",
    "card_bus",
    callback=_card_name,
    default="inproc",
    show_default=True,
    metavar="NAME",
    help="The accelerator card: inproc, the software card; vfio-user:PATH, that of `tepi card "
    "serve`; vfio:ADDRESS, a PCIe card bound to vfio-pci; none at all.",
)


@click.command(epilog=_EXAMPLES)
@click.option(
    "--model-repository",
    type=click.Path(path_type=Path, readable=False),
    help="Folder of models.",
)
@click.option(
    "--sync",
    "sync_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="SETTINGS",
    help="Follow a registry, as this file says, and serve what it wants here (docs/sync.md).",
)
@click.option(
    "--grpc-address",
    default="127.0.0.1:8001",
    show_default=True,
    help="Where gRPC listens: HOST:PORT or unix:PATH; port 0 takes a free one.",
)
@click.option(
    "--identity",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Speak mutual TLS with the certificate that `tepi provision enroll` put here; it is "
    "renewed in time.  [default: plain text]",
)
@click.option(
    "--metrics-address",
    default="127.0.0.1:8002",
    show_default=True,
    help="Where HTTP /metrics, /livez and /readyz listen; '' for nowhere.",
)
@card_option
@click.option(
    "--controller",
    default="",
    metavar="PORT",
    help="The serial port of the card's management controller: its readings are shown, and the "
    "card rests where it reports heat or a power fault.  [default: none]",
)
@click.option(
    "--isa",
    type=click.Choice(["auto", "scalar", "avx2", "avx512vnni", "amxint8"]),
    default="auto",
    show_default=True,
    help="Hold the software card to an instruction set.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=None,
    help="Threads of the card and of each onnxruntime session.  [default: the "
    "processors, less one for the network]",
)
@click.option(
    "--card-control",
    is_flag=True,
    help="Let `tepi card reset`, `detach` and `attach` change the card: for maintenance.",
)
@click.option(
    "--card-deadline-ms",
    type=click.IntRange(1, 30000),
    default=DEFAULT_CARD_DEADLINE_MS,
    show_default=True,
    help="Least time that the card has for a request (else 20 times what such requests take) "
    "before onnxruntime answers it.",
)
@click.option(
    "--shadow-share",
    type=click.FloatRange(0, 1),
    default=DEFAULT_SHADOW_SHARE,
    show_default=True,
    help="Share of the card's answers that onnxruntime checks afterwards.",
)
@click.option(
    "--shadow-limit",
    type=click.IntRange(1, 100),
    default=DEFAULT_SHADOW_LIMIT,
    show_default=True,
    help="Wrong answers among 100 checked with which the card is reset.",
)
@click.option(
    "--shadow-samples",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for wrong answers, the first 10 of each model.  [default: not kept]",
)
@click.option(
    "--model-control-mode",
    type=click.Choice(["none", "explicit"]),
    default="none",
    show_default=True,
    help="Load every model at start, or those of --load-model alone.",
)
@click.option(
    "--load-model",
    "load_models",
    multiple=True,
    metavar="NAME",
    help="A model to load at start in explicit mode; may be given again.",
)
@click.option(
    "--max-queue-size",
    type=click.IntRange(1),
    default=DEFAULT_QUEUE_SIZE,
    show_default=True,
    help="Requests that may wait for one model.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="The log's lines on standard error.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the ready line as JSON.")
def serve(
    model_repository: Path | None,
    sync_file: Path | None,
    grpc_address: str,
    identity: Path | None,
    metrics_address: str,
    card_bus: str,
    controller: str,
    isa: str,
    threads: int | None,
    card_control: bool,
    card_deadline_ms: int,
    shadow_share: float,
    shadow_limit: int,
    shadow_samples: Path | None,
    model_control_mode: str,
    load_models: tuple[str, ...],
    max_queue_size: int,
    log_format: str,
    as_json: bool,
) -> None:
    """Serve a model repository over gRPC, on the card where it can, on onnxruntime where not."""
    explicit = model_control_mode == "explicit"
    if load_models and not explicit:
        raise click.UsageError("--load-model needs --model-control-mode explicit")
    if (model_repository is None) is (sync_file is None):
        raise click.UsageError("give one of --model-repository and --sync")
    if sync_file is not None and explicit:
        raise click.UsageError("with --sync the registry says which models are loaded")
    log.configure(log_format)
    sync = read_settings(sync_file) if sync_file is not None else None
    repository = sync.models if sync is not None else model_repository
    assert repository is not None
    settings = Settings(
        model_repository=repository,
        sync=sync,
        grpc_address=grpc_address,
        identity=identity,
        metrics_address=metrics_address,
        card=card_bus,
        controller=controller,
        isa=isa,
        threads=threads or default_threads(),
        card_control=card_control,
        card_deadline_ms=card_deadline_ms,
        shadow_share=shadow_share,
        shadow_limit=shadow_limit,
        shadow_samples=shadow_samples,
        load_models=load_models if explicit else None,
        max_queue_size=max_queue_size,
    )
    sys.setswitchinterval(_LOCK_SECONDS)
    uvloop.run(_serve(settings, as_json))


def default_threads() -> int:
    """The processors that this process may use, less one for the network."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


async def _serve(settings: Settings, as_json: bool) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    server = Server(settings, product_parts())
    starting = asyncio.create_task(server.start())
    waiting = asyncio.create_task(told.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    await starting  # a stop during start waits for the models under way
    if not told.is_set():
        click.echo(_ready_line(server, as_json))
        await told.wait()
    waiting.cancel()
    await server.stop()


def _ready_line(server: Server, as_json: bool) -> str:
    models = [f"{v.name}/{v.version}" for v in server.repository.all_served()]
    if as_json:
        return json.dumps(
            {
                "ready": True,
                "grpc": server.grpc_address,
                "metrics": server.metrics_address,
                "card": server.link.state,
                "models": models,
                "pid": os.getpid(),
            }
        )
    metrics = f", metrics on {server.metrics_address}" if server.metrics_address else ""
    return (
        f"tepi: ready: gRPC on {server.grpc_address}{metrics}, card {server.link.state}, "
        f"{len(models)} model version{'' if len(models) == 1 else 's'}"
    )
