"""Fits a bundle's step policy: when to leave a frame alone, and how many steps it deserves.

Every held-out draw of a training run, and every held-out clean image as it is, is diagnosed and
restored in each mode the bundle has; gains and milliseconds come from the same run. Images of a
test split are refused. Two fits:

- Bypass: the summary of a diagnosis (``--bypass-by``, by default the burden of the worst effect)
  below which restoring loses on average; the threshold is raised until the wanted share of clean
  frames is left alone, as far as that costs the degraded ones no more than ``BYPASS_LOSS_MAX_DB``
  on average.
- Ladder: by rising total burden, the modes in the order of their cost, cut where the sum of PSNR
  minus ``MIN_GAIN_DB_PER_MS`` times milliseconds is largest: a mode is used where the dB it adds to
  a cheaper one are worth the milliseconds it adds, and left out where they never are.

Writes the JSON that ``rirf export --policy`` reads. Prints tables and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import rirf
from rirf.diagnosis import EFFECTS
from rirf.errors import ImageError, OutputError, RirfError, require
from rirf.evaluation.environment import describe
from rirf.evaluation.metrics import Figures, measure
from rirf.files import write_atomic
from rirf.policy import SUMMARIES, FittedPolicy, Mode, Summary
from rirf_training.data.draws import DrawSet

# A step must add this many dB for each millisecond it takes. The coarse leap adds some 7 dB in some
# 50 ms, 0.14 dB/ms; a further step of that length must still add 0.1 dB.
MIN_GAIN_DB_PER_MS = 0.002
CLEAN_BYPASSED_MIN = 0.97
BYPASS_LOSS_MAX_DB = 0.05
# A rung must be met by this share of the frames, so that a handful of them makes none.
RUNG_SHARE_MIN = 0.05
TOTAL_EDGES = (0, 20, 40, 60, 80, 100, 130, 160, 200, 400)
BYPASS_EDGES: dict[Summary, tuple[float, ...]] = {
    "worst_burden": (0, 3, 6, 9, 12, 16, 20, 30, 40, 60, 100),
    "total_burden": (0, 3, 6, 9, 12, 16, 20, 30, 40, 60, 400),
    "any_probability": (0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 1),
}
AXES: dict[Summary, str] = {
    "worst_burden": "burden of the worst effect, points",
    "total_burden": "total burden, points",
    "any_probability": "probability of any effect",
}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """A held-out frame: draw ``position`` of the set, or the clean image it was made of."""

    position: int
    degraded: bool


@dataclass(frozen=True)
class Outcome:
    """What was measured on a frame.

    Attributes:
        image: number of the clean image.
        degraded: whether any effect is present.
        summaries: of its diagnosis, by name, see :mod:`rirf.policy`.
        figures: ``input`` and each mode, against the clean frame.
        milliseconds: of restoring, by mode.
    """

    image: int
    degraded: bool
    summaries: dict[Summary, float]
    figures: dict[str, Figures]
    milliseconds: dict[str, float]

    def gain(self, mode: str) -> float:
        return self.figures[mode].psnr - self.figures["input"].psnr


def frames(draws: DrawSet, share: float, limit: int | None) -> list[Frame]:
    """The held-out draws with an effect, and both ways round the held-out clean images.

    Args:
        draws: rendered by ``rirf train``.
        share: the run's validation_share.
        limit: take this many, evenly spaced.

    Raises:
        ImageError: nothing is held out, or an image is of a test split.
    """
    _, held = draws.split(share)
    if not len(held):
        raise ImageError(f"{draws.root}: holds no held-out draws at a validation share of {share}")
    names = {draws.names[position // draws.draws] for position in held}
    test = sorted(name for name in names if "test" in PurePosixPath(name).parts[:-1])
    if test:
        raise ImageError(
            f"{draws.root}: {test[0]} is of a test split; a policy is fitted on validation images "
            "alone, so that the test split stays unseen"
        )
    degraded = [
        Frame(int(position), True)
        for position in held
        if any(draws.diagnosis(int(position)).effect(name).present for name in EFFECTS)
    ]
    # Odd draws are of the mirrored image.
    clean = [Frame(int(p), False) for p in held if p % draws.draws < 2]
    found = sorted([*degraded, *clean], key=lambda frame: (frame.position, frame.degraded))
    if limit is None or limit >= len(found):
        return found
    spaced = [(2 * place + 1) * len(found) // (2 * limit) for place in range(limit)]
    return [found[place] for place in spaced]


def look(
    pipeline: rirf.Pipeline, draws: DrawSet, frame: Frame, modes: Sequence[Mode], turn: int
) -> Outcome:
    """Diagnose a frame and restore it in each mode, beginning with another one each turn."""
    clean = np.ascontiguousarray(draws.clean(frame.position))
    given = np.ascontiguousarray(draws.degraded(frame.position)) if frame.degraded else clean
    reading = pipeline.read(given)
    if reading.diagnosis is None:
        raise RirfError("the reasoner gave no diagnosis; export the bundle again")
    images: dict[str, NDArray[np.uint8]] = {"input": given}
    milliseconds: dict[str, float] = {}
    first = turn % len(modes)
    for mode in (*modes[first:], *modes[:first]):
        result = pipeline.restore(given, reading, steps=mode)
        images[mode] = result.image
        milliseconds[mode] = 1e3 * result.timings["total"]
    diagnosis = reading.diagnosis
    return Outcome(
        image=frame.position // draws.draws,
        degraded=frame.degraded,
        summaries={name: summary(diagnosis) for name, summary in SUMMARIES.items()},
        figures={name: measure(image, clean) for name, image in images.items()},
        milliseconds=milliseconds,
    )


def between(low: float, high: float) -> float:
    """A round number above ``low`` and not above ``high``, near their middle."""
    middle = 0.5 * (low + high)
    for digits in range(1, 7):
        if low < (found := round(middle, digits)) <= high:
            return found
    return high


@dataclass(frozen=True)
class Bypass:
    """A threshold and what it does to the frames it was fitted on.

    Attributes:
        below: the threshold.
        clean: share of the clean frames below it.
        degraded: share of the degraded frames below it.
        loss: dB that leaving those alone costs, averaged over all degraded frames.
        loss_each: the same averaged over those that are left alone, None without any.
    """

    below: float
    clean: float
    degraded: float
    loss: float
    loss_each: float | None


def apply_bypass(below: float, clean: Array, burdens: Array, gains: Array) -> Bypass:
    """What a threshold does to clean frames and to degraded ones with such gains."""
    left = burdens < below
    return Bypass(
        below=below,
        clean=float((clean < below).mean()) if len(clean) else 0.0,
        degraded=float(left.mean()) if len(burdens) else 0.0,
        loss=float(gains[left].sum() / len(gains)) if len(gains) else 0.0,
        loss_each=float(gains[left].mean()) if left.any() else None,
    )


def fit_bypass(
    clean: Array,
    burdens: Array,
    gains: Array,
    *,
    wanted: float = CLEAN_BYPASSED_MIN,
    allowed: float = BYPASS_LOSS_MAX_DB,
) -> Bypass:
    """The threshold below which a frame is left alone.

    Args:
        clean: burdens of the clean frames.
        burdens: burdens of the degraded frames.
        gains: what restoring gains on those, in dB.
        wanted: share of the clean frames to leave alone.
        allowed: dB, averaged over the degraded frames, that this may cost.

    Where the degraded frames below it have gained least in sum, restoring loses on average below
    it; from there it rises to the first that leaves the wanted share of the clean frames alone, or
    to the one that leaves most of them alone at the allowed cost.
    """
    values = np.unique(np.concatenate([clean, burdens]))
    if not len(values):
        raise RirfError("no frame was measured; a bypass cannot be fitted")
    # None above all values: that would leave every frame alone.
    ends = [0.0, *map(float, values)]
    tried = [0.0] + [between(low, high) for low, high in pairwise(ends) if high > low]
    found = [apply_bypass(below, clean, burdens, gains) for below in tried]
    start = min(range(len(found)), key=lambda place: found[place].loss)
    best = found[start]
    for each in found[start:]:
        if best.clean >= wanted:
            break
        if each.loss <= allowed and each.clean > best.clean:
            best = each
    return best


def crossed_bypass(
    images: Sequence[int], degraded: NDArray[np.bool_], burdens: Array, gains: Array, **fit: float
) -> dict[str, float] | None:
    """Shares and loss on images the threshold was not fitted on: each half by the other's."""
    half = np.array(images) % 2 == 0
    clean_left, left, loss = [], [], []
    for mine in (half, ~half):
        there = ~mine
        parts = [part[mine] for part in (degraded, burdens, gains)]
        if not parts[0].any() or parts[0].all() or not there.any():
            return None
        below = fit_bypass(parts[1][~parts[0]], parts[1][parts[0]], parts[2][parts[0]], **fit).below
        alone = burdens[there] < below
        clean_left += list(alone[~degraded[there]])
        left += list(alone[degraded[there]])
        loss += list(np.where(alone, gains[there], 0.0)[degraded[there]])
    return {
        "clean_bypassed": round(float(np.mean(clean_left)), 4),
        "degraded_bypassed": round(float(np.mean(left)), 4),
        "loss_db": round(float(np.mean(loss)), 4),
    }


