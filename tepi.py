# SPDX-License-Identifier: Apache-2.0
"""The front door: assembles the rooms' click commands into `tepi`.

A room's `cli` module is imported only when one of its commands is asked for, so `tepi --help`
and shell completion stay fast.
"""

import importlib
import importlib.metadata
import sys
import traceback
from collections.abc import Mapping
from typing import NamedTuple

import click

EXIT_FAILED = 1
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130

_ROOMS = {"device", "edge_server", "firmware_bridge", "registry", "wire"}

EXIT_CODES = """\b
Exit codes:
  0    done
  1    failed; the message says what to do
  2    wrong usage
  10…  refusals of a card's firmware; `tepi card flash --help` lists them
  70   a defect in Tepi itself; --debug shows the traceback
  130  interrupted
"""


class Entry(NamedTuple):
    """Where a command lives; the summary is shown by `tepi --help` without importing it."""

    module: str
    attribute: str
    summary: str


class Folder(NamedTuple):
    """A group of commands that may live in several rooms."""

    summary: str
    entries: dict[str, Entry]


CARD = "edge_server.card.command"
PACKAGE = "registry.package.command"
REMOTE = "registry.remote.command"
TRUST = "registry.trust.command"
STORE = "edge_server.store.command"
BRIDGE = "firmware_bridge.update.command"
PROVISION = "firmware_bridge.provision.command"
SYNC = "edge_server.sync.command"
COMMANDS: dict[str, Entry | Folder] = {
    "card": Folder(
        "Look at models on a card, and at the card of a running server; serve a card.",
        {
            "identify": Entry(
                BRIDGE, "identify", "Say which card is at a port, and have it prove that."
            ),
            "versions": Entry(
                BRIDGE,
                "versions",
                "Show a card's firmware: running, slots, and whether it is up to date with FILE.",
            ),
            "flash": Entry(
                "edge_server.card.flashing",
                "flash",
                "Put firmware into cards: check, upload, test, confirm, or go back.",
            ),
            "confirm": Entry(BRIDGE, "confirm", "Keep the firmware that a card runs on trial."),
            "revert": Entry(BRIDGE, "revert", "Go back to a card's firmware before."),
            "erase": Entry(BRIDGE, "erase", "Empty a card's second firmware slot."),
            "telemetry": Entry(
                BRIDGE,
                "telemetry",
                "Show temperatures, power, clocks, voltages and the fan of a card.",
            ),
            "limits": Entry(BRIDGE, "limits", "Show or set a card's power and temperature limits."),
            "dump": Entry(BRIDGE, "dump", "Fetch a card's crash dumps."),
            "history": Entry(BRIDGE, "history", "Show what was done to cards from this machine."),
            "mcu": Entry(
                "firmware_bridge.controller.command",
                "mcu",
                "Run a card's management controller in software, behind a pty or a socket.",
            ),
            "attach": Entry(CARD, "attach", "Bring the card back and every model onto it."),
            "bench": Entry(
                "device.cli",
                "bench",
                "Time MODEL on the card and on onnxruntime in turns, and compare what they "
                "compute.",
            ),
            "detach": Entry(
                CARD,
                "detach",
                "Take the card away at once; requests go on under each model's policy.",
            ),
            "diag": Entry(
                CARD, "diag", "Check whether the card is in order; requests go on meanwhile."
            ),
            "drain": Entry(
                CARD, "drain", "Let requests go without the card; those under way finish on it."
            ),
            "resume": Entry(
                CARD, "resume", "End a drain: load every model again and prove the card."
            ),
            "explain": Entry(
                "device.cli",
                "explain",
                "Show what MODEL becomes on the card: each instruction, its kernel and its time.",
            ),
            "info": Entry(
                CARD, "info", "Show the card's state, its faults and where each model runs."
            ),
            "inject": Entry(
                "edge_server.card.inject",
                "inject",
                "Let a software card suffer a fault, or a plan of them, to see what follows.",
            ),
            "list": Entry(
                CARD,
                "list_cards",
                "List the cards of the server with their states, and the cards found at this "
                "machine's ports.",
            ),
            "log": Entry(
                CARD,
                "log",
                "Show the card's own fault log, the newest last, with what to do about each fault.",
            ),
            "reset": Entry(
                CARD,
                "reset",
                "Reset the card, load every model again and put it through probation.",
            ),
            "serve": Entry(
                "device.cli",
                "serve",
                "Run a software card in this process, for programs that attach through a socket.",
            ),
            "top": Entry(
                "edge_server.card.top",
                "top",
                "Watch the card: use, requests, latency, temperature, power and faults.",
            ),
        },
    ),
    "infer": Entry(
        "edge_server.cli", "infer", "Send one request to MODEL and print what comes back."
    ),
    "model": Folder(
        "Make models ready for the card, pack them, and move them to and from a registry.",
        {
            "delta": Entry(
                "registry.delta.command",
                "delta",
                "Make deltas from the packages that nodes have to the one they are to run.",
            ),
            "inspect": Entry(PACKAGE, "inspect", "Show what a package holds and where it is from."),
            "list": Entry(
                REMOTE,
                "list_models",
                "List the packages of a registry with tags, digests, sizes and variants.",
            ),
            "pack": Entry(
                PACKAGE,
                "pack",
                "Make a package of a model: compiled for the card, with golden vectors.",
            ),
            "pull": Entry(
                REMOTE,
                "pull",
                "Fetch a package from a registry into an OCI layout, and check every byte of it.",
            ),
            "push": Entry(
                REMOTE, "push", "Publish a package, all its variants and its deltas in a registry."
            ),
            "quantize": Entry(
                "device.cli",
                "quantize",
                "Make an int8 MODEL of a float32 one, and report what it lost and won.",
            ),
            "unpack": Entry(PACKAGE, "unpack", "Write a package's files into a model repository."),
            "verify": Entry(
                PACKAGE, "verify", "Check every digest of a package and run its golden vectors."
            ),
        },
    ),
    "provision": Folder(
        "Give a node its identity: keys, certificates, and the authority behind them.",
        {
            "deny": Entry(
                PROVISION,
                "deny",
                "Put a node or a card on the list of those that get no certificate.",
            ),
            "enroll": Entry(PROVISION, "enroll", "Get this node its certificate."),
            "export-csr": Entry(
                PROVISION, "export_csr", "Write a request to be carried to the authority by hand."
            ),
            "import-cert": Entry(
                PROVISION, "import_cert", "Take the certificate that was carried back."
            ),
            "init-ca": Entry(
                PROVISION,
                "init_ca",
                "Make the authority that gives nodes their certificates, in DIR.",
            ),
            "renew": Entry(PROVISION, "renew", "Renew this node's certificate before it expires."),
            "serve": Entry(PROVISION, "serve", "Run the authority's enrolment service over HTTPS."),
            "sign-csr": Entry(
                PROVISION, "sign_csr", "Sign a request that was carried here by hand."
            ),
            "status": Entry(
                PROVISION, "status", "Show this node's certificate and what it is for."
            ),
            "token": Entry(
                PROVISION, "token", "Make a one-time token for a node or a card's serial number."
            ),
        },
    ),
    "registry": Folder(
        "The central registry: its keys, what it vouches for, and a server for one machine.",
        {
            "desire": Entry(TRUST, "desire", "Say which models a RING of nodes is to run."),
            "export": Entry(
                TRUST, "export", "Write what a node without a network needs to a folder."
            ),
            "init": Entry(
                TRUST, "init", "Make a registry in DIR with its keys and its first metadata."
            ),
            "refresh": Entry(
                TRUST, "refresh", "Sign anew what the online keys sign and what expires soon."
            ),
            "revoke": Entry(TRUST, "revoke", "Take back a package or a key."),
            "rotate": Entry(
                TRUST,
                "rotate",
                "Replace the key of a ROLE: root, targets, snapshot, timestamp or desired.",
            ),
            "serve": Entry(
                "registry.origin.command",
                "serve",
                "Serve the registry folder DIR over HTTP: OCI pull and push, "
                "and the trust's metadata.",
            ),
            "sign": Entry(
                TRUST,
                "sign",
                "Vouch for packages, or add a signature to a change that waits for it.",
            ),
            "status": Entry(
                TRUST,
                "status",
                "Show roles, keys, expiry, what is vouched for, what rings run and what waits.",
            ),
        },
    ),
    "serve": Entry(
        "edge_server.cli",
        "serve",
        "Serve a model repository over gRPC, on the card where it can, on onnxruntime where not.",
    ),
    "store": Folder(
        "Look at and look after the blobs that a node holds.",
        {
            "gc": Entry(STORE, "gc", "Remove what nothing needs, least used first."),
            "list": Entry(
                STORE,
                "list_blobs",
                "List blobs with size, use and pins, the least used first; "
                "then what is on its way.",
            ),
            "pin": Entry(STORE, "pin", "Keep blobs whatever the store's limits say, under a NAME."),
            "unpin": Entry(STORE, "unpin", "Let go of a pin; its blobs go when room is needed."),
            "verify": Entry(STORE, "verify", "Read every blob again and repair what is damaged."),
        },
    ),
    "sync": Folder(
        "Bring this node to what its registry wants it to run.",
        {
            "import": Entry(SYNC, "import_folder", "Take packages and trust from a USB stick."),
            "rollback": Entry(SYNC, "rollback", "Go back to a model's package before this one."),
            "run": Entry(SYNC, "run", "Follow the registry, once or for ever."),
            "status": Entry(SYNC, "status", "Show what is current, on its way, or refused."),
        },
    ),
}


