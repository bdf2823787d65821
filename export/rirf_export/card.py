"""The model card of a bundle: what it is, how good it is, what it must not be used for."""

from __future__ import annotations

from typing import Any

from rirf.bundle import Manifest

__all__ = ["model_card"]


def _metrics_table(metrics: dict[str, Any]) -> str:
    if not metrics:
        return "Not evaluated when it was exported; run `rirf eval`."
    rows = ["| condition | PSNR dB | SSIM |", "|---|---|---|"]
    for key in ("input", "predicted", "true", "none", "shuffled"):
        figures = metrics[key]
        rows.append(f"| {key} | {figures['psnr']:.2f} | {figures['ssim']:.3f} |")
    head = f"Protocol {metrics['protocol']}, {metrics['images']} images (`rirf eval`):"
    return f"{head}\n\n" + "\n".join(rows)


def _parity_table(parity: dict[str, dict[str, float | None]]) -> str:
    rows = ["| graph | output | signal over error, dB |", "|---|---|---|"]
    for kind, outputs in parity.items():
        for name, decibels in outputs.items():
            figure = "equal" if decibels is None else f"{decibels:.1f}"
            rows.append(f"| {kind} | {name} | {figure} |")
    return "\n".join(rows)


def _training(provenance: dict[str, Any]) -> str:
    lines = []
    for kind in ("reasoner", "restorer"):
        run = provenance[kind].get("run", {}).get("loop", {})
        lines.append(
            f"- {kind}: {run.get('steps', '?')} steps of {run.get('batch', '?')} samples from "
            f"{provenance[kind].get('images', '?')} clean images"
        )
    return "\n".join(lines)


def model_card(manifest: Manifest) -> str:
    """Markdown text of the card."""
    modes = ", ".join(("bypass", *manifest.restorer.schedules))
    return f"""# {manifest.name}

An edge pair of rirf: a reasoner ({manifest.reasoner.parameters / 1e6:.2f} M parameters) that
diagnoses fog, shake, rain and noise in a frame, and a restorer
({manifest.restorer.parameters / 1e6:.2f} M parameters) that rebuilds the frame with that diagnosis.
Modes: {modes}. Precision: {manifest.reasoner.precision} / {manifest.restorer.precision}.

## Quality

{_metrics_table(manifest.metrics)}

## Training

{_training(manifest.provenance)}

Degradations come from rirf's own semi-real-world model (fog, shake, rain, noise, mixed). The pair
that ships with rirf was trained on the train and val splits of CamVid (Brostow, Fauqueur and
Cipolla 2008) and BSDS500 (Arbelaez et al. 2011), and is reported on their test splits.

## Licence and use

The code is Apache-2.0. Both data sets are for research and non-commercial use, and weights trained
on them inherit those terms: research only. For a product, train on images you have the rights to
(`rirf train`).

## Limits

- Trained on synthetic degradations; real fog, rain and sensor noise differ from the model.
- The scene classes are street classes; other scenes are described by colour and detail alone.
- Restored texture is an estimate. Do not use it as evidence or for measurement.
- Snow, low light, compression, defocus and dirt on the lens are neither diagnosed nor restored.

## Parity with torch

Every exported output against the fp32 network; export fails below
{manifest.provenance["parity_min_db"]:.0f} dB.

{_parity_table(manifest.provenance["parity_db"])}
"""
