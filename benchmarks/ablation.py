"""What each part of the diagnosis is worth: the restorer trained without it, on protocol v1.

The rows of R&R's ablation, for the edge pair, but the one without reinforcement learning: runs of
equal length on the same draws, each with one part withheld in training and in use, and a network of
the same size that is never given any diagnosis. Every row is exported, with the reasoner it was
trained with, and evaluated with predicted, true, shuffled and no diagnosis on evenly spaced images
of protocol v1. Runs are short: differences between rows count, not their level.

Reads benchmarks/results/ablation.json; ``--rerun ROW`` repeats one row, ``--rerun missing`` runs
what is not on record for the given seeds. Prints a table, mean and spread over seeds, and, last,
one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rows import Row, Table, add_arguments

import rirf
from rirf.evaluation import evaluate, load_protocol
from rirf.evaluation.report import summarise
from rirf_export.bundling import export_bundle

ROOT = Path(__file__).resolve().parent
CONFIG = ROOT.parent / "training" / "configs" / "ablation.yaml"
RECORD = ROOT / "results" / "ablation.json"
CONDITIONS = ("predicted_coarse", "true", "shuffled", "none")

ROWS = (
    Row("full", "full diagnosis"),
    Row(
        "no-reasoner-training",
        "without reasoner training",
        ("predicted=1.0", "dropped=0.0"),
        reasoner="untrained",
    ),
    Row("no-scores", "without scores", ('network.without=["scores"]',)),
    Row("no-parameters", "without parameters", ('network.without=["parameters"]',)),
    Row("no-semantics", "without semantics", ('network.without=["semantics"]',)),
    Row("no-diagnosis", "never any diagnosis", ("predicted=0.0", "dropped=1.0")),
)


class Measure:
    """Exports a row's pair and evaluates it on a slice of the protocol."""

    def __init__(self, table: Table, data: Path | None, limit: int, threads: int) -> None:
        self._table = table
        self._data = data
        self._limit = limit
        self._threads = threads

    def __call__(
        self, row: Row, seed: int, checkpoint: Path, figures: dict[str, float]
    ) -> dict[str, Any]:
        if self._data is None:
            raise SystemExit("--rerun evaluates: give --data too")
        protocol = load_protocol(self._data, limit=self._limit)
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "row.rirf"
            export_bundle(self._table.reasoner(row), checkpoint, bundle, progress=False)
            with rirf.load(bundle, threads=self._threads) as pipeline:
                summary = summarise(evaluate(pipeline, protocol, progress=True))
        steps = json.loads((checkpoint / "config.json").read_text())["provenance"]["steps_done"]
        return {
            "images": summary["images"],
            "steps": steps,
            "input": summary["input"],
            **{name: summary[name] for name in CONDITIONS},
            "validation": figures,
        }


def summary_of(table: Table, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Means and spreads over the seeds on record, a row each."""
    shown = []
    for name, row in table.rows.items():
        found = [each for seed in seeds if (each := table.measured(row, seed)) is not None]
        if not found:
            continue
        entry: dict[str, Any] = {
            "name": name,
            "title": row.title,
            "seeds": len(found),
            "images": found[0]["images"],
            "steps": found[0]["steps"],
        }
        for condition in CONDITIONS:
            psnr = [each[condition]["psnr"] for each in found]
            ssim = [each[condition]["ssim"] for each in found]
            entry[condition] = {
                "psnr": float(np.mean(psnr)),
                "ssim": float(np.mean(ssim)),
                # Half the range says how far two seeds lie apart; a deviation of two says less.
                "psnr_spread": float(np.ptp(psnr) / 2),
            }
        shown.append(entry)
    return shown


def show(rows: Sequence[dict[str, Any]]) -> None:
    titles = {"predicted_coarse": "predicted"}
    print(
        f"{'PSNR dB / SSIM':<28}{'seeds':>6}"
        + "".join(f"{titles.get(name, name):>20}" for name in CONDITIONS)
    )
    for row in rows:
        cells = ""
        for condition in CONDITIONS:
            each = row[condition]
            spread = f" ±{each['psnr_spread']:.2f}" if row["seeds"] > 1 else ""
            cells += f"{each['psnr']:.2f}{spread} / {each['ssim']:.3f}".rjust(20)
        print(f"{row['title']:<28}{row['seeds']:>6}{cells}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, RECORD)
    parser.add_argument(
        "--limit", type=int, default=60, help="images of the protocol (default: 60)"
    )
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(argv)
    table = Table(ROWS, CONFIG, arguments, "ablation")
    table.run(Measure(table, arguments.data, arguments.limit, arguments.threads))
    seeds = sorted({int(seed) for each in table.record.values() for seed in each})
    shown = summary_of(table, seeds)
    if not shown:
        raise SystemExit(f"{arguments.record}: nothing recorded; run --rerun missing")
    if not arguments.json:
        show(shown)
    print(json.dumps({"benchmark": "ablation", "protocol": "v1", "rows": shown}))


if __name__ == "__main__":
    main()
