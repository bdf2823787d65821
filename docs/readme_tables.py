"""Writes the tables of results in README.md from recorded measurements.

``python docs/readme_tables.py --record KIND FILE`` keeps the aggregates of a measurement's JSON in
``results/KIND.json`` and writes the tables anew; without ``--record`` it only writes the tables,
with ``--check`` it exits 1 where README.md says anything else. A table stands between the lines
``<!-- table:NAME -->`` and ``<!-- /table -->``; all other text is left alone.

| KIND | FILE |
|---|---|
| ``evaluation`` | ``rirf eval --data DATA --protocol v1 --json FILE`` |
| ``classical`` | ``python benchmarks/classical.py --data DATA --json FILE`` |
| ``latency`` | ``python benchmarks/reference_latency.py --check --json FILE`` |

Measures nothing, and knows a record by its fields alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rirf.diagnosis import EFFECTS
from rirf.errors import RirfError
from rirf.files import write_atomic

__all__ = ["KINDS", "RecordError", "main", "summary", "tables", "with_tables"]

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results"

KINDS = ("evaluation", "classical", "latency")
PROTOCOL = "v1"
# PSNR in dB and SSIM of the paper's outdoor table (R&R, arXiv 2604.09511): input and restored.
PUBLISHED_INPUT = {"psnr": 13.461, "ssim": 0.3258}
PUBLISHED = {"psnr": 19.564, "ssim": 0.6214}

# What a record may say of the machine: nothing that tells whose it is.
_ENVIRONMENT = (
    "bundle",
    "bundle_digest",
    "precision",
    "device",
    "provider",
    "threads",
    "cores",
    "rirf",
    "python",
    "platform",
    "packages",
)
_DATASETS = {"camvid": "CamVid", "bsds500": "BSDS500"}
# Names of benchmarks/classical.py's methods are classical-<knowledge>-<denoiser>.
_KNOWLEDGE = {
    "blind": "knows nothing",
    "told": "knows the true diagnosis",
    "told-map": "knows the true diagnosis and transmission map",
}
_DENOISERS = {"nlm": "non-local means", "bm3d": "BM3D"}
# Its licence asks that the authors are named with published results.
_BM3D = (
    "BM3D: Mäkinen, Azzari, Foi, IEEE TIP 29, 2020; Dabov, Foi, Katkovnik, Egiazarian, "
    "IEEE TIP 16, 2007."
)
# How far two runs' figures of the same inputs may lie apart: 0.01 dB, 0.001.
_SAME = {"psnr": 0.01, "ssim": 0.001}
_TABLE = re.compile(
    r"^<!-- table:(?P<name>\w+) -->\n(?P<body>.*?)^<!-- /table -->$", re.DOTALL | re.MULTILINE
)
_MARKER = re.compile(r"^<!-- (?:table:\w+|/table) -->$", re.MULTILINE)
_PATH = re.compile(r"^(?:/|~|[A-Za-z]:[\\/]|\\\\)|[\\/](?:home|root|work|Users)[\\/]")

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")

Record = dict[str, Any]


class RecordError(RirfError):
    """A record is not what its kind says, or README.md has no place for it."""


def _is_figures(value: object) -> bool:
    return isinstance(value, dict) and {"psnr", "ssim"} <= value.keys()


def _figures(value: Mapping[str, Any]) -> Record:
    return {name: value[name] for name in ("psnr", "ssim")}


def _group(values: Mapping[str, Any]) -> Record:
    """``images`` and the figures of each condition."""
    found = {name: _figures(value) for name, value in values.items() if _is_figures(value)}
    return {"images": values["images"], **found}


def _whole(record: Mapping[str, Any], what: str) -> None:
    if record["protocol"] != PROTOCOL:
        raise RecordError(
            f"{what}: got figures of protocol {record['protocol']!r}; expected {PROTOCOL!r}, which "
            "README.md names"
        )
    if record["images"] != record["available"]:
        raise RecordError(
            f"{what}: got {record['images']} of {record['available']} images; expected the whole "
            "protocol: run it without --limit"
        )


def _environment(values: Mapping[str, Any]) -> Record:
    return {name: values[name] for name in _ENVIRONMENT if name in values}


def _clean(values: Mapping[str, Any]) -> Record:
    worst = values["worst"]
    return {**values, "worst": None if worst is None else _figures(worst)}


def _evaluation(record: Mapping[str, Any]) -> Record:
    _whole(record, "evaluation")
    return {
        "protocol": record["protocol"],
        "available": record["available"],
        "calibrated": record["calibrated"],
        **_group(record),
        **{
            name: {key: _group(group) for key, group in record[name].items() if group["images"]}
            for name in ("per_dataset", "per_degradation")
        },
        "reasoner": record["reasoner"],
        **{name: _clean(record[name]) for name in ("clean", "undegraded") if name in record},
        "steps": record["steps"],
        "milliseconds": record["milliseconds"],
        "environment": _environment(record["environment"]),
    }


def _latency(record: Mapping[str, Any]) -> Record:
    if record.get("benchmark") != "reference_latency":
        raise RecordError(
            f"latency: got a record of {record.get('benchmark')!r}; expected that of "
            "benchmarks/reference_latency.py"
        )
    if record["ok"] is None:
        row = record["rows"][0]
        raise RecordError(
            f"latency: got figures of {row['size']} with {row['threads']} thread(s); expected "
            "those its targets are for: run it without --size and --threads"
        )
    # A round's times are left out: medians, quartiles and ratios are what is published.
    rows = [
        {k: v for k, v in row.items() if k not in ("seconds", "note")} for row in record["rows"]
    ]
    return {
        "benchmark": record["benchmark"],
        "ok": record["ok"],
        "reference": record["reference"],
        "times_faster": record["times_faster"],
        "targets": record["targets"],
        "cores": record["cores"],
        "environment": _environment(record["environment"]),
        "rows": rows,
    }


def _classical(record: Mapping[str, Any]) -> Record:
    _whole(record, "classical")
    rows = [
        {
            "method": row["method"],
            **_figures(row),
            **{
                name: {key: _figures(value) for key, value in row[name].items() if value}
                for name in ("per_dataset", "per_degradation")
            },
            **({"milliseconds": row["milliseconds"]} if "milliseconds" in row else {}),
        }
        for row in record["rows"]
        if "not_measured" not in row
    ]
    return {
        "protocol": record["protocol"],
        "images": record["images"],
        "available": record["available"],
        "rows": rows,
        "settings": record["settings"],
        "environment": _environment(record["environment"]),
    }


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from (*_texts(key), *_texts(each))
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def summary(kind: str, record: Mapping[str, Any]) -> Record:
    """What is kept of a measurement's JSON: aggregates, and where they were measured.

    Args:
        kind: one of ``KINDS``.
        record: the object that the measuring command wrote.

    Raises:
        RecordError: another command's record, one of a slice, or one that names a machine's path.
    """
    reduce: dict[str, Callable[[Mapping[str, Any]], Record]] = {
        "evaluation": _evaluation,
        "classical": _classical,
        "latency": _latency,
    }
    if kind not in reduce:
        raise RecordError(f"got kind {kind!r}; expected one of {', '.join(KINDS)}")
    try:
        kept = reduce[kind](record)
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise RecordError(
            f"{kind}: its record lacks what is expected ({type(error).__name__}: {error}); give "
            "the JSON that the command in docs/readme_tables.py writes"
        ) from error
    paths = [text for text in _texts(kept) if _PATH.search(text)]
    if paths:
        raise RecordError(f"{kind}: its record names paths of a machine: {', '.join(paths)}")
    return kept


def _grid(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left, the others to the right."""
    lines = [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in (header, *body)]
    return "\n".join([lines[0], "|".join(["|---", *("---:" for _ in header[1:]), ""]), *lines[1:]])


