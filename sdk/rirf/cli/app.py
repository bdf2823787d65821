"""The entry of the command line: finds the command, runs it, turns errors into exit statuses.

Status 0: done. 1: an error, or some pictures failed. 2: wrong usage, or a package that the command
needs is not installed. 130: interrupted. Imports a command's module only when it is the chosen one,
so that ``rirf --help`` is quick and works whatever is installed.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata

from rirf._version import __version__
from rirf.cli.command import Command
from rirf.errors import MissingExtraError, RirfError

__all__ = ["BUILT_IN", "ENTRY_POINTS", "main"]

ENTRY_POINTS = "rirf.commands"
BUILT_IN = {
    "restore": "restore pictures and say what was wrong with them",
    "diagnose": "say what is wrong with pictures, without restoring them",
    "degrade": "add fog, shake, rain and noise to clean pictures, with a record",
    "bundle": "show, check, compare and sign bundles",
    "doctor": "check this installation and name the fix of what is wrong",
}
# Help must not import the packages behind the entry points, which may not be installable here.
_ADDED = {
    "train": "train the reasoner or the restorer",
    "distill": "train a restorer on what another one makes of its frames",
    "export": "turn checkpoints into a bundle",
    "eval": "run the evaluation protocol",
}
# The extras of this distribution that bring what a command needs.
_EXTRAS = {"train": "train", "distill": "train", "export": "export", "eval": "eval"}

_WRONG_USAGE, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; see the module's text.

    Args:
        argv: the arguments after ``rirf``; those of the process when None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="rirf: %(message)s", level=logging.WARNING)
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except SystemExit as leaving:  # argparse, after --help or a usage error
        return leaving.code if isinstance(leaving.code, int) else _WRONG_USAGE
    except BrokenPipeError:
        # The reader (head, less) is gone; a second failure at exit would print a traceback.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        print("rirf: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except MissingExtraError as error:
        _complain(error)
        return _WRONG_USAGE
    except RirfError as error:
        _complain(error)
        return 1


def _complain(error: object) -> None:
    # Other libraries' messages, quoted in ours, may span lines.
    print("rirf: error:", " ".join(str(error).split()), file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(_overview(), file=sys.stderr)
        return _WRONG_USAGE
    first, rest = arguments[0], arguments[1:]
    if first in ("-h", "--help"):
        print(_overview())
        return 0
    if first in ("-V", "--version"):
        print(f"rirf {__version__}")
        return 0
    if first.startswith("-"):
        _complain(f"no option {first!r} before the command; see rirf --help")
        return _WRONG_USAGE
    command = _load(first)
    if command is None:
        names = [*BUILT_IN, *_added()]
        near = difflib.get_close_matches(first, names, n=1)
        mend = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        _complain(f"no command {first!r}; {mend}")
        return _WRONG_USAGE
    parser = ArgumentParser(
        prog=f"rirf {first}",
        description=command.help[:1].upper() + command.help[1:] + ".",
        epilog=command.epilog,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    return command.run(parser.parse_args(rest))


def _added() -> dict[str, metadata.EntryPoint]:
    """Commands of other packages by name, the first on the search path; none takes a built-in's."""
    added: dict[str, metadata.EntryPoint] = {}
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        if entry.name not in BUILT_IN:
            added.setdefault(entry.name, entry)
    return added


def _overview() -> str:
    helps = dict(BUILT_IN)
    for name, entry in _added().items():
        package = entry.dist.name if entry.dist is not None else entry.value
        helps[name] = _ADDED.get(name, f"added by {package}")
    width = max(map(len, helps))
    lines = [
        "usage: rirf COMMAND ...",
        "",
        "Say what is wrong with an outdoor frame, then restore it with that knowledge.",
        "",
        "commands:",
        *(f"  {name:<{width}}  {text}" for name, text in helps.items()),
        "",
        "options:",
        "  -h, --help     this text; rirf COMMAND --help explains one command",
        "  -V, --version  the version",
    ]
    return "\n".join(lines)


def _load(name: str) -> Command | None:
    """The command of that name, None if there is none.

    Raises:
        MissingExtraError: a package it needs cannot be imported.
        RirfError: an entry point that is no command.
    """
    if name in BUILT_IN:
        try:
            built_in: Command = importlib.import_module(f"rirf.cli.{name}").command
        except MissingExtraError:
            raise
        except ImportError as error:
            raise _missing(name, "cpu", error) from error
        return built_in
    entry = _added().get(name)
    if entry is None:
        return None
    try:
        command = entry.load()
    except (ImportError, MissingExtraError) as error:
        raise _missing(name, _EXTRAS.get(name, ""), error) from error
    if not isinstance(command, Command):
        raise RirfError(
            f"the command {name!r} is offered as {entry.value}, which is of the type "
            f"{type(command).__name__}; expected a rirf.cli.Command: update that package"
        )
    return command


def _missing(name: str, extra: str, error: Exception) -> MissingExtraError:
    if isinstance(error, MissingExtraError):
        return error
    mend = f"install it with: pip install 'rirf[{extra}]'" if extra else "install that package"
    return MissingExtraError(
        f"rirf {name} needs a package that cannot be imported ({error}); {mend}"
    )
