"""Fresh draws: clean frames kept decoded, degraded anew for every step by a few threads.

A network that trains on rendered draws meets each of them many times; here it meets none twice.
What a step draws is a function of its random numbers alone, so a run that was stopped continues
exactly, whatever the number of threads. With the native kernels the threads run side by side, since
these release the interpreter; with NumPy they wait for each other now and then.

Layout of the folder, an image each: ``<key>.npy`` (uint8 BGR), ``<key>.rows.npy`` (its label prior,
if it has labels) and ``<key>.npz`` (the scene's layout, plain and mirrored), the latter last. The
key is a hash of name, size and modification time.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rirf.degradation import LabelPrior, StandingPrior, geometric
from rirf.degradation.depth import DepthPrior
from rirf.files import write_atomic
from rirf.images import read_image, to_float
from rirf.scene import SceneLayout, observe
from rirf_training.data.catalog import Clean
from rirf_training.data.draw import Draw, make_draw, save_array

__all__ = ["FreshDraws", "Order"]

T = TypeVar("T")
# Keeps a frame's tone apart from other random numbers that are drawn from the same seed.
_TONE_STREAM = 1


@dataclass(frozen=True)
class Order:
    """Which draw to make: of which image, mirrored or not, with which seed."""

    image: int
    mirrored: bool
    seed: int


@dataclass(frozen=True)
class _Scene:
    """What is kept in memory of an image."""

    frame: Path
    shape: tuple[int, ...]
    rows: Path | None
    horizon: float | None
    layouts: tuple[SceneLayout, SceneLayout]  # plain, mirrored


class FreshDraws:
    """Draws made when they are asked for.

    Args:
        folder: where decoded frames are kept; what is there is used.
        images: the clean images to draw from.
        workers: threads.
        progress: show a bar while frames are decoded.
        tone: gain and gamma of each clean frame are drawn log-uniformly between e^-tone and e^tone
            before it is degraded; 0 leaves frames as they are.

    Raises:
        ImageError: a picture or a class map cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        images: Sequence[Clean],
        *,
        workers: int = 2,
        progress: bool = True,
        tone: float = 0.0,
    ) -> None:
        self._tone = tone
        folder.mkdir(parents=True, exist_ok=True)
        self.names = tuple(clean.name for clean in images)
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="draws")
        found = self._pool.map(lambda clean: _prepare(folder, clean), images)
        bar = tqdm(found, total=len(images), desc="decode", unit="image", disable=not progress)
        self._scenes = list(bar)

    def orders(self, random: np.random.Generator, count: int) -> list[Order]:
        """``count`` different draws of images chosen at random, half of them mirrored."""
        images = random.integers(0, len(self._scenes), count)
        mirrored = random.random(count) < 0.5
        seeds = random.integers(0, 2**64, count, dtype=np.uint64)
        return [
            Order(int(image), bool(flip), int(seed))
            for image, flip, seed in zip(images, mirrored, seeds, strict=True)
        ]

    def describe(self, orders: Sequence[Order]) -> list[dict[str, str | int]]:
        """The orders as JSON, with the images' names."""
        return [
            {"image": self.names[order.image], "mirrored": order.mirrored, "seed": order.seed}
            for order in orders
        ]

    def make(self, order: Order) -> Draw:
        """The draw; the same order gives the same one."""
        scene = self._scenes[order.image]
        step = -1 if order.mirrored else 1
        frame: NDArray[np.uint8] = np.load(scene.frame, mmap_mode="r")[:, ::step]
        prior: DepthPrior = geometric
        if scene.rows is not None:
            rows = np.load(scene.rows, mmap_mode="r")[:, ::step]
            prior = StandingPrior(rows, scene.horizon)
        layout = scene.layouts[order.mirrored]
        if self._tone > 0.0:
            frame = _toned(frame, order.seed, self._tone)
            seen = observe(to_float(frame))
            layout = SceneLayout(layout.classes, seen.colours, seen.detail)
        return make_draw(frame, order.seed, layout, prior)

    def shape(self, order: Order) -> tuple[int, ...]:
        """Shape of an order's frame, (H, W, 3)."""
        return self._scenes[order.image].shape

    def map(self, work: Callable[[Draw, int], T], orders: Sequence[Order]) -> list[T]:
        """``work(draw, place in the batch)`` for each order; draws and work run on the threads."""
        made = self._pool.map(
            lambda numbered: work(self.make(numbered[1]), numbered[0]), enumerate(orders)
        )
        return list(made)


def _toned(frame: NDArray[np.uint8], seed: int, tone: float) -> NDArray[np.uint8]:
    """The frame with a gain and a gamma that the seed decides."""
    # Of 64 bits without a sign: a list would become floats where the seed is large, and lose some.
    key = np.array([seed, _TONE_STREAM], dtype=np.uint64)
    random = np.random.Generator(np.random.Philox(key=key))
    gain, gamma = np.exp(random.uniform(-tone, tone, 2))
    level = np.linspace(0.0, 1.0, 256)
    table = np.rint(255.0 * np.minimum(1.0, gain * level**gamma)).astype(np.uint8)
    return np.asarray(cv2.LUT(np.ascontiguousarray(frame), table), dtype=np.uint8)


def _prepare(folder: Path, clean: Clean) -> _Scene:
    """Decode an image unless that was done already."""
    state = clean.path.stat()
    labels = clean.labels.stat() if clean.labels is not None else None
    stamps = [state.st_size, state.st_mtime_ns]
    stamps += [labels.st_size, labels.st_mtime_ns] if labels is not None else []
    key = hashlib.sha256(f"{clean.name}/{stamps}".encode()).hexdigest()[:24]
    frame, rows = folder / f"{key}.npy", folder / f"{key}.rows.npy"
    file = folder / f"{key}.npz"
    if not file.exists():
        _decode(clean, frame, rows, file)
    with np.load(file) as arrays:
        horizon = float(arrays["horizon"])
        layouts = [
            SceneLayout(
                arrays[f"classes_{side}"] if labels is not None else None,
                arrays[f"colours_{side}"],
                arrays[f"detail_{side}"],
            )
            for side in range(2)
        ]
    return _Scene(
        frame,
        np.load(frame, mmap_mode="r").shape,
        rows if labels is not None else None,
        None if np.isnan(horizon) else horizon,
        (layouts[0], layouts[1]),
    )


def _decode(clean: Clean, frame: Path, rows: Path, file: Path) -> None:
    picture = read_image(clean.path)
    image = to_float(picture)
    arrays: dict[str, NDArray[np.generic]] = {}
    labels = horizon = None
    if clean.labels is not None:
        height, width = picture.shape[:2]
        read = LabelPrior.from_file(clean.labels).labels
        resized = cv2.resize(read, (width, height), interpolation=cv2.INTER_NEAREST)
        labels = np.asarray(resized, dtype=np.uint8)
        standing = LabelPrior(labels).standing()
        horizon = standing.horizon
        save_array(rows, standing.rows.astype(np.min_scalar_type(height)))
    for side, step in enumerate((1, -1)):
        seen = labels[:, ::step] if labels is not None else None
        layout = observe(image[:, ::step], seen)
        arrays[f"colours_{side}"], arrays[f"detail_{side}"] = layout.colours, layout.detail
        if layout.classes is not None:
            arrays[f"classes_{side}"] = layout.classes
    arrays["horizon"] = np.asarray(np.nan if horizon is None else horizon)
    save_array(frame, picture)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub lacks ** of arrays
    # Last: where it is, the other files are whole.
    write_atomic(file, buffer.getvalue())