def fit_ladder(
    totals: Array,
    psnr: Mapping[str, Array],
    milliseconds: Mapping[str, float],
    *,
    minimum: float = MIN_GAIN_DB_PER_MS,
) -> list[dict[str, Any]]:
    """Rungs (``above``, ``mode``) by rising total burden.

    Args:
        totals: total burden of each frame (N,).
        psnr: PSNR of each frame by mode (N,), the cheapest mode first.
        milliseconds: of each mode.
        minimum: dB a millisecond must add.

    The cut of the frames, ordered by burden, into stretches of rising modes whose sum of PSNR minus
    ``minimum`` times milliseconds is the largest of all; ties go to the cheaper mode. A stretch
    holds ``RUNG_SHARE_MIN`` of the frames or more.
    """
    order = np.argsort(totals, kind="stable")
    burdens, count = totals[order], len(totals)
    fewest = max(1, int(np.ceil(RUNG_SHARE_MIN * count)))
    # A cut lies between two different burdens.
    cut = np.concatenate([[True], burdens[1:] > burdens[:-1], [True]])
    # best[k]: the largest sum over the first k frames, and its stretches (begin, mode).
    best: list[tuple[float, tuple[tuple[int, str], ...]]] = [(0.0, ())]
    best += [(-np.inf, ())] * count
    for mode, quality in psnr.items():
        worth = quality[order] - minimum * milliseconds[mode]
        sums = np.concatenate([[0.0], np.cumsum(worth)])
        improved = list(best)
        # The best place to begin this mode at, among those a whole stretch back.
        reach, begin = -np.inf, -1
        for end in range(fewest, count + 1):
            if cut[end - fewest] and best[end - fewest][0] - sums[end - fewest] > reach:
                begin = end - fewest
                reach = best[begin][0] - sums[begin]
            if cut[end] and reach + sums[end] > improved[end][0] + 1e-9:
                improved[end] = (reach + sums[end], (*best[begin][1], (begin, mode)))
        best = improved
    stretches = best[count][1]
    return [
        {
            "above": between(float(burdens[at - 1]), float(burdens[at])) if at else 0.0,
            "mode": mode,
        }
        for at, mode in stretches
    ]


