"""Folders of recorded outputs, as another tier would leave them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rirf.diagnosis import Diagnosis
from rirf_training.data import DrawSet
from tests.sdk.pictures import save


def record(
    folder: Path,
    name: str,
    degraded: NDArray[np.uint8],
    restored: NDArray[np.uint8],
    diagnosis: Diagnosis,
    clean: NDArray[np.uint8] | None = None,
) -> None:
    """Write one output."""
    save(folder / f"{name}.degraded.png", np.ascontiguousarray(degraded))
    save(folder / f"{name}.restored.png", np.ascontiguousarray(restored))
    if clean is not None:
        save(folder / f"{name}.clean.png", np.ascontiguousarray(clean))
    (folder / f"{name}.json").write_text(diagnosis.to_json())


def recorded_draws(folder: Path, draws: DrawSet, count: int) -> Path:
    """Outputs for the first draws of pictures, the truth of every second one; returns the folder.

    What they restored is the clean picture, darker, so that it can be told from the truth.
    """
    for number in range(count):
        position = number * draws.draws
        clean = np.asarray(draws.clean(position))
        record(
            folder,
            f"frame{number}",
            np.asarray(draws.degraded(position)),
            (0.5 * clean).astype(np.uint8),
            draws.diagnosis(position),
            clean if number % 2 == 0 else None,
        )
    return folder
