"""What does the classical restoration sequence make of evaluation protocol v1?

The baseline beside the shipped pair: the same images, degraded frames and figures, so that its rows
stand in the same table. A row is named ``classical-<knowledge>-<denoiser>``; what ``blind``,
``told`` and ``told-map`` know, and every step, is told in classical_methods.py. The third knows as
much as the pair does under the protocol's condition ``true``.

Prints a table (PSNR in dB / SSIM, means over images) and, last, one JSON line. ``--split train`` or
``val`` takes training images instead, with draws of their own: strengths are chosen there, never on
the protocol, and ``--set`` changes one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
from classical_methods import (
    DENOISERS,
    KNOWLEDGE,
    Denoiser,
    Knowledge,
    Settings,
    bm3d_denoiser,
    non_local_means,
    restore,
)
from numpy.typing import NDArray
from tqdm import tqdm

from rirf.degradation import sample_recipe
from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.errors import RirfError
from rirf.evaluation import sheet as drawing
from rirf.evaluation.environment import device_name
from rirf.evaluation.metrics import Figures, average, measure
from rirf.evaluation.protocol import (
    DATASETS,
    Case,
    Protocol,
    calibrated,
    draw,
    load_protocol,
    seed_of,
    truth_map,
)
from rirf.files import write_atomic
from rirf.images import WRITABLE, write_image

METHODS = tuple(f"classical-{known}-{denoiser}" for known in KNOWLEDGE for denoiser in DENOISERS)
SPLITS = ("test", "train", "val")
PACKAGES = ("numpy", "opencv-python-headless", "scikit-image", "PyWavelets", "bm3d", "bm4d")
INSTALL = {"bm3d": "pip install bm3d (for non-commercial use alone)"}

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Method:
    """A row: its name, what it knows, and how it denoises; or why it cannot be measured."""

    name: str
    knowledge: Knowledge
    denoiser: Denoiser | None
    missing: str = ""


@dataclass(frozen=True)
class Row:
    """One degraded frame: figures of ``input`` and each method, milliseconds of each method."""

    case: Case
    truth: Diagnosis
    figures: Mapping[str, Figures]
    milliseconds: Mapping[str, float]


def methods_of(names: Sequence[str], settings: Settings, threads: int) -> list[Method]:
    """The methods by name, with their denoisers as far as these are installed."""
    denoisers: dict[str, Denoiser] = {"nlm": non_local_means(settings.nlm_strength)}
    missing = {}
    try:
        package = importlib.import_module("bm3d")
    except ImportError as error:
        missing["bm3d"] = f"{error}; {INSTALL['bm3d']}"
    else:
        denoisers["bm3d"] = bm3d_denoiser(package, settings.bm3d_strength, threads)
    known = {f"classical-{each}-{name}": (each, name) for each in KNOWLEDGE for name in DENOISERS}
    return [
        Method(each, knowledge, denoisers.get(name), missing.get(name, ""))
        for each in names
        for knowledge, name in [known[each]]
    ]


def split_of(root: Path, split: str, limit: int | None) -> Protocol:
    """Training images as cases, evenly spaced, half of each set; every draw has some effect.

    Their seeds come from names that the protocol has not.
    """
    per_set = {name: sorted((root / name / split).glob("*.jpg")) for name in DATASETS}
    for name, paths in per_set.items():
        if not paths:
            raise RirfError(f"{root / name / split}: holds no .jpg; expected clean images there")
    available = sum(map(len, per_set.values()))
    cases = []
    for name, paths in per_set.items():
        count = len(paths) if limit is None else min(len(paths), max(1, limit // len(DATASETS)))
        for place in range(count):
            path = paths[(2 * place + 1) * len(paths) // (2 * count)]
            seed = seed_of(f"{name}/{split}/{path.name}")
            while not any(getattr(sample_recipe(seed), effect) for effect in EFFECTS):
                seed = (seed + 1) % 2**64
            labels = path.parents[1] / "labels" / split / f"{path.stem}.png"
            drawn_labels = labels if labels.is_file() else None
            cases.append(Case(f"{name}/{path.name}", name, path, drawn_labels, seed, False))
    return Protocol(split, tuple(cases), available)


def row_of(
    case: Case,
    methods: Sequence[Method],
    settings: Settings,
    keep: Callable[[Case, Mapping[str, Picture]], object] | None = None,
) -> Row:
    """Draw a case, restore it by every method, measure."""
    sample = draw(case)
    diagnosis, coarse = sample.degraded.diagnosis, truth_map(sample.degraded.transmission)
    frames: dict[str, Picture] = {"input": sample.frame}
    milliseconds = {}
    for method in methods:
        if method.denoiser is None:
            continue
        start = perf_counter()
        frames[method.name] = restore(
            sample.frame, method.knowledge, method.denoiser, diagnosis, coarse, settings
        )
        milliseconds[method.name] = 1e3 * (perf_counter() - start)
    figures = {name: measure(frame, sample.truth) for name, frame in frames.items()}
    if keep is not None:
        keep(case, {**frames, "clean": sample.truth})
    return Row(case, diagnosis, figures, milliseconds)


def groups_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """All rows, those of each set, those with each effect; as in the protocol's record."""
    found = {"overall": list(rows)}
    found |= {name: [row for row in rows if row.case.dataset == name] for name in DATASETS}
    found |= {name: [row for row in rows if row.truth.effect(name).present] for name in EFFECTS}
    return found