def rung_of(ladder: Sequence[Mapping[str, Any]], total: float) -> str:
    """The mode a ladder gives a total burden."""
    return str(next(rung["mode"] for rung in reversed(ladder) if total >= rung["above"]))


def mode_table(
    degraded: Sequence[Outcome],
    milliseconds: Mapping[str, float],
    ladder: Sequence[Mapping[str, Any]],
    minimum: float,
) -> dict[str, dict[str, Any]]:
    """By mode: mean gain over the input and the next cheaper mode, time, share, verdict."""
    used = [rung_of(ladder, each.summaries["total_burden"]) for each in degraded]
    kept = [rung["mode"] for rung in ladder]
    table: dict[str, dict[str, Any]] = {}
    before: str | None = None
    for mode, time in milliseconds.items():
        row: dict[str, Any] = {"milliseconds": round(time, 2), "kept": mode in kept}
        cheaper = before if before is not None else "input"
        for key, other in (("over_input", "input"), ("over_cheaper", cheaper)):
            row[key] = {
                unit: round(
                    float(
                        np.mean(
                            [
                                getattr(each.figures[mode], unit)
                                - getattr(each.figures[other], unit)
                                for each in degraded
                            ]
                        )
                    ),
                    4,
                )
                for unit in ("psnr", "ssim")
            }
        more = time - (milliseconds[before] if before is not None else 0.0)
        rate = row["over_cheaper"]["psnr"] / more if more > 0 else None
        row["db_per_ms"] = None if rate is None else round(rate, 6)
        row["share"] = round(used.count(mode) / len(used), 4)
        gained = f"{row['over_cheaper']['psnr']:+.3f} dB over {cheaper} for {more:.1f} ms more"
        row["verdict"] = (
            f"{gained}, used for {row['share']:.0%} of the degraded frames"
            if row["kept"]
            else f"{gained}; nowhere are its dB worth {minimum:g} dB/ms"
        )
        table[mode] = row
        before = mode
    return table


