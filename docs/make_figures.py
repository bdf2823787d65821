"""Makes what the documentation shows of the code: the degradation picture, a table, the schema.

``python docs/make_figures.py`` writes ``images/degradation.png`` and ``images/restored.png`` (what
``make demo`` shows; both need scikit-image for the photo), ``diagnosis.schema.json`` and the
conditioning table inside ``diagnosis.md``; ``--text`` leaves the pictures alone. A test compares
the text parts with the code.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf import conditioning, demo
from rirf.degradation import (
    Degraded,
    FilePrior,
    FogParameters,
    NoiseParameters,
    RainParameters,
    Recipe,
    ShakeParameters,
    degrade,
    geometric,
)
from rirf.diagnosis import Diagnosis
from rirf.errors import require

__all__ = [
    "TABLE_BEGIN",
    "TABLE_END",
    "conditioning_table",
    "degradation_picture",
    "schema",
    "with_table",
]

DOCS = Path(__file__).resolve().parent
TABLE_BEGIN = "<!-- conditioning table, written by make_figures.py: begin -->"
TABLE_END = "<!-- conditioning table: end -->"

SEED = 1786
RECIPE = Recipe(
    atmospheric_light=(0.82, 0.85, 0.9),
    fog=FogParameters(beta=1.0),
    shake=ShakeParameters(steps=20, step_px=1.1),
    rain=RainParameters(density=1.5e-3, slant_deg=14.0, length_px=34.0, width_px=1.2, opacity=0.55),
    noise=NoiseParameters(gain=0.08, offset=6.0),
)
# The photo's own depth, roughly: the higher in the frame, the farther.
DEPTH = FilePrior(np.linspace(1.0, 0.1, 64, dtype=np.float32)[:, None].repeat(64, axis=1))
GEOMETRY_SEEDS = (1, 2, 3)
PANEL = (420, 280)  # width, height
TITLE_HEIGHT = 26


def conditioning_table() -> str:
    """The conditioning vector as a Markdown table."""
    lines = ["| index | name | unit | scale |", "|---:|---|---|---:|"]
    lines += [
        f"| {entry.index} | `{entry.name}` | {entry.unit} | {entry.scale:g} |"
        for entry in conditioning.TABLE
    ]
    return "\n".join(lines)


def with_table(document: str) -> str:
    """The document with the table between its two markers replaced by the current one."""
    head, begin, rest = document.partition(TABLE_BEGIN)
    _, end, tail = rest.partition(TABLE_END)
    if not begin or not end:
        raise ValueError(f"expected the lines {TABLE_BEGIN!r} and {TABLE_END!r} in diagnosis.md")
    return f"{head}{begin}\n{conditioning_table()}\n{end}{tail}"


def schema() -> str:
    """The JSON schema of a diagnosis, as text."""
    standard = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(standard | Diagnosis.model_json_schema(), indent=2) + "\n"


def _titled(image: NDArray[np.float32], title: str) -> NDArray[np.uint8]:
    """A float RGB image in [0, 1] as a uint8 BGR panel below its title."""
    pixels = (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)[..., ::-1]
    bar = np.full((TITLE_HEIGHT, pixels.shape[1], 3), 255, dtype=np.uint8)
    cv2.putText(bar, title, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([bar, pixels])


def _resized(image: NDArray[np.float32], size: tuple[int, int], method: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(image, size, interpolation=method), dtype=np.float32)


def _parts(result: Degraded) -> NDArray[np.float32]:
    """Transmission map above the streak mask, the kernel enlarged beside them."""
    if result.psf is None or result.streaks is None:
        raise ValueError("expected a recipe with shake and rain")
    width, height = PANEL
    half = height // 2
    maps = [
        _resized(part, (width - height, half), cv2.INTER_AREA)
        for part in (result.transmission, result.streaks)
    ]
    kernel = _resized(result.psf / result.psf.max(), (height, height), cv2.INTER_NEAREST)
    grey = np.hstack([np.vstack(maps), kernel])
    return np.repeat(grey[..., None], 3, axis=2)


def degradation_picture() -> NDArray[np.uint8]:
    """Clean frame, the four stages, their ingredients, three sampled priors; uint8 BGR."""
    data = require("skimage.data", "eval", "draw the documentation's pictures")
    photo = np.asarray(data.rocket(), dtype=np.float32) / np.float32(255.0)
    clean = np.clip(_resized(photo, PANEL, cv2.INTER_AREA), 0.0, 1.0)
    result = degrade(clean, SEED, recipe=RECIPE, prior=DEPTH)
    truth = result.diagnosis
    titles = {
        "fog": f"fog: t_mean {truth.fog.transmission_mean:.2f}, severity {truth.fog.severity:.0f}",
        "shake": f"+ shake: {truth.shake.direction_deg:.0f} deg, {truth.shake.length_px:.1f} px, "
        f"severity {truth.shake.severity:.0f}",
        "rain": f"+ rain: {truth.rain.slant_deg:.0f} deg, coverage {truth.rain.coverage:.2f}, "
        f"severity {truth.rain.severity:.0f}",
        "noise": f"+ noise: k {truth.noise.gain:g}, b {truth.noise.offset:g}, "
        f"severity {truth.noise.severity:.0f}",
    }
    panels = [_titled(clean, "clean")]
    panels += [_titled(stage, titles[name]) for name, stage in result.stages.items()]
    panels.append(_titled(_parts(result), "transmission, streaks; kernel (31 x 31)"))
    for seed in GEOMETRY_SEEDS:
        prior = geometric(seed, PANEL[1], PANEL[0])
        grey = np.repeat(prior[..., None], 3, axis=2)
        panels.append(_titled(grey, f"sampled geometry: t0 of seed {seed}"))
    gap = np.full((panels[0].shape[0], 6, 3), 255, dtype=np.uint8)
    rows = [
        np.hstack([panels[i], gap, panels[i + 1], gap, panels[i + 2]])
        for i in range(0, len(panels), 3)
    ]
    return np.vstack(rows)


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", action="store_true", help="write the table and the schema only")
    arguments = parser.parse_args()
    page = DOCS / "diagnosis.md"
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
    (DOCS / "diagnosis.schema.json").write_text(schema(), encoding="utf-8")
    if not arguments.text:
        _, png = cv2.imencode(".png", degradation_picture(), (cv2.IMWRITE_PNG_COMPRESSION, 9))
        (DOCS / "images").mkdir(exist_ok=True)
        (DOCS / "images" / "degradation.png").write_bytes(png.tobytes())
        with tempfile.TemporaryDirectory() as folder:
            shown = demo.run(None, Path(folder)).files["comparison"]
            shutil.copyfile(shown, DOCS / "images" / "restored.png")


if __name__ == "__main__":
    main()