def means(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """Number of images and, if there are any, mean figures; as in the protocol's record."""
    found: dict[str, Any] = {"images": len(rows)}
    if rows:
        found |= average(row.figures[name] for row in rows).to_dict()
    return found


def summary(rows: Sequence[Row], methods: Sequence[Method]) -> list[dict[str, Any]]:
    """One entry a row of the table, in the shape of the protocol's record."""
    groups = groups_of(rows)
    out = []
    for method in [None, *methods]:
        name = "input" if method is None else method.name
        entry: dict[str, Any] = {"method": name}
        if method is not None and method.denoiser is None:
            out.append({**entry, "not_measured": method.missing})
            continue
        by = {group: means(found, name) for group, found in groups.items()}
        entry |= by["overall"]
        entry["per_dataset"] = {group: by[group] for group in DATASETS}
        entry["per_degradation"] = {group: by[group] for group in EFFECTS}
        if method is not None:
            taken = [row.milliseconds[name] for row in rows]
            entry["milliseconds"] = round(float(np.median(taken)), 1)
        out.append(entry)
    return out


def show(entries: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[Row]]) -> None:
    width = max(len(entry["method"]) for entry in entries)
    heads = [f"{name} ({len(found)})" for name, found in groups.items()]
    print(
        f"{'PSNR dB / SSIM':<{width}} " + " ".join(f"{head:>14}" for head in heads) + f" {'ms':>9}"
    )
    for entry in entries:
        if "not_measured" in entry:
            print(f"{entry['method']:<{width}} not measured: {entry['not_measured']}")
            continue
        found = [entry, *entry["per_dataset"].values(), *entry["per_degradation"].values()]
        cells = [
            f"{each['psnr']:.2f} / {each['ssim']:.3f}" if "psnr" in each else "–" for each in found
        ]
        time = f"{entry['milliseconds']:.1f}" if "milliseconds" in entry else ""
        print(f"{entry['method']:<{width}} " + " ".join(f"{c:>14}" for c in cells) + f" {time:>9}")


