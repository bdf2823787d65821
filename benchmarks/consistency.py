"""Does the consistency check tell right diagnoses from wrong ones, and what does it cost?

Takes a slice of evaluation protocol v1 and restores each frame with one coarse pass and, in turn,
its true diagnosis, the predicted one, none, another frame's (``shuffled``, as in the protocol), and
the true one with a single effect taken from that other frame (where either has it). ``clean`` is no
restoration: the clean frame itself with the true diagnosis, that is, what the check says when
everything is right. Prints two tables and, last, one JSON line.

AUC is the chance that a wrong diagnosis has the larger discrepancy, over all pairs of frames.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import rirf
from rirf.consistency import DISCREPANCY_MAX, Consistency, assess
from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.errors import require
from rirf.evaluation.environment import describe
from rirf.evaluation.metrics import measure
from rirf.evaluation.protocol import Sample, draw, load_protocol, shuffle_cycle, truth_map
from rirf.reasoner import Reading

WRONG = tuple(f"wrong {name}" for name in EFFECTS)
CONDITIONS = ("clean", "true", "predicted", "none", "shuffled", *WRONG)
SCORES = ("unexplained", "coarse_unexplained", "discrepancy")


@dataclass(frozen=True)
class Row:
    """One frame under one condition; PSNR in dB, gain over the input, loss against the truth."""

    case: str
    condition: str
    consistency: Consistency
    psnr: float
    gain: float
    loss: float
    shaken: bool
    check_ms: float
    frame_ms: float


def oracle(sample: Sample) -> Reading:
    return Reading(sample.degraded.diagnosis, truth_map(sample.degraded.transmission))


def spoilt(truth: Reading, donor: Reading, name: str) -> Reading | None:
    """The truth with one effect of the donor; None where neither has it."""
    ours, theirs = truth.diagnosis, donor.diagnosis
    if ours is None or theirs is None:
        raise ValueError("expected two readings with a diagnosis")
    if not (ours.effect(name).present or theirs.effect(name).present):
        return None
    mixed: Diagnosis = ours.model_copy(update={name: theirs.effect(name)})
    return Reading(mixed, (donor if name == "fog" else truth).transmission)


def rows_of(pipeline: rirf.Pipeline, sample: Sample, donor: Reading) -> Iterator[Row]:
    truth = oracle(sample)
    readings = {
        "true": truth,
        "predicted": pipeline.read(sample.frame),
        "none": Reading(),
        "shuffled": donor,
        **{f"wrong {name}": spoilt(truth, donor, name) for name in EFFECTS},
    }
    before = measure(sample.frame, sample.truth).psnr
    name, best = sample.case.name, 0.0
    perfect = assess(sample.frame, sample.truth, truth)
    yield Row(name, "clean", perfect, 100.0, 100.0 - before, 0.0, False, 0.0, 0.0)
    for condition, reading in readings.items():
        if reading is None:
            continue
        result = pipeline.restore(sample.frame, reading, steps="coarse", consistency=True)
        if result.consistency is None:
            raise ValueError("the pipeline gave no consistency though it was asked for")
        psnr = measure(result.image, sample.truth).psnr
        best = psnr if condition == "true" else best
        seconds = result.timings
        yield Row(
            case=name,
            condition=condition,
            consistency=result.consistency,
            psnr=psnr,
            gain=psnr - before,
            loss=best - psnr,
            shaken=reading.diagnosis is not None and reading.diagnosis.shake.present,
            check_ms=1e3 * seconds["consistency"],
            frame_ms=1e3 * (seconds["total"] - seconds["consistency"]),
        )


def auc(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> float:
    below = (right[:, None] < wrong).mean() + 0.5 * (right[:, None] == wrong).mean()
    return float(below)


def values(rows: Sequence[Row], score: str) -> NDArray[np.float64]:
    return np.array([getattr(row.consistency, score) for row in rows], dtype=np.float64)


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures by condition, what the scores go along with, and the cost."""
    by = {name: [row for row in rows if row.condition == name] for name in CONDITIONS}
    by = {name: found for name, found in by.items() if found}
    conditions = {}
    for name, found in by.items():
        conditions[name] = {
            "frames": len(found),
            "psnr_db": float(np.mean([row.psnr for row in found])),
            "loss_db": float(np.mean([row.loss for row in found])),
            **{
                field: float(values(found, field).mean())
                for field in ("residual", "expected", "coarse_residual", "coarse_expected")
            },
            "discrepancy_median": float(np.median(values(found, "discrepancy"))),
            "flagged": float(np.mean([not row.consistency.consistent for row in found])),
            "auc": {
                score: {
                    right: auc(values(by[right], score), values(found, score))
                    for right in ("true", "predicted")
                }
                for score in SCORES
            },
        }
    spearmanr = require("scipy.stats", "eval", "rank figures").spearmanr
    correlations = {}
    for label, names in {"predicted": ("predicted",), "both": ("predicted", "shuffled")}.items():
        pooled = [row for name in names for row in by[name]]
        correlations[label] = {
            score: {
                figure: float(
                    spearmanr(values(pooled, score), [getattr(row, figure) for row in pooled])[0]
                )
                for figure in ("psnr", "gain", "loss")
            }
            for score in SCORES
        }
    timed = [row for row in rows if row.condition not in ("clean", "none")]
    cost = {}
    for label, shaken in (("with shake", True), ("without shake", False)):
        of_these = [row for row in timed if row.shaken is shaken]
        if of_these:
            check, frame = (
                float(np.median([getattr(row, field) for row in of_these]))
                for field in ("check_ms", "frame_ms")
            )
            cost[label] = {"check_ms": check, "frame_ms": frame, "share": check / frame}
    return {"conditions": conditions, "spearman": correlations, "cost": cost}


