"""What a subcommand is; the only thing another package needs in order to add one."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Command"]


@dataclass(frozen=True)
class Command:
    """A subcommand of ``rirf``.

    Another package offers one under the entry-point group ``rirf.commands``; the entry's name is
    what a person types. The module is imported when the command is chosen, so its imports should
    be those that ``add_arguments`` needs.

    Attributes:
        name: what a person types.
        help: what it does, in one line.
        add_arguments: fills the command's own parser.
        run: does the work and returns the exit status: 0, or 1 when something failed. A
            ``RirfError`` becomes a one-line message and status 1.
        epilog: text below the options, printed as it is: examples.
    """

    name: str
    help: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    epilog: str = ""
