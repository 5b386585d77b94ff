"""The command line ``tmm``: a registry of commands, in modules that are read only when one of theirs is called.

A command's module has ``add_NAME(parser)``, which adds to its parser what it takes and what runs it
(`commands.arguments.about`). To add one, write that, and a line in `COMMANDS`.

Exit status: 0 good, 1 the files or the state are wrong, 2 the command is wrong; 130 after Ctrl-C, 141 when
the reader of the output has gone.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

from tmm_core import __version__
from tmm_core.errors import TMMError
from tmm_core.operations.terminal import columns
from tmm_core.policy.validation import did_you_mean


class Command(NamedTuple):
    """One command: its name, the module of `commands` it is in, and what it does in a few words."""

    name: str
    module: str
    help: str


COMMANDS = (
    Command("check", "config_cli", "read a configuration, show what is in force, and warn"),
    Command("explain", "look_cli", "say what would be decided for one User and SRV, and why"),
    Command("status", "look_cli", "show what the gateways of this host are doing"),
    Command("apply", "config_cli", "put a configuration in force while gateways run"),
    Command("allocate", "allocate_cli", "share the operating threshold among the Users' portfolios"),
    Command("priority-list", "priority_list_cli", "show, compare and change versions of the priority list"),
    Command("replay", "replay_cli", "show what the Mechanism would have done to a request log"),
    Command(
        "simulate",
        "simulate_cli",
        "compare policies on invented traffic: outage or not, who is hit, for how long",
    ),
    Command("watch", "live_cli", "keep the event log of this host"),
    Command("events", "log_cli", "list or follow events, faults and changes"),
    Command("audit", "log_cli", "decide recorded throttled requests again, and compare"),
    Command("serve", "live_cli", "serve a live page for the operations room"),
    Command("report", "log_cli", "write the monthly report and the Users' statements"),
    Command("demo", "simulate_cli", "play a day of traffic at DSP peak volume through the engine"),
)

_EPILOG = """\
examples:
  tmm demo                              see it work
  tmm check tmm.toml                    what is in force, and what is probably not meant
  tmm replay requests.csv -c tmm.toml   what it would have done to your own traffic

exit status: 0 good, 1 the files or the state are wrong, 2 the command is wrong
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Without the program's name; those of this process by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started this, as some schedulers do
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A name the terminal's encoding cannot show must not end the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    status = 0
    try:
        status = _status(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up_stdout()
        return 141
    except OSError as error:  # a full disk behind standard output
        _give_up_stdout()
        if not status:
            print(f"tmm: standard output: {error.strerror or error}", file=sys.stderr)
        return status or 1
    return status


def _status(arguments: list[str]) -> int:
    try:
        return _run(arguments)
    except SystemExit as end:  # argparse: --help, --version, a wrong command
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 2
    except KeyboardInterrupt:
        print("tmm: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except TMMError as error:
        for line in str(error).splitlines():
            print(f"tmm: {line}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"tmm: {where}{error.strerror or error}", file=sys.stderr)
        return 1


def _give_up_stdout() -> None:
    # Python flushes stdout once more at its end: give it somewhere to go.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _wrap_description(parser: argparse.ArgumentParser) -> None:
    """Wrap the description of a command, whose formatter leaves it raw for the sake of its examples."""
    paragraphs = (parser.description or "").split("\n\n")
    parser.description = "\n\n".join(textwrap.fill(each, min(columns(), 100) - 2) for each in paragraphs)


class _Parser(argparse.ArgumentParser):
    """A parser that says what was probably meant, and fails where it cannot write its help."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            # Here rather than at the top: this is the parser whose options they are not.
            options = re.findall(r"(?<![\w-])--[a-z][a-z-]*", self.format_usage())
            meant = did_you_mean(unknown[0].partition("=")[0], options)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        slip = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if slip is not None:
            message += did_you_mean(slip[1], re.findall(r"[\w.-]+", slip[2]))
        super().error(message)

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:  # argparse would hide that the disk is full
            file.write(message)
        else:
            super()._print_message(message, file)


def _run(arguments: list[str]) -> int:
    parser = _Parser(
        prog="tmm",
        description="Traffic Management Mechanism (SECMP0067): configuration, demonstration and operation.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tmm-core {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    # Only the command that is asked for is imported: 'tmm check' does not pay for the rest.
    asked = next((each for each in arguments if not each.startswith("-")), None)
    for command in COMMANDS:
        own = subparsers.add_parser(
            command.name, help=command.help, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if command.name == asked:
            module = import_module(f"tmm_core.operations.commands.{command.module}")
            getattr(module, f"add_{command.name.replace('-', '_')}")(own)
            _wrap_description(own)
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    status: int = args.run(args)
    return status