def _pair(figures: Mapping[str, float] | None) -> str:
    return "–" if figures is None else f"{figures['psnr']:.2f} / {figures['ssim']:.3f}"


def _threads(environment: Mapping[str, Any]) -> str:
    """``two threads of an AMD EPYC``; ``auto`` is as many as there are cores."""
    count, device = environment["threads"], str(environment["device"])
    count = environment["cores"] if count == "auto" else count
    number = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
    article = "an" if device[:1].lower() in "aeiou" else "a"
    return f"{number} thread{'' if count == 1 else 's'} of {article} {device}"


def _classical_rows(classical: Record, groups: Sequence[Record]) -> Iterator[list[str]]:
    """Table rows of the classical methods, whose inputs must be those of ``groups``."""
    for row in classical["rows"]:
        figures = [row, *(row["per_dataset"][name] for name in _DATASETS)]
        if row["method"] == "input":
            for found, group in zip(figures, groups, strict=True):
                if any(abs(found[key] - group["input"][key]) > far for key, far in _SAME.items()):
                    raise RecordError(
                        f"classical.json has inputs of {_pair(found)}, evaluation.json of "
                        f"{_pair(group['input'])}; expected the same frames: measure both again"
                    )
            continue
        knowledge, _, denoiser = row["method"].removeprefix("classical-").rpartition("-")
        title = f"classical sequence with {_DENOISERS[denoiser]}, {_KNOWLEDGE[knowledge]}"
        yield [title, *map(_pair, figures)]