def bypass_bins(outcomes: Sequence[Outcome], mode: str, by: Summary) -> list[dict[str, Any]]:
    """By a summary: frames, input and gain, share that gains."""
    rows = []
    for low, high in pairwise(BYPASS_EDGES[by]):
        last = high == BYPASS_EDGES[by][-1]
        inside = [
            each
            for each in outcomes
            if low <= each.summaries[by] < high or (last and each.summaries[by] == high)
        ]
        hurt = [each for each in inside if each.degraded]
        gains = np.array([each.gain(mode) for each in hurt])
        spoilt = [each.figures[mode].psnr for each in inside if not each.degraded]
        rows.append(
            {
                "low": low,
                "high": high,
                "clean": len(inside) - len(hurt),
                "clean_restored_db": float(np.mean(spoilt)) if spoilt else None,
                "degraded": len(hurt),
                "input_db": float(np.mean([each.figures["input"].psnr for each in hurt]))
                if hurt
                else None,
                "gain_db": float(gains.mean()) if hurt else None,
                "share_gaining": float((gains > 0).mean()) if hurt else None,
            }
        )
    return rows


def total_bins(degraded: Sequence[Outcome], modes: Sequence[str]) -> list[dict[str, Any]]:
    """By total burden: frames, and the mean gain of each mode over the input."""
    rows = []
    for low, high in pairwise(TOTAL_EDGES):
        last = high == TOTAL_EDGES[-1]
        inside = [
            each
            for each in degraded
            if low <= each.summaries["total_burden"] < high
            or (last and each.summaries["total_burden"] == high)
        ]
        gains = {
            mode: float(np.mean([each.gain(mode) for each in inside])) if inside else None
            for mode in modes
        }
        rows.append({"low": low, "high": high, "degraded": len(inside), "gain_db": gains})
    return rows


@dataclass(frozen=True)
class Fit:
    """The policy's numbers and the record of how they were found."""

    below: float
    by: Summary
    ladder: list[dict[str, Any]]
    record: dict[str, Any]


