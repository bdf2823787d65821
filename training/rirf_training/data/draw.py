"""One draw: a clean frame degraded, with everything that a network can be asked about it.

Rendered sets and fresh draws make their draws here, so that both hold the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf.degradation import degrade, geometric
from rirf.degradation.depth import DepthPrior
from rirf.diagnosis import Diagnosis
from rirf.images import to_float, to_uint8
from rirf.scene import SceneLayout

__all__ = ["MAP_SIZE", "Draw", "make_draw", "save_array"]

MAP_SIZE = 32


@dataclass(frozen=True)
class Draw:
    """A degraded frame and its truth.

    Attributes:
        clean, degraded: uint8 BGR (H, W, 3).
        transmission: float32 (32, 32).
        diagnosis: the truth.
        layout: of the clean scene.
    """

    clean: NDArray[np.uint8]
    degraded: NDArray[np.uint8]
    transmission: NDArray[np.float32]
    diagnosis: Diagnosis
    layout: SceneLayout


def make_draw(
    clean: NDArray[np.uint8], seed: int, layout: SceneLayout, prior: DepthPrior = geometric
) -> Draw:
    """Degrade a uint8 BGR frame, on one thread; the seed decides everything."""
    # One thread each: draws are made side by side.
    made = degrade(
        to_float(np.ascontiguousarray(clean)),
        seed,
        prior=prior,
        layout=layout,
        keep_stages=False,
        threads=1,
    )
    size = (MAP_SIZE, MAP_SIZE)
    small = cv2.resize(made.transmission, size, interpolation=cv2.INTER_AREA)
    return Draw(
        clean=clean,
        degraded=to_uint8(made.image),
        transmission=np.asarray(small, dtype=np.float32),
        diagnosis=made.diagnosis,
        layout=layout,
    )


def save_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array whole or not at all; several may write the same one."""
    part = path.with_name(f".{path.name}.{token_hex(4)}.part")
    with part.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    part.replace(path)