def _quality(evaluation: Record, classical: Record | None) -> str:
    groups = [evaluation, *(evaluation["per_dataset"][name] for name in _DATASETS)]
    header = ["PSNR dB / SSIM", f"all {evaluation['images']} images"]
    header += [
        f"{title} ({group['images']})"
        for title, group in zip(_DATASETS.values(), groups[1:], strict=True)
    ]

    def row(title: str, condition: str) -> list[str]:
        return [title, *(_pair(group.get(condition)) for group in groups)]

    predicted = row("restored with the reasoner's diagnosis", "predicted")
    sequences = [] if classical is None else list(_classical_rows(classical, groups))
    body = [
        row("degraded input", "input"),
        *sequences,
        row("restored without diagnosis", "none"),
        row("restored with another image's diagnosis", "shuffled"),
        [f"**{cell}**" for cell in predicted],
        row("restored with the true diagnosis", "true"),
        [
            f"R&R, as published: other images, from inputs at {_pair(PUBLISHED_INPUT)}",
            _pair(PUBLISHED),
            *("–" for _ in _DATASETS),
        ],
    ]
    named = any(_DENOISERS["bm3d"] in title for title, *_ in sequences)
    return _grid(header, body) + (f"\n\n{_BM3D}" if named else "")


def _reasoner(evaluation: Record) -> str:
    effects = [evaluation["reasoner"][name] for name in EFFECTS]
    shown: list[tuple[str, str, Callable[[float], str]]] = [
        ("presence right", "presence_accuracy", lambda share: f"{100 * share:.1f} %"),
        ("presence F1", "presence_f1", lambda score: f"{score:.3f}"),
        ("severity off by, points", "severity_mae", lambda points: f"{points:.1f}"),
        ("90 % interval holds", "interval_coverage", lambda share: f"{100 * share:.1f} %"),
    ]
    # Older records have no F1.
    shown = [each for each in shown if all(effect.get(each[1]) is not None for effect in effects)]
    body = [
        [name, str(effect["images_present"]), *(form(effect[key]) for _, key, form in shown)]
        for name, effect in zip(EFFECTS, effects, strict=True)
    ]
    means = [form(fmean(effect[key] for effect in effects)) for _, key, form in shown]
    body.append(["mean", "", *means])
    lead = f"What the reasoner says of the same {evaluation['images']} images:"
    return f"{lead}\n\n{_grid(['', 'images with it', *(title for title, _, _ in shown)], body)}"


def _speed(latency: Record) -> str:
    rows = {row["name"]: row for row in latency["rows"]}
    targets, faster = latency["targets"], latency["times_faster"]
    limits = {name: f" (target ≤ {targets[f'{name}_ms']:g})" for name in ("reasoner", "restorer")}
    wanted = {"restorer": f" (target ≥ {targets['times_faster']:g})"}
    body = []
    for name in ("reasoner", "restorer", latency["reference"]):
        row = rows[name]
        low, high = row["quartiles_ms"]
        times = f"{faster[name]:.1f} ×{wanted.get(name, '')}" if name in faster else ""
        title = f"{name}, random weights" if name == latency["reference"] else name
        body.append(
            [
                f"{title}, one step" if name == "restorer" else title,
                f"{row['parameters'] / 1e6:.2f} M",
                f"{row['multiply_adds'] / 1e9:.1f} G",
                f"{row['ms']:.1f}{limits.get(name, '')}",
                f"{low:.1f} to {high:.1f}",
                times,
            ]
        )
    row = rows["restorer"]
    size = row["size"].replace("x", "×")
    lead = (
        f"The two networks beside {latency['reference']}, a restorer of the usual size built from "
        f"its description: one {size}\nframe, ONNX Runtime, {_threads(latency['environment'])} "
        "(`python benchmarks/reference_latency.py --check`):"
    )
    header = ["", "parameters", "multiply-adds", "ms, median", "quartiles", "faster"]
    return f"{lead}\n\n{_grid(header, body)}"


