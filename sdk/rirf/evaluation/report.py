"""What a run amounts to: means over sets and effects, as JSON and as a table for people.

Pure arithmetic and text; touches no image, no pipeline and no file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rirf.diagnosis import EFFECTS, Effect
from rirf.evaluation.metrics import average
from rirf.evaluation.protocol import CALIBRATION, DATASETS, calibrated
from rirf.evaluation.runner import CONDITIONS, CleanRow, Evaluation, Row

__all__ = ["summarise", "table", "to_json"]

_SHOWN = ("input", *CONDITIONS)
_TITLES = {"predicted_coarse": "pred. coarse"}


def _mean(values: Iterable[float]) -> float | None:
    """Mean to 0.0001, or None of nothing: JSON has no number for it."""
    found = [value for value in values if np.isfinite(value)]
    return round(float(np.mean(found)), 4) if found else None


def _means(rows: Sequence[Row]) -> dict[str, Any]:
    out: dict[str, Any] = {"images": len(rows)}
    if rows:
        for condition in _SHOWN:
            out[condition] = average(row.figures[condition] for row in rows).to_dict()
    return out


def _f1(pairs: Sequence[tuple[Effect, Effect]]) -> float | None:
    """Harmonic mean of precision and recall of (true, predicted) presence; None without either."""
    hits = sum(true.present and ours.present for true, ours in pairs)
    named = sum(true.present for true, _ in pairs) + sum(ours.present for _, ours in pairs)
    return round(2.0 * hits / named, 4) if named else None


def _reasoner(rows: Sequence[Row]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in EFFECTS:
        pairs = [(row.truth.effect(name), row.prediction.effect(name)) for row in rows]
        there = [(true, ours) for true, ours in pairs if true.present]
        out[name] = {
            "images_present": len(there),
            "presence_accuracy": _mean(true.present == ours.present for true, ours in pairs),
            "presence_f1": _f1(pairs),
            "severity_mae": _mean(abs(true.severity - ours.severity) for true, ours in there),
            "interval_coverage": _mean(
                ours.interval[0] <= true.severity <= ours.interval[1] for true, ours in there
            ),
        }
    foggy = [row for row in rows if row.truth.fog.present]
    out["atmospheric_light_mae"] = _mean(
        float(np.abs(np.subtract(row.truth.fog.atmospheric_light, ours)).mean())
        for row in foggy
        for ours in [row.prediction.fog.atmospheric_light]
    )
    out["transmission_mean_mae"] = _mean(
        abs(row.truth.fog.transmission_mean - row.prediction.fog.transmission_mean) for row in foggy
    )
    out["transmission_map_mae"] = _mean(row.map_error for row in foggy)
    return out


def _clean(rows: Sequence[CleanRow]) -> dict[str, Any]:
    touched = sorted((row for row in rows if not row.untouched), key=lambda row: row.figures.psnr)
    out: dict[str, Any] = {
        "images": len(rows),
        "bypassed": sum(row.steps == "bypass" for row in rows),
        "bypass_rate": _mean(row.steps == "bypass" for row in rows),
        "untouched": len(rows) - len(touched),
        "touched": average(row.figures for row in touched).to_dict() if touched else None,
        "worst": None,
    }
    if touched:
        out["worst"] = {"name": touched[0].case.name, **touched[0].figures.to_dict()}
    return out


def _effects(row: Row, name: str) -> dict[str, Any]:
    true, ours = row.truth.effect(name), row.prediction.effect(name)
    return {
        "present": true.present,
        "severity": round(true.severity, 2),
        "predicted_present": ours.present,
        "predicted_probability": round(ours.probability, 4),
        "predicted_severity": round(ours.severity, 2),
        "predicted_interval": [round(bound, 2) for bound in ours.interval],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.case.name,
        "seed": row.case.seed,
        "donor": row.donor,
        "steps": row.steps,
        **{condition: row.figures[condition].to_dict() for condition in _SHOWN},
        **{name: _effects(row, name) for name in EFFECTS},
        "transmission_map_error": _mean([row.map_error]),
        "read_ms": round(row.read_ms, 2),
        "restore_ms": round(row.restore_ms, 2),
    }


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """The means of a run; see docs/evaluation.md for every field."""
    rows = evaluation.rows
    overall = _means(rows)
    return {
        "protocol": evaluation.protocol.name,
        **overall,
        "available": evaluation.protocol.available,
        "calibrated": calibrated(overall["input"]["psnr"], overall["input"]["ssim"]),
        "per_dataset": {
            name: _means([row for row in rows if row.case.dataset == name]) for name in DATASETS
        },
        "per_degradation": {
            name: _means([row for row in rows if name in row.effects]) for name in EFFECTS
        },
        "reasoner": _reasoner(rows),
        "clean": _clean(evaluation.clean),
        "undegraded": _clean(evaluation.undegraded),
        "steps": dict(sorted(Counter(row.steps for row in rows).items())),
        "milliseconds": {
            "read": round(float(np.median([row.read_ms for row in rows])), 2),
            "restore": round(float(np.median([row.restore_ms for row in rows])), 2),
            "both": round(float(np.median([row.read_ms + row.restore_ms for row in rows])), 2),
        },
    }


def to_json(evaluation: Evaluation, environment: Mapping[str, Any]) -> str:
    """The whole record: the summary, where it was measured, and one entry a case."""
    record = summarise(evaluation)
    record["environment"] = dict(environment)
    record["cases"] = [_row(row) for row in evaluation.rows]
    record["clean_cases"] = [
        {
            "name": row.case.name,
            "steps": row.steps,
            "untouched": row.untouched,
            **row.figures.to_dict(),
            "severities": {name: row.prediction.effect(name).severity for name in EFFECTS},
        }
        for row in evaluation.clean
    ]
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def _grid(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns: the first to the left, the others to the right."""
    lines = [header, *body]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def render(line: Sequence[str]) -> str:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        return "  ".join(cells)

    return [render(header), "  ".join("-" * width for width in widths), *map(render, body)]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _pair(figures: Mapping[str, float]) -> str:
    return f"{figures['psnr']:.2f} / {figures['ssim']:.3f}"


