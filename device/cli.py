# SPDX-License-Identifier: Apache-2.0
"""`tepi card explain`, `bench` and `serve`, and `tepi model quantize`: cards without a server.

What a command needs is imported when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from device.console import console

_MODEL = click.argument("model", type=click.Path(path_type=Path, exists=True, dir_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
_SHAPES = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=1,3,224,224",
    help="Sizes of an input that the model leaves open; may be given again.",
)
_ISA = click.option(
    "--isa",
    type=click.Choice(["auto", "scalar", "avx2", "avx512vnni", "amxint8"]),
    default="auto",
    show_default=True,
    help="Hold the card to an instruction set.",
)
_THREADS = click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Compute workers of the card, and onnxruntime's threads.",
)
_CARD = click.option(
    "--card",
    "kind",
    default="inproc",
    show_default=True,
    metavar="NAME",
    help="inproc: a software card of the command's own; vfio-user:PATH: that of `tepi card serve`.",
)
_MEMORY_MIB = 4096


def _open_card(kind: str, threads: int, isa: str) -> Any:
    from device.binding import Card

    try:
        return Card.open(kind, threads=threads, isa=isa, memory=_MEMORY_MIB << 20)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _finite(value: Any) -> Any:
    """JSON knows no infinities: they become null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(found: Any, as_json: bool, table: Callable[[Any, Any], None]) -> None:
    if as_json:
        click.echo(json.dumps(_finite(asdict(found))))
    else:
        table(found, console())


@click.command(
    epilog="""\b
The prediction is a roofline: each instruction takes the larger of its
multiply-accumulates at the card's best rate and its bytes at the rate at which
the card moves data that it finds in cache. Both rates are measured on the spot,
with the same instruction set and threads, by convolutions of 256 channels, an
addition of 196 KiB tensors and a vector times 512 KiB of weights. It is a lower
bound: nothing is added for starting an instruction.
"""
)
@_MODEL
@_SHAPES
@_CARD
@_ISA
@_THREADS
@click.option(
    "--runs", type=click.IntRange(1, 10000), default=30, show_default=True, help="Runs to time."
)
@_JSON
def explain(
    model: Path,
    shapes: tuple[str, ...],
    kind: str,
    isa: str,
    threads: int,
    runs: int,
    as_json: bool,
) -> None:
    """Show what MODEL becomes on the card: each instruction, its kernel and its time."""
    from device.measure import tables
    from device.measure.explain import explain as measured
    from device.measure.feeds import parse_shapes

    given = parse_shapes(shapes)
    with _open_card(kind, threads, isa) as card:
        found = measured(model, card, given, threads, runs)
    _print(found, as_json, tables.print_explanation)