class Rooms(click.Group):
    """A click group whose commands are imported from their rooms on first use."""

    entries: Mapping[str, Entry | Folder] = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        if isinstance(entry, Folder):
            group = Rooms(cmd_name, help=entry.summary)
            group.entries = entry.entries
            return group
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.entries[name].summary) for name in sorted(self.entries)]
            )


def _print_version(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"tepi {importlib.metadata.version('tepi')}")
        ctx.exit()


@click.group(cls=Rooms, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli(debug: bool) -> None:
    """Turn a box near its users into an inference appliance."""


def explain(error: BaseException) -> tuple[str, int]:
    """The line a person reads for an error, and the exit code.

    An error whose class is Tepi's own, or the operating system's, is the caller's to mend and
    its message says how; anything else is a defect of Tepi.
    """
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "interrupted", EXIT_INTERRUPTED
    ours = type(error).__module__.partition(".")[0] in _ROOMS
    if ours or isinstance(error, OSError):
        remedy = getattr(error, "remedy", "")
        text = str(error)
        code = int(getattr(error, "exit_code", EXIT_FAILED))  # docs/firmware.md lists them
        return (f"{text}\n{remedy}" if remedy and remedy not in text else text), code
    return (
        f"internal error: {type(error).__name__}: {error}\n"
        "This is a defect in Tepi; run again with --debug and report what it prints.",
        EXIT_INTERNAL,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run `tepi` with these arguments (default: the process's); returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        result = cli.main(args=words, prog_name="tepi", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (Exception, KeyboardInterrupt) as error:
        text, code = explain(error)
        if "--debug" in words:
            traceback.print_exception(error)
        click.echo(f"tepi: {text}", err=True)
        return code


if __name__ == "__main__":
    sys.exit(main())
