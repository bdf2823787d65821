"""``rirf diagnose``: pictures in, diagnoses out, as text or JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

import rirf
from rirf.cli.batch import positive_int, run_batch, say
from rirf.cli.command import Command
from rirf.files import Found, find_images
from rirf.images import read_image

__all__ = ["command"]

_EPILOG = """\
Prints the text form. With --json: one object for one file; one line for each picture,
{"file": ..., "diagnosis": ...}, for several sources or a folder. A picture that cannot be read is
reported and the rest go on; the exit status is then 1.

examples:
  rirf diagnose foggy.jpg
  rirf diagnose frames/ --json > diagnoses.jsonl
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Fill the parser of ``rirf diagnose``."""
    parser.add_argument("sources", metavar="SRC", nargs="+", type=Path, help="pictures or folders")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "--bundle",
        metavar="BUNDLE",
        type=Path,
        help="a .rirf folder, or a shipped bundle's name (default: edge)",
    )
    parser.add_argument("--threads", metavar="N", type=positive_int, help="CPU threads to use")


def run(arguments: Namespace) -> int:
    """Run ``rirf diagnose``."""
    # Nothing is written, so pictures of the same name do not get in each other's way.
    found = find_images(arguments.sources, outputs=lambda _: ())
    alone = len(arguments.sources) == 1 and not arguments.sources[0].is_dir()
    with rirf.load(arguments.bundle, threads=arguments.threads) as pipeline:

        def diagnose(item: Found) -> None:
            diagnosis = pipeline.diagnose(read_image(item.path))
            if arguments.json and alone:
                say(diagnosis.to_json(indent=2))
            elif arguments.json:
                record = {"file": str(item.path), "diagnosis": diagnosis.model_dump(mode="json")}
                say(json.dumps(record))
            elif alone:
                say(diagnosis.to_text().rstrip("\n"))
            else:
                say(f"{item.path}\n{diagnosis.to_text()}")

        failed = run_batch(found, diagnose, label="diagnose")
    return 1 if failed else 0


command = Command(
    name="diagnose",
    help="say what is wrong with pictures, without restoring them",
    add_arguments=add_arguments,
    run=run,
    epilog=_EPILOG,
)
