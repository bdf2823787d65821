"""Where the step policy's bypass belongs: what restoring gains, by burden.

Takes the draws a training run rendered: all held-out ones, and of 1500 training draws those that
are degraded lightly (severities below 15 together), which the held-out ones have few of. Prints a
table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import rirf
from rirf.diagnosis import EFFECTS
from rirf.evaluation.metrics import measure
from rirf.policy import burden
from rirf_training.data.draws import DrawSet

EDGES = (0, 3, 6, 9, 12, 16, 20, 30, 40)
TRAINING_DRAWS = 1500
LIGHT = 15.0


def chosen(draws: DrawSet, share: float) -> list[int]:
    training, held = draws.split(share)
    more = np.random.default_rng(0).choice(training, min(TRAINING_DRAWS, len(training)), False)

    def severity(position: int) -> float:
        truth = draws.diagnosis(position)
        return sum(truth.effect(name).severity for name in EFFECTS)

    return [*map(int, held), *(int(p) for p in more if severity(int(p)) < LIGHT)]


def gain(pipeline: rirf.Pipeline, draws: DrawSet, position: int) -> dict[str, Any] | None:
    """One draw's figures, or None where its burden lies beyond the table."""
    frame = np.ascontiguousarray(draws.degraded(position))
    clean = np.ascontiguousarray(draws.clean(position))
    reading = pipeline.read(frame)
    if reading.diagnosis is None or (worst := max(burden(reading.diagnosis).values())) >= EDGES[-1]:
        return None
    before = measure(frame, clean).psnr
    after = measure(pipeline.restore(frame, reading, steps="coarse").image, clean).psnr
    truth = draws.diagnosis(position)
    degraded = any(truth.effect(name).present for name in EFFECTS)
    return {"burden": worst, "degraded": degraded, "before": before, "after": after}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=Path, required=True, help="cache folder of rirf train")
    parser.add_argument("--bundle", type=Path, help="a .rirf bundle (default: the one shipped)")
    parser.add_argument("--share", type=float, default=0.05, help="the run's validation_share")
    arguments = parser.parse_args()
    draws = DrawSet.open(arguments.draws)
    with rirf.load(arguments.bundle) as pipeline:
        device = pipeline.restorer.device
        positions = tqdm(chosen(draws, arguments.share), unit="draw", disable=None)
        measured = [gain(pipeline, draws, position) for position in positions]
    found = [each for each in measured if each is not None]
    rows = []
    print(f"{'burden':>8} {'clean':>6} {'degraded':>9} {'input dB':>9} {'gain dB':>8} {'share':>8}")
    for low, high in pairwise(EDGES):
        inside = [each for each in found if low <= each["burden"] < high]
        hurt = [each for each in inside if each["degraded"]]
        gains = np.array([each["after"] - each["before"] for each in hurt])
        row = {
            "low": low,
            "high": high,
            "clean": len(inside) - len(hurt),
            "degraded": len(hurt),
            "input_db": float(np.mean([each["before"] for each in hurt])) if hurt else None,
            "gain_db": float(gains.mean()) if hurt else None,
            "share_gaining": float((gains > 0).mean()) if hurt else None,
        }
        rows.append(row)
        shown = [row["input_db"], row["gain_db"], row["share_gaining"]]
        text = " ".join("       -" if value is None else f"{value:8.2f}" for value in shown)
        print(f"{low:>4}-{high:<3} {row['clean']:>6} {row['degraded']:>9} {text}")
    spoilt = [each["after"] for each in found if not each["degraded"]]
    print(f"clean frames, restored all the same: {np.mean(spoilt):.1f} dB on average")
    record = {"benchmark": "bypass_gain", "provider": device, "draws": len(found), "rows": rows}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
