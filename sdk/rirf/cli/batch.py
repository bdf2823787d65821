"""What the commands that take many pictures share: bad ones are reported, the rest go on.

Knows nothing of what is done to a picture.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tqdm import tqdm

from rirf.errors import OutputError, RirfError
from rirf.files import Found

__all__ = [
    "Outcome",
    "Work",
    "add_ray",
    "attempt",
    "conclude",
    "describe",
    "forbid_overwriting",
    "positive_int",
    "run_batch",
    "say",
    "settle",
]

# Does one picture; returns the line to print of it, if any.
Work: TypeAlias = Callable[[Found], str | None]


def positive_int(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return value


def add_ray(parser: ArgumentParser) -> None:
    """Add the option ``--ray``."""
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread the pictures over a Ray cluster: auto, HOST:PORT, ray://HOST:PORT, or local "
        "for one of this machine; done pictures are kept when it is run again",
    )


def say(line: str) -> None:
    """Print a line to standard output without breaking a progress bar."""
    tqdm.write(line, file=sys.stdout)


def describe(path: Path, error: BaseException) -> str:
    """``path: reason`` on one line, whether or not the error's own text starts with the path."""
    text = " ".join((str(error) or type(error).__name__).split())
    return text if text.startswith(str(path)) else f"{path}: {text}"


@dataclass(frozen=True)
class Outcome:
    """What came of one picture: a ``line`` to print, if any, or the ``error`` it failed with."""

    item: Found
    line: str | None = None
    error: str | None = None


def attempt(item: Found, work: Work) -> Outcome:
    """Work on one picture; an error raised on purpose, or too little memory, is an outcome."""
    try:
        return Outcome(item, line=work(item))
    except RirfError as error:
        return Outcome(item, error=describe(item.path, error))
    except MemoryError:
        return Outcome(item, error=f"{item.path}: does not fit into memory; use a smaller picture")


def forbid_overwriting(
    found: Sequence[Found], folder: Path, outputs: Callable[[Path], Sequence[Path]]
) -> None:
    """Make sure that no result would replace one of the pictures it is made from.

    Raises:
        OutputError: it would.
    """
    sources = {item.path.resolve() for item in found}
    for item in found:
        for relative in outputs(item.relative):
            target = folder / relative
            if target.resolve() in sources:
                raise OutputError(
                    f"{target}: is one of the input pictures, which are never overwritten; "
                    "choose another output folder with -o"
                )


def run_batch(found: Sequence[Found], work: Work, *, label: str, quiet: bool = False) -> int:
    """Work on every picture, one after the other, and return how many failed.

    Args:
        found: the pictures.
        work: called with each; an error raised on purpose is reported and the next one is taken.
        label: what the progress bar says.
        quiet: no lines and no progress bar.
    """
    outcomes = (attempt(item, work) for item in found)
    return settle(outcomes, len(found), label=label, quiet=quiet)


def settle(outcomes: Iterable[Outcome], total: int, *, label: str, quiet: bool = False) -> int:
    """Print outcomes as they come in and return how many of them failed.

    Failures go to standard error as ``rirf: path: reason``, lines to standard output unless
    ``quiet``. There is no progress bar where standard error is not a terminal.
    """
    failed = 0
    # disable=None: tqdm decides by whether its file is a terminal.
    with tqdm(total=total, desc=label, unit="picture", leave=False, disable=quiet or None) as bar:
        for outcome in outcomes:
            if outcome.error is not None:
                failed += 1
                tqdm.write(f"rirf: {outcome.error}", file=sys.stderr)
            elif outcome.line is not None and not quiet:
                say(outcome.line)
            bar.update()
    return failed


def conclude(done: str, total: int, failed: int, folder: Path, *, quiet: bool = False) -> int:
    """Print how a batch went (``restored 3 of 4 pictures into out; 1 failed``): exit status."""
    if not quiet:
        tail = f"; {failed} failed" if failed else ""
        say(f"{done} {total - failed} of {total} pictures into {folder}{tail}")
    return 1 if failed else 0
