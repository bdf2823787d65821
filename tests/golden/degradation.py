"""The numbers every implementation of the degradation must reach, and how they were made.

``python tests/golden/degradation.py`` writes ``degradation.json`` anew. Do so only when the model
is changed on purpose: every draw that was ever rendered changes with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rirf.degradation import degrade, sample_recipe
from rirf.degradation.philox import Stage, Stream, normals, uniforms
from rirf.diagnosis import EFFECTS

FILE = Path(__file__).with_suffix(".json")
# All four effects; fog, shake and rain; shake, rain and noise under a seed that needs all 64 bits.
SEEDS = (6, 41, 2**63 + 5)
HEIGHT, WIDTH = 96, 128
PIXELS = ((0, 0), (5, 120), (47, 63), (48, 64), (80, 17), (95, 127))


def picture() -> NDArray[np.float32]:
    """A gradient that any language can write: red across, green down, blue a checkerboard of 8."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    blue = 0.25 + 0.5 * ((rows // 8 + columns // 8) % 2)
    channels = [columns / (WIDTH - 1), rows / (HEIGHT - 1), blue]
    return np.stack(channels, axis=-1).astype(np.float32)


def _figures(image: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "mean": float(image.mean(dtype=np.float64)),
        "std": float(image.std(dtype=np.float64)),
        "pixels": [image[row, column].tolist() for row, column in PIXELS],
    }


def measure(seed: int) -> dict[str, Any]:
    """What is compared for one seed."""
    result = degrade(picture(), seed)
    diagnosis = result.diagnosis
    return {
        "seed": seed,
        "uniforms": uniforms(seed, Stage.RAIN, Stream.FIELD, 8).tolist(),
        "normals": normals(seed, Stage.NOISE, Stream.FIELD, 8).tolist(),
        "recipe": sample_recipe(seed).to_dict(),
        "severity": {name: diagnosis.effect(name).severity for name in EFFECTS},
        "transmission": float(result.transmission.mean(dtype=np.float64)),
        "shake": [diagnosis.shake.direction_deg, diagnosis.shake.length_px, diagnosis.shake.energy],
        "coverage": diagnosis.rain.coverage,
        "stages": {name: _figures(stage) for name, stage in result.stages.items()},
        "image": _figures(result.image),
    }


def main() -> None:
    """Write the file."""
    record = {
        "picture": "96 x 128, RGB in [0, 1]: column / 127, row / 95, "
        "0.25 + 0.5 ((row // 8 + column // 8) mod 2)",
        "pixels": PIXELS,
        "tolerance": 1e-4,
        "cases": [measure(seed) for seed in SEEDS],
    }
    FILE.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