def fit(
    outcomes: Sequence[Outcome],
    modes: Sequence[str],
    by: Summary = "worst_burden",
    *,
    wanted: float,
    allowed: float,
    minimum: float,
) -> Fit:
    """Fit ladder and bypass to what was measured.

    Raises:
        RirfError: there is no degraded or no clean frame.
    """
    degraded = [each for each in outcomes if each.degraded]
    clean = [each for each in outcomes if not each.degraded]
    if not degraded or not clean:
        raise RirfError(
            f"got {len(degraded)} degraded and {len(clean)} clean frames; both are needed: take "
            "more with a larger --limit"
        )
    milliseconds = {
        mode: float(np.median([each.milliseconds[mode] for each in outcomes])) for mode in modes
    }
    psnr = {mode: np.array([each.figures[mode].psnr for each in degraded]) for mode in modes}
    totals = np.array([each.summaries["total_burden"] for each in degraded])
    ladder = fit_ladder(totals, psnr, milliseconds, minimum=minimum)

    # What a frame would gain if it were not left alone.
    chosen = [rung_of(ladder, each.summaries["total_burden"]) for each in outcomes]
    gains = np.array([each.gain(mode) for each, mode in zip(outcomes, chosen, strict=True)])
    hurt = np.array([each.degraded for each in outcomes])
    images = [each.image for each in outcomes]
    found: dict[Summary, Bypass] = {}
    crossed: dict[Summary, dict[str, float] | None] = {}
    limits = {"wanted": wanted, "allowed": allowed}
    for name in SUMMARIES:
        values = np.array([each.summaries[name] for each in outcomes])
        found[name] = fit_bypass(values[~hurt], values[hurt], gains[hurt], **limits)
        crossed[name] = crossed_bypass(images, hurt, values, gains, **limits)
    bypass = found[by]
    touched = [
        each.figures[mode].psnr
        for each, mode in zip(outcomes, chosen, strict=True)
        if not each.degraded and each.summaries[by] >= bypass.below
    ]
    record = {
        "frames": {"degraded": len(degraded), "clean": len(clean), "images": len(set(images))},
        "rule": {
            "clean_bypassed_min": wanted,
            "bypass_loss_max_db": allowed,
            "min_gain_db_per_ms": minimum,
            "rung_share_min": RUNG_SHARE_MIN,
        },
        "bypass": {
            "by": by,
            "below": bypass.below,
            "clean_bypassed": round(bypass.clean, 4),
            "degraded_bypassed": round(bypass.degraded, 4),
            "loss_db": round(bypass.loss, 4),
            "loss_db_each": None if bypass.loss_each is None else round(bypass.loss_each, 4),
            "wanted_reached": bypass.clean >= wanted,
            "clean_restored_worst_db": round(min(touched), 2) if touched else None,
            "other_half": crossed[by],
        },
        "summaries": {
            name: {
                "below": each.below,
                "clean_bypassed": round(each.clean, 4),
                "degraded_bypassed": round(each.degraded, 4),
                "loss_db": round(each.loss, 4),
                "other_half": crossed[name],
            }
            for name, each in found.items()
        },
        "modes": mode_table(degraded, milliseconds, ladder, minimum),
        "ladder": ladder,
        "by_summary": bypass_bins(outcomes, ladder[0]["mode"], by),
        "by_total": total_bins(degraded, modes),
    }
    return Fit(bypass.below, by, ladder, record)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(line[place]) for line in (head, *rows)) for place in range(len(head))]
    for line in (head, *rows):
        first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        yield "  ".join([first, *rest])


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def text(record: Mapping[str, Any]) -> str:
    """The record for people."""
    by = record["bypass"]["by"].replace("_", " ")
    lines = [
        f"{record['frames']['degraded']} degraded and {record['frames']['clean']} clean frames of "
        f"{record['frames']['images']} held-out images; {record['device']}, {record['provider']}, "
        f"threads {record['threads']}",
        "",
        *_grid(
            ("mode", "ms", "dB over input", "SSIM", "dB over cheaper", "SSIM", "dB/ms", "share"),
            [
                (
                    mode,
                    f"{row['milliseconds']:.1f}",
                    f"{row['over_input']['psnr']:+.3f}",
                    f"{row['over_input']['ssim']:+.4f}",
                    f"{row['over_cheaper']['psnr']:+.3f}",
                    f"{row['over_cheaper']['ssim']:+.4f}",
                    _cell(row["db_per_ms"], ".5f"),
                    f"{row['share']:.0%}" if row["kept"] else "left out",
                )
                for mode, row in record["modes"].items()
            ],
        ),
        "",
        *_grid(
            ("total burden", "frames", *(f"{mode} dB" for mode in record["modes"])),
            [
                (
                    f"{row['low']}-{row['high']}",
                    str(row["degraded"]),
                    *(_cell(gain, "+.2f") for gain in row["gain_db"].values()),
                )
                for row in record["by_total"]
            ],
        ),
        "",
        *_grid(
            (by, "clean", "restored dB", "degraded", "input dB", "gain dB", "gaining"),
            [
                (
                    f"{row['low']}-{row['high']}",
                    str(row["clean"]),
                    _cell(row["clean_restored_db"], ".2f"),
                    str(row["degraded"]),
                    _cell(row["input_db"], ".2f"),
                    _cell(row["gain_db"], "+.2f"),
                    _cell(row["share_gaining"], ".0%"),
                )
                for row in record["by_summary"]
            ],
        ),
        "",
        *_grid(
            ("bypass by", "below", "clean", "degraded", "loss dB", "clean, other half", "loss dB"),
            [
                (
                    name.replace("_", " "),
                    f"{row['below']:g}",
                    f"{row['clean_bypassed']:.1%}",
                    f"{row['degraded_bypassed']:.1%}",
                    f"{row['loss_db']:+.4f}",
                    _cell((row["other_half"] or {}).get("clean_bypassed"), ".1%"),
                    _cell((row["other_half"] or {}).get("loss_db"), "+.4f"),
                )
                for name, row in record["summaries"].items()
            ],
        ),
        "",
    ]
    bypass = record["bypass"]
    each = bypass["loss_db_each"]
    lines.append(
        f"bypass below {bypass['below']:g} of {by}: {bypass['clean_bypassed']:.1%} of the clean "
        f"frames ({'reaches' if bypass['wanted_reached'] else 'MISSES'} the wanted "
        f"{record['rule']['clean_bypassed_min']:.0%}), {bypass['degraded_bypassed']:.1%} of the "
        "degraded ones" + ("" if each is None else f", which lose {each:+.2f} dB each")
    )
    if bypass["clean_restored_worst_db"] is not None:
        lines.append(
            f"worst of the clean frames that are not: {bypass['clean_restored_worst_db']:.1f} dB"
        )
    rungs = ", ".join(f"{rung['mode']} from {rung['above']:g}" for rung in record["ladder"])
    lines.append(f"ladder: {rungs}")
    lines += [
        f"left out: {mode}, {row['verdict']}"
        for mode, row in record["modes"].items()
        if not row["kept"]
    ]
    return "\n".join(lines)


