"""What the commands that take many pictures share: bad ones are reported, the rest go on.

Knows nothing of what is done to a picture.
"""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from rirf.errors import OutputError, RirfError
from rirf.files import Found

__all__ = [
    "conclude",
    "describe",
    "forbid_overwriting",
    "positive_int",
    "report",
    "run_batch",
    "say",
]


def positive_int(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return value


def say(line: str) -> None:
    """Print a line to standard output without breaking a progress bar."""
    tqdm.write(line, file=sys.stdout)


def describe(path: Path, error: BaseException) -> str:
    """``path: reason`` on one line, whether or not the error's own text starts with the path."""
    text = " ".join((str(error) or type(error).__name__).split())
    return text if text.startswith(str(path)) else f"{path}: {text}"


def report(path: Path, error: BaseException) -> None:
    """Print why a picture failed, ``rirf: path: reason``, to standard error."""
    tqdm.write(f"rirf: {describe(path, error)}", file=sys.stderr)


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


def run_batch(
    found: Sequence[Found], work: Callable[[Found], None], *, label: str, quiet: bool = False
) -> int:
    """Work on every picture and return how many failed.

    Args:
        found: the pictures.
        work: called with each; an error raised on purpose is reported and the next one is taken.
        label: what the progress bar says.
        quiet: no progress bar (nor is there one where standard error is not a terminal).
    """
    failed = 0
    # disable=None: tqdm decides by whether its file is a terminal.
    with tqdm(
        total=len(found), desc=label, unit="picture", leave=False, disable=quiet or None
    ) as bar:
        for item in found:
            try:
                work(item)
            except RirfError as error:
                failed += 1
                report(item.path, error)
            except MemoryError:
                failed += 1
                report(item.path, MemoryError("does not fit into memory; use a smaller picture"))
            bar.update()
    return failed


def conclude(done: str, total: int, failed: int, folder: Path, *, quiet: bool = False) -> int:
    """Print how a batch went (``restored 3 of 4 pictures into out; 1 failed``): exit status."""
    if not quiet:
        tail = f"; {failed} failed" if failed else ""
        say(f"{done} {total - failed} of {total} pictures into {folder}{tail}")
    return 1 if failed else 0
