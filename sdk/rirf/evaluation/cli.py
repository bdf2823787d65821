"""``rirf eval``: run the evaluation protocol and write table, record and contact sheet.

Reads arguments, checks where results go before anything runs, and prints; the work is done by the
rest of this package.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rirf.cli.batch import positive_int
from rirf.cli.command import Command
from rirf.errors import OutputError

__all__ = ["command"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with bsds500/test, camvid/test and camvid/labels/test",
    )
    parser.add_argument("--protocol", default="v1", help="the protocol to run (default: v1)")
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="BUNDLE",
        help="a .rirf folder, or a shipped bundle's name (default: edge)",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="a fixed, mixed slice of N images, at least 2"
    )
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the whole record here")
    parser.add_argument(
        "--sheet", type=Path, metavar="OUT.png", help="write best, median and worst cases here"
    )
    parser.add_argument(
        "--threads", type=positive_int, metavar="N", help="CPU threads for inference"
    )


def _check_output(path: Path | None, suffixes: tuple[str, ...]) -> None:
    """A run takes minutes: whatever is wrong with an output path is said before it."""
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise OutputError(f"{path}: expected a file name that ends in {', '.join(suffixes)}")
    if path.is_dir():
        raise OutputError(f"{path}: cannot be written, it is a folder; choose another path")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: its folder {path.parent} does not exist; make it first")


def _run(arguments: argparse.Namespace) -> int:
    import rirf
    from rirf.evaluation.environment import describe
    from rirf.evaluation.metrics import scikit_image
    from rirf.evaluation.protocol import load_protocol
    from rirf.evaluation.report import table, to_json
    from rirf.evaluation.runner import evaluate
    from rirf.files import write_atomic
    from rirf.images import WRITABLE, write_image

    _check_output(arguments.json, (".json",))
    _check_output(arguments.sheet, WRITABLE)
    scikit_image()
    cases = load_protocol(arguments.data, name=arguments.protocol, limit=arguments.limit)
    with rirf.load(arguments.bundle, threads=arguments.threads) as pipeline:
        evaluation = evaluate(pipeline, cases, progress=True)
        where = describe(pipeline, arguments.threads)
        print(table(evaluation, where), end="")
        if arguments.json is not None:
            write_atomic(arguments.json, to_json(evaluation, where).encode())
            print(f"record: {arguments.json}")
        if arguments.sheet is not None:
            from rirf.evaluation.sheet import contact_sheet

            write_image(arguments.sheet, contact_sheet(pipeline, evaluation, where))
            print(f"contact sheet: {arguments.sheet}")
    return 0


command = Command(
    name="eval",
    help="measure a bundle on the evaluation protocol",
    add_arguments=_add_arguments,
    run=_run,
)
