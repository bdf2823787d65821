"""A small data root in the protocol's layout, cut from scikit-image's packaged photographs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

# rirf.scene.CLASSES
SKY, BUILDING, ROAD, CAR, UNLABELLED = 0, 1, 3, 8, 11


def _cut(number: int, width: int, height: int) -> NDArray[np.uint8]:
    photos = (data.astronaut, data.coffee, data.chelsea, data.rocket)
    photo = photos[number % len(photos)]()
    top = (number * 53) % (photo.shape[0] - height)
    left = (number * 97) % (photo.shape[1] - width)
    window = photo[top : top + height, left : left + width]
    return np.ascontiguousarray(window[..., ::-1], dtype=np.uint8)


def _street(number: int, width: int, height: int) -> NDArray[np.uint8]:
    labels = np.full((height, width), UNLABELLED, dtype=np.uint8)
    horizon = height // 3 + number % 9
    labels[:horizon] = SKY
    labels[horizon // 2 : horizon + 12, width // 2 :] = BUILDING
    labels[horizon + 12 :] = ROAD
    labels[horizon + 10 : horizon + 30, 20 + number : 60 + number] = CAR
    return labels


def data_root(folder: Path, *, photographs: int, streets: int) -> Path:
    """Fill the folder with that many images of each set and return it."""
    for name in ("bsds500/test", "camvid/test", "camvid/labels/test"):
        (folder / name).mkdir(parents=True)
    for number in range(photographs):
        # One in three stands upright, and no side is a multiple of anything.
        size = (109, 163) if number % 3 == 2 else (163, 109)
        cv2.imwrite(str(folder / "bsds500/test" / f"{1000 + number}.jpg"), _cut(number, *size))
    for number in range(streets):
        stem = f"Street_{number:04}"
        picture = _cut(100 + 7 * number, 160, 120)
        cv2.imwrite(str(folder / "camvid/test" / f"{stem}.jpg"), picture)
        labels = _street(number, 160, 120)
        cv2.imwrite(str(folder / "camvid/labels/test" / f"{stem}.png"), labels)
    return folder