def plot(outcomes: Sequence[Outcome], found: Fit, modes: Sequence[str]) -> bytes:
    """Gain against burden by mode with the thresholds drawn in, as PNG."""
    require("matplotlib", "train", "draw the curve")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    degraded = [each for each in outcomes if each.degraded]
    clean = [each for each in outcomes if not each.degraded]
    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    first = found.ladder[0]["mode"]

    left.scatter(
        [each.summaries[found.by] for each in degraded],
        [each.gain(first) for each in degraded],
        s=9,
        color="tab:blue",
        alpha=0.6,
        linewidths=0,
        label="degraded frames",
    )
    low, high = left.get_ylim()
    # Restoring a clean frame has no gain in dB (its input has no error): where they lie counts.
    left.scatter(
        [each.summaries[found.by] for each in clean],
        np.full(len(clean), low - 0.06 * (high - low)),
        marker="|",
        s=60,
        color="tab:green",
        linewidths=0.9,
        label="clean frames (summary alone)",
    )
    left.axhline(0.0, color="black", linewidth=0.8)
    left.axvline(found.below, color="tab:red", linewidth=1.4, label=f"bypass below {found.below:g}")
    if found.by != "any_probability":
        left.set_xscale("symlog", linthresh=1.0)
        left.set_xlim(left=0.0)
        left.set_xticks((0, 1, 3, 10, 30, 100), ("0", "1", "3", "10", "30", "100"))
    left.set_xlabel(AXES[found.by])
    left.set_ylabel(f"PSNR gain of {first} over the input, dB")

    for mode in modes:
        rows = [row for row in total_bins(degraded, modes) if row["degraded"]]
        right.plot(
            [
                float(
                    np.mean(
                        [
                            each.summaries["total_burden"]
                            for each in degraded
                            if row["low"] <= each.summaries["total_burden"] <= row["high"]
                        ]
                    )
                )
                for row in rows
            ],
            [row["gain_db"][mode] for row in rows],
            marker="o",
            markersize=4,
            linewidth=1.4,
            label=mode,
        )
    for rung in found.ladder:
        right.axvline(rung["above"], color="tab:red", linewidth=1.2, linestyle="--")
        right.annotate(
            f"{rung['mode']} from {rung['above']:g}",
            (rung["above"], 0.02),
            xycoords=("data", "axes fraction"),
            rotation=90,
            textcoords="offset points",
            xytext=(4, 0),
            fontsize=8,
            color="tab:red",
        )
    right.set_xlabel("total burden, points")
    right.set_ylabel("mean PSNR gain over the input, dB")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _check_output(path: Path | None) -> None:
    """A run takes minutes: a path that cannot be written is said before it."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise OutputError(f"{path}: expected a file in a folder that exists")


def run(arguments: argparse.Namespace) -> None:
    for path in (arguments.out, arguments.plot):
        _check_output(path)
    if arguments.limit is not None and arguments.limit < 2:
        raise RirfError(f"got --limit {arguments.limit}; expected at least 2 frames")
    draws = DrawSet.open(arguments.draws)
    wanted = frames(draws, arguments.share, arguments.limit)
    with rirf.load(arguments.bundle, threads=arguments.threads) as pipeline:
        manifest = pipeline.bundle.manifest
        # From cheap to dear.
        modes = sorted(
            manifest.restorer.schedules, key=lambda mode: len(manifest.restorer.schedules[mode])
        )
        environment = describe(pipeline, arguments.threads)
        look(pipeline, draws, wanted[0], modes, 0)  # not kept: warm-up
        bar = tqdm(wanted, unit="frame", disable=None)
        outcomes = [look(pipeline, draws, frame, modes, turn) for turn, frame in enumerate(bar)]
    found = fit(
        outcomes,
        modes,
        arguments.bypass_by,
        wanted=arguments.clean_bypassed,
        allowed=arguments.bypass_loss,
        minimum=arguments.min_gain,
    )
    names = "\n".join(draws.names)
    record = {
        "benchmark": "step_policy",
        **environment,
        "graphs": {
            graph.file: manifest.files[graph.file]
            for graph in (manifest.reasoner, manifest.restorer)
        },
        "images_sha256": hashlib.sha256(names.encode()).hexdigest(),
        "limit": arguments.limit,
        **found.record,
    }
    policy = FittedPolicy.model_validate(
        {
            "bypass_below": found.below,
            "bypass_by": found.by,
            "ladder": found.ladder,
            "provenance": record,
        }
    )
    write_atomic(arguments.out, (policy.model_dump_json(indent=2) + "\n").encode())
    if arguments.plot is not None:
        write_atomic(arguments.plot, plot(outcomes, found, modes))
    if not arguments.json:
        print(text(record))
        print(f"policy: {arguments.out}")
    print(json.dumps(record, allow_nan=False))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, help="a .rirf bundle (default: the one shipped)")
    parser.add_argument(
        "--draws",
        type=Path,
        required=True,
        help="rendered draws of rirf train: CACHE/held-out of a run with fresh draws, else CACHE",
    )
    parser.add_argument("--share", type=float, default=0.05, help="the run's validation_share")
    parser.add_argument("--limit", type=int, metavar="N", help="this many frames, evenly spaced")
    parser.add_argument("-o", "--out", type=Path, required=True, help="policy JSON to write")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    parser.add_argument("--threads", type=int, help="CPU threads for inference")
    parser.add_argument(
        "--min-gain",
        type=float,
        default=MIN_GAIN_DB_PER_MS,
        help="dB a millisecond of a mode must add (default: %(default)s)",
    )
    parser.add_argument(
        "--bypass-by",
        choices=list(SUMMARIES),
        default="worst_burden",
        help="what decides the bypass (default: %(default)s); the table compares them",
    )
    parser.add_argument(
        "--clean-bypassed",
        type=float,
        default=CLEAN_BYPASSED_MIN,
        help="share of clean frames to leave alone (default: %(default)s)",
    )
    parser.add_argument(
        "--bypass-loss",
        type=float,
        default=BYPASS_LOSS_MAX_DB,
        help="dB this may cost the degraded frames on average (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    try:
        run(parser.parse_args())
    except RirfError as error:
        print("step_policy: error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