def show(found: dict[str, Any]) -> None:
    print(
        f"{'diagnosis':<12} {'frames':>6} {'PSNR dB':>8} {'loss dB':>8} {'residual':>9} "
        f"{'expected':>9} {'coarse':>7} {'expected':>9} {'discrepancy':>12} {'flagged':>8} "
        f"{'AUC/true':>9} {'AUC/pred.':>10}"
    )
    for name, row in found["conditions"].items():
        chance = row["auc"]["discrepancy"]
        print(
            f"{name:<12} {row['frames']:>6} {row['psnr_db']:>8.2f} "
            f"{row['loss_db']:>8.2f} {row['residual']:>9.4f} "
            f"{row['expected']:>9.4f} {row['coarse_residual']:>7.4f} "
            f"{row['coarse_expected']:>9.4f} {row['discrepancy_median']:>12.4f} "
            f"{row['flagged']:>8.2f} {chance['true']:>9.3f} {chance['predicted']:>10.3f}"
        )
    print(f"\n{'score':<20} {'AUC':>6}   Spearman, predicted: PSNR gain loss   with shuffled: same")
    for score in SCORES:
        chance = found["conditions"]["shuffled"]["auc"][score]["predicted"]
        rank = {label: found["spearman"][label][score] for label in found["spearman"]}
        figures = "   ".join(
            " ".join(f"{rank[label][figure]:+.2f}" for figure in ("psnr", "gain", "loss"))
            for label in ("predicted", "both")
        )
        print(f"{score:<20} {chance:>6.3f}   {figures}")
    for label, cost in found["cost"].items():
        print(
            f"cost {label}: {cost['check_ms']:.1f} ms beside {cost['frame_ms']:.0f} ms "
            f"({100 * cost['share']:.1f} %)"
        )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data folder of rirf eval")
    parser.add_argument("--limit", type=int, default=80, help="images (default: 80)")
    parser.add_argument("--bundle", type=Path, help="a .rirf bundle (default: the one shipped)")
    parser.add_argument("--threads", type=int, help="CPU threads for inference")
    arguments = parser.parse_args(argv)
    protocol = load_protocol(arguments.data, limit=arguments.limit)
    cycle = shuffle_cycle(protocol.cases)
    donor = oracle(draw(cycle[-1]))
    rows: list[Row] = []
    with rirf.load(arguments.bundle, threads=arguments.threads) as pipeline:
        pipeline.warm_up(384, 480)
        for case in tqdm(cycle, unit="image", disable=None):
            sample = draw(case)
            rows += rows_of(pipeline, sample, donor)
            donor = oracle(sample)
        where = describe(pipeline, arguments.threads)
    found = summary(rows)
    show(found)
    record = {
        "benchmark": "consistency",
        "images": len(cycle),
        "protocol": protocol.name,
        "steps": "coarse",
        "size": "481x321, 480x360",
        "flagged_above": DISCREPANCY_MAX,
        **where,
        **found,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
