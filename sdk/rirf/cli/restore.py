"""``rirf restore``: pictures in, restored pictures and their diagnoses out."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import rirf
from rirf.bundle import SHIPPED, Bundle
from rirf.cli.batch import (
    Work,
    add_ray,
    conclude,
    forbid_overwriting,
    positive_int,
    run_batch,
)
from rirf.cli.command import Command
from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.errors import DiagnosisError, EngineError
from rirf.files import Found, find_images, prepare_folder, write_atomic
from rirf.images import encode_image, read_image
from rirf.pipeline import Backend, Pipeline

if TYPE_CHECKING:
    from rirf.distributed import Job

__all__ = ["command", "read_diagnosis", "summary_of"]

_STEPS = ("auto", "bypass", "coarse", "1", "2", "4")

_EPILOG = """\
For each picture NAME it writes into DIR
  NAME.png             the restored picture (NAME.jpg with --format jpg)
  NAME.diagnosis.json  what was wrong with it
  NAME.compare.png     both side by side with the diagnosis, with --compare
  NAME.consistency.json  how well picture and diagnosis agree, with --check
A folder's pictures keep their subfolders. Results of an earlier run are replaced, input pictures
never. A picture that cannot be restored is reported and the rest go on; the exit status is then 1.

examples:
  rirf restore foggy.jpg -o restored --compare
  rirf restore frames/ -o restored --steps coarse --format jpg
  rirf restore /share/frames -o /share/restored --ray auto
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Fill the parser of ``rirf restore``."""
    parser.add_argument("sources", metavar="SRC", nargs="+", type=Path, help="pictures or folders")
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, required=True, help="folder for the results"
    )
    parser.add_argument(
        "--bundle",
        metavar="BUNDLE",
        type=Path,
        help="a .rirf folder, or a shipped bundle's name (default: edge)",
    )
    parser.add_argument(
        "--steps",
        choices=_STEPS,
        default="auto",
        help="how much work to do; auto (the default) decides by the diagnosis",
    )
    parser.add_argument(
        "--diagnosis",
        metavar="FILE",
        type=Path,
        help="diagnosis to restore with, .json or .txt, instead of the predicted one",
    )
    parser.add_argument("--compare", action="store_true", help="also write a side-by-side picture")
    parser.add_argument(
        "--check",
        action="store_true",
        help="also write how far the restored picture, degraded again with the diagnosis, is from "
        "the input",
    )
    parser.add_argument(
        "--format",
        choices=("png", "jpg"),
        default="png",
        help="png (the default, lossless) or jpg (quality 95)",
    )
    parser.add_argument(
        "--backend",
        choices=get_args(Backend),
        default="onnxruntime",
        help="what runs the networks; tensorrt and tensorrt-rtx build their engines once "
        "(default: onnxruntime)",
    )
    parser.add_argument(
        "--threads", metavar="N", type=positive_int, help="CPU threads of ONNX Runtime to use"
    )
    parser.add_argument(
        "--strict", action="store_true", help="fail where a slower engine would be fallen back to"
    )
    add_ray(parser)
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def read_diagnosis(path: Path) -> Diagnosis:
    """Read a diagnosis file: its text form (.txt) or its JSON form (.json).

    A JSON record that holds a diagnosis under "diagnosis", such as those of ``rirf degrade`` and
    ``rirf diagnose --json``, is taken too.

    Raises:
        DiagnosisError: unreadable, of another type, or not a diagnosis.
    """
    kind = path.suffix.lower()
    if kind not in (".json", ".txt"):
        raise DiagnosisError(f"{path}: got a {kind or 'nameless'} file; expected .json or .txt")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DiagnosisError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    try:
        if kind == ".txt":
            return Diagnosis.from_text(text)
        return Diagnosis.from_json(_inner(text))
    except DiagnosisError as error:
        raise DiagnosisError(f"{path}: {error}") from error


def _inner(text: str) -> str:
    try:
        record = json.loads(text)
    except ValueError:
        return text  # Diagnosis.from_json says what is wrong with it
    if isinstance(record, dict) and "schema_version" not in record and "diagnosis" in record:
        return json.dumps(record["diagnosis"])
    return text


def summary_of(diagnosis: Diagnosis) -> str:
    """The effects that are present with their severities: ``fog 38, noise 6``."""
    present = [name for name in EFFECTS if diagnosis.effect(name).present]
    return ", ".join(f"{name} {diagnosis.effect(name).severity:.0f}" for name in present) or "clean"


def _outputs(arguments: Namespace) -> Callable[[Path], list[Path]]:
    endings = [f".{arguments.format}", ".diagnosis.json"]
    endings += [".consistency.json"] if arguments.check else []
    endings += [".compare.png"] if arguments.compare else []

    def outputs(relative: Path) -> list[Path]:
        return [relative.with_name(relative.stem + ending) for ending in endings]

    return outputs


def run(arguments: Namespace) -> int:
    """Run ``rirf restore``."""
    folder: Path = arguments.output
    outputs = _outputs(arguments)
    # Everything that can be refused is refused before the networks are loaded.
    found = find_images(arguments.sources, skip=folder, outputs=outputs)
    forbid_overwriting(found, folder, outputs)
    diagnosis = None if arguments.diagnosis is None else read_diagnosis(arguments.diagnosis)
    if arguments.ray is None:
        prepare_folder(folder)
        with _opened(arguments, diagnosis, arguments.threads) as work:
            failed = run_batch(found, work, label="restore", quiet=arguments.quiet)
    else:
        from rirf.distributed import run_on_ray

        job = _job(arguments, diagnosis)
        prepare_folder(folder)
        failed = run_on_ray(arguments.ray, found, job, quiet=arguments.quiet)
    return conclude("restored", len(found), failed, folder, quiet=arguments.quiet)


@contextmanager
def _opened(
    arguments: Namespace, diagnosis: Diagnosis | None, threads: int | None
) -> Iterator[Work]:
    """What restores one picture, with the networks loaded."""
    with rirf.load(
        arguments.bundle,
        backend=arguments.backend,
        threads=threads,
        strict=arguments.strict,
    ) as pipeline:
        yield lambda item: _restore(item, pipeline, arguments, diagnosis)


def _restore(
    item: Found, pipeline: Pipeline, arguments: Namespace, diagnosis: Diagnosis | None
) -> str:
    """Restore one picture, write its files and return the line that says so."""
    frame = read_image(item.path)
    result = pipeline(
        frame,
        diagnosis=diagnosis,
        steps=arguments.steps,
        consistency=arguments.check or not arguments.quiet,
    )
    diagnosed, agreement = result.diagnosis, result.consistency
    if diagnosed is None:
        raise EngineError("the reasoner gave no diagnosis; export the bundle again")
    how = f"{_name(result.steps)}, {1000 * result.timings['total']:.0f} ms"
    # Encoded first: a picture that cannot be encoded leaves nothing behind.
    files = [
        encode_image(result.image, f".{arguments.format}"),
        (diagnosed.to_json(indent=2) + "\n").encode(),
    ]
    if arguments.check and agreement is not None:
        files.append((json.dumps(agreement.to_dict(), indent=2) + "\n").encode())
    if arguments.compare:
        from rirf.compare import comparison

        picture = comparison(frame, result.image, diagnosed, caption=how)
        files.append(encode_image(picture, ".png"))
    targets = [arguments.output / relative for relative in _outputs(arguments)(item.relative)]
    if not targets[0].parent.is_dir():
        prepare_folder(targets[0].parent)
    for target, data in zip(targets, files, strict=True):
        write_atomic(target, data)
    judged = "" if agreement is None else f"; {agreement.to_text()}"
    return f"{item.path} -> {targets[0]}  ({summary_of(diagnosed)}; {how}{judged})"


def _job(arguments: Namespace, diagnosis: Diagnosis | None) -> Job:
    """The same work for many machines."""
    from rirf.distributed import Job

    # A bundle that is missing or damaged here is refused before a cluster is asked.
    bundle = Bundle.open(SHIPPED if arguments.bundle is None else arguments.bundle)
    settings = {
        name: getattr(arguments, name)
        for name in ("steps", "format", "compare", "check", "backend")
    }
    settings["bundle"] = bundle.manifest.model_dump_json()
    settings["diagnosis"] = None if diagnosis is None else diagnosis.to_json()
    given = arguments.bundle is not None and arguments.bundle.is_dir()
    outputs = _outputs(arguments)
    return Job(
        label="restore",
        folder=arguments.output,
        opened=partial(_opened, arguments, diagnosis),
        complete=lambda relative: all(
            (arguments.output / path).is_file() for path in outputs(relative)
        ),
        settings=settings,
        inputs=(*arguments.sources, *([arguments.bundle] if given else [])),
        threads=arguments.threads,
        gpu=arguments.backend != "onnxruntime",
    )


def _name(steps: str) -> str:
    """A mode for people: bypass, coarse, 1 step, 2 steps."""
    if not steps.isdigit():
        return steps
    return f"{steps} step" if steps == "1" else f"{steps} steps"


command = Command(
    name="restore",
    help="restore pictures and say what was wrong with them",
    add_arguments=add_arguments,
    run=run,
    epilog=_EPILOG,
)