class Sheet:
    """Evenly spaced cases, one a line: degraded, what each method made of it, clean."""

    def __init__(self, cases: Sequence[Case], count: int) -> None:
        count = min(count, len(cases))
        places = [(2 * place + 1) * len(cases) // (2 * count) for place in range(count)]
        self._wanted = {cases[place].name for place in places}
        self._kept: dict[str, Mapping[str, Picture]] = {}

    def keep(self, case: Case, frames: Mapping[str, Picture]) -> None:
        if case.name in self._wanted:
            self._kept[case.name] = frames

    def draw(self, rows: Iterable[Row]) -> Picture:
        """The picture, uint8 BGR."""
        lines = [self._line(row) for row in rows if row.case.name in self._kept]
        return np.concatenate(lines)

    def _line(self, row: Row) -> Picture:
        cells = []
        for name, frame in self._kept[row.case.name].items():
            # With the parts that the protocol's own contact sheet is drawn with.
            cell = cv2.copyMakeBorder(
                drawing._fitted(frame), 52, 12, 6, 6, cv2.BORDER_CONSTANT, value=drawing._BACKGROUND
            )
            picture = np.asarray(cell, dtype=np.uint8)
            drawing._text(picture, name, 8, 20, heavy=True)
            drawing._text(picture, self._note(row, name), 8, 42, colour=drawing._MUTED)
            cells.append(picture)
        return np.concatenate(cells, axis=1)

    @staticmethod
    def _note(row: Row, name: str) -> str:
        if name in row.figures:
            return f"{row.figures[name].psnr:.2f} dB  {row.figures[name].ssim:.3f}"
        severities = ((effect, row.truth.effect(effect).severity) for effect in EFFECTS)
        return ", ".join(f"{effect} {value:.0f}" for effect, value in severities if value > 0)


def environment(threads: int) -> dict[str, Any]:
    """Where it was measured; no bundle takes part."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "device": device_name("CPUExecutionProvider"),
        "provider": "OpenCV, NumPy",
        "threads": threads,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": versions,
    }


def changed(pairs: Sequence[str]) -> Settings:
    """The settings with ``KEY=VALUE`` pairs over them."""
    settings = Settings()
    kinds = {field.name: type(getattr(settings, field.name)) for field in fields(settings)}
    for pair in pairs:
        key, _, text = pair.partition("=")
        if key not in kinds:
            raise SystemExit(f"--set {pair}: no such setting; expected one of {', '.join(kinds)}")
        try:
            settings = replace(settings, **{key: kinds[key](text)})
        except ValueError as error:
            raise SystemExit(f"--set {pair}: expected {kinds[key].__name__}: {error}") from error
    return settings


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data folder of rirf eval")
    parser.add_argument("--limit", type=int, help="images (default: all)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD")
    parser.add_argument("--threads", type=int, default=1, help="of OpenCV and BM3D (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record, with cases")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw some cases")
    parser.add_argument("--sheet-cases", type=int, default=4, help="how many (default: 4)")
    parser.add_argument("--split", choices=SPLITS, default="test", help="test is the protocol")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args(argv)
    if arguments.threads < 1 or arguments.sheet_cases < 1:
        parser.error("--threads and --sheet-cases take at least 1")
    if arguments.limit is not None and arguments.limit < len(DATASETS):
        parser.error(f"--limit takes at least {len(DATASETS)}, one image of each set")
    # Said before the run, which may last hours.
    for path in filter(None, (arguments.json, arguments.sheet)):
        if not path.parent.is_dir():
            parser.error(f"{path}: its folder does not exist; make it first")
    if arguments.sheet is not None and arguments.sheet.suffix.lower() not in WRITABLE:
        parser.error(f"--sheet {arguments.sheet}: expected one of {', '.join(WRITABLE)}")
    settings = changed(arguments.set)
    methods = methods_of(list(dict.fromkeys(arguments.methods)), settings, arguments.threads)
    if arguments.split == "test":
        protocol = load_protocol(arguments.data, limit=arguments.limit)
    else:
        protocol = split_of(arguments.data, arguments.split, arguments.limit)
    sheet = Sheet(protocol.cases, arguments.sheet_cases) if arguments.sheet else None
    keep = None if sheet is None else sheet.keep
    before = cv2.getNumThreads()
    cv2.setNumThreads(arguments.threads)
    try:
        cases = tqdm(protocol.cases, unit="image", disable=None)
        rows = [row_of(case, methods, settings, keep) for case in cases]
    finally:
        cv2.setNumThreads(before)
    entries = summary(rows, methods)
    show(entries, groups_of(rows))
    record: dict[str, Any] = {
        "benchmark": "classical",
        "protocol": protocol.name,
        "images": len(rows),
        "available": protocol.available,
        "calibrated": calibrated(entries[0]["psnr"], entries[0]["ssim"]),
        "rows": entries,
        "settings": asdict(settings),
        "environment": environment(arguments.threads),
    }
    if arguments.json is not None:
        of_cases = [
            {
                "name": row.case.name,
                "seed": row.case.seed,
                "severities": {name: row.truth.effect(name).severity for name in EFFECTS},
                **{name: figures.to_dict() for name, figures in row.figures.items()},
                "milliseconds": {name: round(ms, 1) for name, ms in row.milliseconds.items()},
            }
            for row in rows
        ]
        text = json.dumps({**record, "cases": of_cases}, indent=1, allow_nan=False) + "\n"
        write_atomic(arguments.json, text.encode())
    if sheet is not None:
        write_image(arguments.sheet, sheet.draw(rows))
    print(json.dumps(record, allow_nan=False))


if __name__ == "__main__":
    main()