def tables(records: Mapping[str, Record]) -> dict[str, str]:
    """The tables that can be written from the summaries at hand, by name.

    Raises:
        RecordError: a summary lacks something, or the classical one has no evaluation beside it.
    """
    made = {}
    try:
        if "evaluation" in records:
            evaluation, classical = records["evaluation"], records.get("classical")
            if classical is not None and classical["images"] != evaluation["images"]:
                raise RecordError(
                    f"classical.json is of {classical['images']} images, evaluation.json of "
                    f"{evaluation['images']}; expected the same: measure one of them again"
                )
            made["quality"] = _quality(evaluation, classical)
            made["reasoner"] = _reasoner(evaluation)
        elif "classical" in records:
            raise RecordError(
                "classical.json has no evaluation.json beside it; record that too: its inputs and "
                "networks are what the methods are compared with"
            )
        if "latency" in records:
            made["latency"] = _speed(records["latency"])
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise RecordError(
            f"a file in docs/results lacks what is expected ({type(error).__name__}: {error}); "
            "record it again with python docs/readme_tables.py --record KIND FILE"
        ) from error
    return made


def with_tables(document: str, made: Mapping[str, str]) -> str:
    """The document with the text between each table's markers replaced.

    Raises:
        RecordError: markers that do not pair, and tables without a place or a record.
    """
    found = list(_TABLE.finditer(document))
    if 2 * len(found) != len(_MARKER.findall(document)) or any(
        _MARKER.search(match["body"]) for match in found
    ):
        raise RecordError(
            "README.md: its markers do not pair; expected each <!-- table:NAME --> to be followed "
            "by its own <!-- /table -->, both on lines of their own"
        )
    names = [match["name"] for match in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    homeless, empty = sorted(made.keys() - set(names)), sorted(set(names) - made.keys())
    if twice or homeless or empty:
        parts = [f"table {name} stands there twice: keep one" for name in twice]
        parts += [
            f"table {name} has no place: write <!-- table:{name} --> and <!-- /table --> where it "
            "belongs"
            for name in homeless
        ]
        parts += [
            f"nothing is recorded for table {name}: record it, or take its markers out"
            for name in empty
        ]
        raise RecordError("README.md: " + "; ".join(parts))
    return _TABLE.sub(
        lambda match: f"<!-- table:{match['name']} -->\n{made[match['name']]}\n<!-- /table -->",
        document,
    )


def _read(path: Path) -> Record:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(record, dict):
        raise RecordError(f"{path}: got a {type(record).__name__}; expected one JSON object")
    return record


def recorded(folder: Path) -> dict[str, Record]:
    """The summaries that are there, by kind."""
    files = {kind: folder / f"{kind}.json" for kind in KINDS}
    return {kind: _read(path) for kind, path in files.items() if path.is_file()}


def _work(arguments: argparse.Namespace) -> int:
    for kind, name in arguments.record:
        kept = json.dumps(summary(kind, _read(Path(name))), indent=1, allow_nan=False) + "\n"
        RESULTS.mkdir(exist_ok=True)
        write_atomic(RESULTS / f"{kind}.json", kept.encode())
    document = README.read_text(encoding="utf-8")
    current = with_tables(document, tables(recorded(RESULTS)))
    if current == document:
        return 0
    if arguments.check:
        print(
            "README.md: its tables differ from docs/results; run: python docs/readme_tables.py",
            file=sys.stderr,
        )
        return 1
    write_atomic(README, current.encode())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Record, then write or check; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--record",
        nargs=2,
        action="append",
        default=[],
        metavar=("KIND", "FILE"),
        help="keep a measurement's aggregates first (repeatable)",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when a table is out of date"
    )
    arguments = parser.parse_args(argv)
    if arguments.check and arguments.record:
        parser.error("--check writes nothing: leave out --record, or --check")
    try:
        return _work(arguments)
    except RirfError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