def table(evaluation: Evaluation, environment: Mapping[str, Any]) -> str:
    """The figures as aligned text: PSNR in dB / SSIM, means over images."""
    summary = summarise(evaluation)
    groups = {"overall": summary, **summary["per_dataset"], **summary["per_degradation"]}
    body = [
        [name, str(group["images"])]
        + [_pair(group[condition]) if condition in group else "–" for condition in _SHOWN]
        for name, group in groups.items()
    ]
    lines = [
        f"protocol {summary['protocol']}: {summary['images']} of {summary['available']} images, "
        "PSNR dB / SSIM",
        ", ".join(f"{key} {value}" for key, value in environment.items() if key in _HEADLINE),
        "",
        *_grid(["", "images", *(_TITLES.get(name, name) for name in _SHOWN)], body),
        "",
        _calibration(summary),
        "",
    ]
    reasoner = summary["reasoner"]
    lines += _grid(
        ["reasoner", "present in", "presence right", "F1", "severity MAE", "interval coverage"],
        [
            [
                name,
                str(reasoner[name]["images_present"]),
                _number(reasoner[name]["presence_accuracy"], ".1%"),
                _number(reasoner[name]["presence_f1"], ".3f"),
                _number(reasoner[name]["severity_mae"], ".1f"),
                _number(reasoner[name]["interval_coverage"], ".1%"),
            ]
            for name in EFFECTS
        ],
    )
    clean, time = summary["clean"], summary["milliseconds"]
    lines += [
        f"in fog, MAE of: light {_number(reasoner['atmospheric_light_mae'], '.3f')}, "
        f"mean transmission {_number(reasoner['transmission_mean_mae'], '.3f')}, "
        f"transmission map {_number(reasoner['transmission_map_mae'], '.3f')}",
        "",
        _clean_line("clean frames", clean),
        _clean_line("all images undegraded", summary["undegraded"]),
        "steps: " + ", ".join(f"{name} {count}" for name, count in summary["steps"].items()),
        f"median time a frame: diagnosis {time['read']:.1f} ms, restoration "
        f"{time['restore']:.1f} ms, both {time['both']:.1f} ms",
    ]
    return "\n".join(lines) + "\n"


_HEADLINE = ("bundle", "device", "provider", "threads")


def _calibration(summary: Mapping[str, Any]) -> str:
    (psnr, psnr_margin), (ssim, ssim_margin) = CALIBRATION
    verdict = "within" if summary["calibrated"] else "NOT within"
    return (
        f"difficulty: input {_pair(summary['input'])} is {verdict} {psnr_margin} dB / "
        f"{ssim_margin} of the paper's {psnr} / {ssim}"
        + ("" if summary["images"] == summary["available"] else " (a slice: only indicative)")
    )


def _clean_line(title: str, clean: Mapping[str, Any]) -> str:
    if not clean["images"]:
        return f"{title}: none in this slice"
    line = (
        f"{title}: {clean['untouched']} of {clean['images']} came back untouched "
        f"({clean['bypassed']} bypassed)"
    )
    if clean["worst"] is not None:
        line += (
            f"; the others {_pair(clean['touched'])} against the input, worst "
            f"{clean['worst']['name']} {_pair(clean['worst'])}"
        )
    return line
