# SPDX-License-Identifier: Apache-2.0
"""`tepi model pack`, `inspect`, `verify` and `unpack`.

What a command needs is imported when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
_LAYOUT = click.argument("package", metavar="LAYOUT[:TAG]")


def _variants(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in ("card", "cpu"):
            raise click.BadParameter(f"{name!r} is neither card nor cpu")
    return names


@click.command(
    epilog="""\b
Examples:
  tepi model pack models/digits -o layout
  tepi model pack models/digits -o layout --tag 2.0 --golden-data held-out.npz --golden 20
  tepi model pack resnet50.onnx -o layout --name resnet50 --labels imagenet.txt --json
  tepi model push layout:2.0 registry.example/vision/digits:2.0

\b
A package has a variant for nodes with a card, which holds the compiled program, and one for nodes
without. Where no program can be made it says why and leaves that variant out. Golden vectors are
answered by onnxruntime here and must be answered alike by the card, here and on every node that
installs the model. The same files give the same digest with the same tools.
"""
)
@click.argument("model", type=click.Path(path_type=Path, exists=True), metavar="DIR|MODEL.onnx")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="LAYOUT",
    help="OCI layout to put the package in; made where it is not there.",
)
@click.option(
    "--name",
    default="",
    help="The model's name.  [default: that of config.pbtxt, else of the folder or file]",
)
@click.option(
    "--tag", default="latest", show_default=True, help="What the layout calls the package."
)
@click.option(
    "--version",
    type=click.IntRange(1),
    default=None,
    help="The model's version, which names its folder.  [default: the highest there is, else 1]",
)
@click.option(
    "--variant",
    "variants",
    callback=_variants,
    default="card,cpu",
    show_default=True,
    metavar="card,cpu",
    help="For which nodes; card alone fails where no program can be made.",
)
@click.option(
    "--golden",
    type=click.IntRange(0, 1000),
    default=3,
    show_default=True,
    help="Golden vectors to make.",
)
@click.option(
    "--golden-data",
    type=_FILE,
    help="An .npz with an array of samples for each input, in place of made-up ones.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Largest difference of a golden answer, as a share of its largest value.",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=1,3,224,224",
    help="Sizes of an input that the model leaves open; may be given again.",
)
@click.option("--calibration", type=_FILE, help="Data it was quantized with; its digest is kept.")
@click.option("--labels", type=_FILE, help="Names of the classes, one a line.")
@click.option("--config", type=_FILE, help="config.pbtxt in place of the folder's.")
@click.option(
    "--preprocessing",
    type=_FILE,
    help="What clients do to make inputs, in a form of their own; kept as it is.",
)
@click.option("--doc", type=_FILE, help="A text about the model, for people.")
@click.option("--description", default="", help="The same in one line.")
@click.option(
    "--created",
    default="",
    metavar="TIME",
    help="When it was made, as 2026-01-31T12:00:00Z; part of the digest.  [default: not said]",
)
@_JSON
def pack(
    model: Path,
    output: Path,
    name: str,
    tag: str,
    version: int | None,
    variants: tuple[str, ...],
    golden: int,
    golden_data: Path | None,
    tolerance: float,
    shapes: tuple[str, ...],
    calibration: Path | None,
    labels: Path | None,
    config: Path | None,
    preprocessing: Path | None,
    doc: Path | None,
    description: str,
    created: str,
    as_json: bool,
) -> None:
    """Make a package of a model: compiled for the card, with golden vectors."""
    from device.measure.feeds import parse_shapes
    from registry.package import packing, tables
    from registry.package.layout import Layout
    from registry.package.model_folder import Wanted, gather
    from registry.package.modelpack import Variant
    from registry.reference import check_tag

    options = packing.Options(
        check_tag(tag),
        tuple(Variant(name) for name in variants),
        golden,
        golden_data,
        tolerance,
        parse_shapes(shapes),
        calibration,
        created,
        description,
    )
    gathered = gather(model, Wanted(name, version, config, labels, doc, preprocessing))
    with tables.Steps(quiet=as_json) as steps:
        made = packing.pack(gathered, options, Layout(output, create=True), steps.tell)
    if as_json:
        click.echo(json.dumps(asdict(made)))
    else:
        tables.print_made(made, output)


@click.command(
    epilog="""\b
Examples:
  tepi model inspect layout
  tepi model inspect layout:2.0 --json
"""
)
@_LAYOUT
@_JSON
def inspect(package: str, as_json: bool) -> None:
    """Show what a package holds and where it is from."""
    from registry.package import tables
    from registry.package.layout import Layout, split_tag
    from registry.package.package import open_package

    path, tag = split_tag(package)
    found = open_package(Layout(path), tag)
    if as_json:
        click.echo(json.dumps(tables.package_json(found)))
    else:
        tables.print_package(found)


@click.command(
    epilog="""\b
Examples:
  tepi model verify layout:2.0

\b
Reads every byte, then runs the golden vectors of each variant: on onnxruntime, and on a software
card. Exits 1 where anything is wrong. Whether a package is current and by whom it was published
is not looked at here: that is what a node's trust settings are for.
"""
)
@_LAYOUT
@_JSON
def verify(package: str, as_json: bool) -> None:
    """Check every digest of a package and run its golden vectors."""
    from registry.package import tables, verifying
    from registry.package.layout import Layout, split_tag

    path, tag = split_tag(package)
    with tables.Steps(quiet=as_json) as steps:
        checks = verifying.verify(Layout(path), tag, steps.tell)
    good = not any(check.wrong for check in checks)
    if as_json:
        click.echo(json.dumps({"good": good, "checks": [asdict(check) for check in checks]}))
    else:
        tables.print_checks(checks)
    if not good:
        raise click.exceptions.Exit(1)


@click.command(
    epilog="""\b
Examples:
  tepi model unpack layout:2.0 models
  tepi serve --model-repository models

\b
Writes DIR/NAME/config.pbtxt, DIR/NAME/VERSION/model.onnx and so on. Other versions that are there
stay. Each file appears whole and checked, or not at all; no link is followed.
"""
)
@_LAYOUT
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option("--name", default="", help="Call the model otherwise; config.pbtxt must agree.")
@click.option(
    "--variant",
    type=click.Choice(["auto", "card", "cpu"]),
    default="auto",
    show_default=True,
    help="auto: what fits this software's card, else cpu.",
)
@_JSON
def unpack(package: str, folder: Path, name: str, variant: str, as_json: bool) -> None:
    """Write a package's files into a model repository."""
    from device.binding.abi import ABI_VERSION
    from registry.package import tables
    from registry.package.layout import Layout, split_tag
    from registry.package.modelpack import check_model_name
    from registry.package.package import open_package
    from registry.package.unpacking import place

    path, tag = split_tag(package)
    found = open_package(Layout(path), tag)
    chosen = found.choose(ABI_VERSION) if variant == "auto" else found.named(variant)
    target = folder / check_model_name(name or found.about.name)
    with tables.Steps(quiet=as_json) as steps:
        place(
            chosen.files,
            found.layout.blob_path,
            target,
            tell=lambda count: steps.tell("unpacking", count),
        )
    told = {"folder": str(target), "variant": chosen.variant, "files": len(chosen.files)}
    if as_json:
        click.echo(json.dumps(told | {"digest": found.descriptor.digest}))
    else:
        click.echo(f"{target}: {len(chosen.files)} files of variant {chosen.variant}")