@click.command()
@_MODEL
@_SHAPES
@_CARD
@_ISA
@_THREADS
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600),
    default=5.0,
    show_default=True,
    help="Time to measure, both engines together.",
)
@_JSON
def bench(
    model: Path,
    shapes: tuple[str, ...],
    kind: str,
    isa: str,
    threads: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Time MODEL on the card and on onnxruntime in turns, and compare what they compute."""
    from device.measure import tables
    from device.measure.compare import compare
    from device.measure.feeds import parse_shapes

    given = parse_shapes(shapes)
    with _open_card(kind, threads, isa) as card:
        found = compare(model, card, given, threads, seconds)
    _print(found, as_json, tables.print_comparison)


def _stop_signals() -> socket.socket:
    """Readable from the first SIGTERM or SIGINT on, whichever thread the kernel gives it to: the
    libraries that are loaded by now have threads that no mask of this one reaches."""
    told, tell = socket.socketpair()
    tell.setblocking(False)
    signal.set_wakeup_fd(tell.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    return told


@click.command(
    epilog="""\b
Examples:
  tepi card serve --socket /run/tepi/card.sock
  tepi card serve --socket card.sock --threads 2 --memory 1024
  tepi serve --model-repository models --card vfio-user:/run/tepi/card.sock

\b
The card speaks vfio-user. Several programs may use it at a time; what one that ends leaves behind
is given back. Whoever may write to the socket (mode 0660) may use the card. It prints one line
once it listens. SIGTERM and SIGINT stop it, and it exits 0; it exits 1 where it cannot listen.
"""
)
@click.option(
    "--socket",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Where it listens; one that a server left behind is replaced.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Compute workers of the card.",
)
@click.option(
    "--memory",
    "memory_mib",
    type=click.IntRange(1, 1 << 20),
    default=512,
    show_default=True,
    metavar="MiB",
    help="Card memory, for weights and scratch.",
)
@_ISA
@click.option(
    "--faults",
    "plan",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Faults that the card is to suffer, as JSON: see `tepi card inject`.",
)
@click.option(
    "--control",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Socket (mode 0600) on which `tepi card inject --control` may order faults.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the ready line as JSON.")
def serve(
    path: Path,
    threads: int,
    memory_mib: int,
    isa: str,
    plan: Path | None,
    control: Path | None,
    as_json: bool,
) -> None:
    """Run a software card in this process, for programs that attach through a socket."""
    from device.binding import CardServer
    from device.binding.planned import read_plan
    from device.control import registers_at, served

    told = _stop_signals()
    try:
        faults = read_plan(plan.read_text(encoding="utf-8")) if plan else []
        server = CardServer(str(path), threads=threads, memory=memory_mib << 20, isa=isa)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    with server, served(control, server, registers_at(f"vfio-user:{path}")):
        server.plan_faults(faults)
        if as_json:
            ready = {"ready": True, "socket": str(path), "pid": os.getpid()}
            click.echo(json.dumps(ready))
        else:
            click.echo(
                f"tepi: card ready: vfio-user at {path}, {threads} threads, {memory_mib} MiB"
            )
        told.recv(1)


@click.command()
@_MODEL
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="An .npz with an array of samples for each input of the model.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Where the int8 model goes.",
)
@click.option(
    "--method",
    type=click.Choice(["minmax", "entropy", "percentile"]),
    default="minmax",
    show_default=True,
    help="How the range of each activation is chosen.",
)
@click.option(
    "--percentile",
    type=click.FloatRange(50, 100, min_open=True),
    default=99.999,
    show_default=True,
    help="What --method percentile keeps of the values, in percent.",
)
@click.option(
    "--operator",
    "operators",
    multiple=True,
    metavar="TYPE",
    help="Quantize nodes of this type, such as MatMul, and no others; may be given again.",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="NAME",
    help="Leave the node of this name float32; * stands for anything. May be given again.",
)
@click.option(
    "--float-result",
    "float_results",
    multiple=True,
    metavar="TYPE",
    help="Quantize the operands of nodes of this type and not their results.",
)
@click.option(
    "--smooth",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="ALPHA",
    help="Even out the channels of what is multiplied by weights: 0 not, 1 all the way.",
)
@_JSON
def quantize(
    model: Path,
    calibration: Path,
    output: Path,
    method: Any,
    percentile: float,
    operators: tuple[str, ...],
    keep: tuple[str, ...],
    float_results: tuple[str, ...],
    smooth: float,
    as_json: bool,
) -> None:
    """Make an int8 MODEL of a float32 one, and report what it lost and won.

    Weights become int8 with a scale per channel, activations uint8, in QDQ form. The report
    compares with float32 on the calibration data, names the layers that lose most, and times the
    card against onnxruntime.
    """
    from device.quantize import tables
    from device.quantize.quantize import Extent
    from device.quantize.quantize import quantize as quantized

    if output.exists() and output.samefile(model):
        raise click.UsageError("--output is the model itself; name another file")
    extent = Extent(operators, keep, float_results, smooth)
    with tables.ProgressBars(quiet=as_json) as progress:
        report = quantized(model, calibration, output, method, progress, percentile, extent)
    _print(report, as_json, tables.print_report)
