"""Rows of an experiment: short restorer runs that differ in a few settings, recorded as JSON.

A row is trained (and resumed, if it was stopped), measured once by whoever asks for it, and kept in
a record file; later calls read the record. Knows neither what the rows mean nor how they are shown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rirf.files import write_atomic
from rirf_training.config import RestorerRun, read_config
from rirf_training.run import train_restorer

__all__ = ["Row", "Table", "add_arguments"]


@dataclass(frozen=True)
class Row:
    """A run.

    Attributes:
        name: short, of letters, digits and dashes: also its folder's name.
        title: what people read.
        settings: ``key=value`` pairs over the shared configuration.
        reasoner: whose diagnoses the run is given: the trained reasoner's, an untrained one's, or
            none at all.
    """

    name: str
    title: str
    settings: tuple[str, ...] = ()
    reasoner: str = "trained"


def add_arguments(parser: argparse.ArgumentParser, record: Path) -> None:
    """The options every table of rows has."""
    parser.add_argument("--data", type=Path, help="data folder of rirf train; to run rows")
    parser.add_argument("--reasoner", type=Path, help="trained reasoner checkpoint; to run rows")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--cache", type=Path, default=Path("runs/fresh"), help="of rirf train")
    parser.add_argument("--record", type=Path, default=record, help=f"(default: {record})")
    parser.add_argument(
        "--rerun",
        action="append",
        default=[],
        metavar="ROW",
        help="train and measure this row again (repeatable); 'missing' for all without a record",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(default: 0)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="over the configuration"
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")


class Table:
    """The rows, their shared configuration, and the record of what was measured.

    Args:
        rows: all rows, in the order they are shown.
        config: shared configuration file of the runs.
        arguments: what :func:`add_arguments` parsed.
        folder: name of the runs' folder below ``--runs``.
    """

    def __init__(
        self, rows: Sequence[Row], config: Path, arguments: argparse.Namespace, folder: str
    ) -> None:
        self.rows = {row.name: row for row in rows}
        self._config = config
        self._arguments = arguments
        self._folder = arguments.runs / folder
        self.record: dict[str, Any] = {}
        if arguments.record.exists():
            self.record = json.loads(arguments.record.read_text())

    def settings(self, row: Row, seed: int) -> RestorerRun:
        """The configuration of a row's run."""
        pairs = [*self._arguments.set, *row.settings, f"seed={seed}"]
        return read_config(RestorerRun, self._config, pairs)

    def checkpoint(self, row: Row, seed: int) -> Path:
        """Folder of a row's run."""
        return Path(self._folder / f"{row.name}-{seed}")

    def measured(self, row: Row, seed: int) -> dict[str, Any] | None:
        """What is on record of a row, if anything."""
        found: dict[str, Any] | None = self.record.get(row.name, {}).get(str(seed))
        return found

    def asked(self) -> list[tuple[Row, int]]:
        """The rows and seeds that the command line wants run now."""
        wanted: list[tuple[Row, int]] = []
        for name in self._arguments.rerun:
            if name != "missing" and name not in self.rows:
                raise SystemExit(
                    f"--rerun {name}: no such row; expected missing or {', '.join(self.rows)}"
                )
        for row in self.rows.values():
            for seed in self._arguments.seeds:
                missing = "missing" in self._arguments.rerun and self.measured(row, seed) is None
                if missing or row.name in self._arguments.rerun:
                    wanted.append((row, seed))
        return wanted

    def run(self, measure: Callable[[Row, int, Path, dict[str, float]], dict[str, Any]]) -> None:
        """Train what was asked for and keep what ``measure`` makes of each checkpoint.

        ``measure`` gets the row, its seed, the checkpoint and the validation figures. A run that
        was stopped continues; to start one anew, delete its folder.
        """
        asked = self.asked()
        if not asked:
            return
        if self._arguments.data is None or self._arguments.reasoner is None:
            raise SystemExit("--rerun trains: give --data and --reasoner too")
        for place, (row, seed) in enumerate(asked, start=1):
            print(f"[{place}/{len(asked)}] {row.title}, seed {seed}", flush=True)
            out = self.checkpoint(row, seed)
            figures = train_restorer(
                self.settings(row, seed),
                self._arguments.data,
                out,
                self._arguments.cache,
                reasoner=self.reasoner(row),
                resume=True,
            )
            found = measure(row, seed, out, figures)
            self.record.setdefault(row.name, {})[str(seed)] = found
            text = json.dumps(self.record, indent=1, sort_keys=True) + "\n"
            self._arguments.record.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._arguments.record, text.encode())

    def reasoner(self, row: Row) -> Path:
        """Checkpoint of the reasoner whose diagnoses a row is given."""
        trained = Path(self._arguments.reasoner)
        if row.reasoner == "trained":
            return trained
        return untrained(trained, self._folder / "untrained-reasoner")


def untrained(trained: Path, folder: Path) -> Path:
    """A checkpoint of the same reasoner with the weights it would start its training with."""
    import torch

    from rirf_training.networks.checkpoint import load_network, save_network
    from rirf_training.networks.reasoner import Reasoner

    if not (folder / "config.json").exists():
        stored, _ = load_network(trained)
        if not isinstance(stored, Reasoner):
            raise SystemExit(f"{trained} holds a {stored.config.kind}, expected a reasoner")
        torch.manual_seed(0)
        fresh = Reasoner(stored.config)
        # Standardisation is no training: the statistics keep theirs.
        fresh.usual.copy_(stored.usual)
        fresh.spread.copy_(stored.spread)
        save_network(folder, fresh, {"untrained": True})
    return folder
