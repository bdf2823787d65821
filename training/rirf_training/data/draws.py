"""Rendered draws: every clean image degraded a number of times, kept decoded on disk.

Rendering once and reading by memory map leaves the processor to the network. Each draw is addressed
by (image, number): its seed is a hash of both, so a set can be rendered by any number of processes,
stopped and continued, and is the same on every machine (to a grey level of rounding, where another
backend degrades). Odd draws are of the mirrored image.

Layout of a set's folder: ``index.json`` (what it holds, written first), ``clean/<image>.npy``
(uint8 BGR), ``draws/<image>-<number>.npy`` (uint8 BGR degraded) with ``.json`` (true diagnosis) and
``maps/<image>-<number>.npy`` (float16 transmission, 32 x 32). A draw counts once its JSON is there.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rirf.degradation import LabelPrior, geometric
from rirf.degradation.depth import DepthPrior
from rirf.diagnosis import Diagnosis
from rirf.errors import ImageError
from rirf.files import write_atomic
from rirf.images import read_image, to_float
from rirf.scene import SceneLayout, observe
from rirf_training.data.catalog import Clean, held_out
from rirf_training.data.draw import MAP_SIZE, Draw, make_draw, save_array

__all__ = ["MAP_SIZE", "DrawSet", "render"]

_FORMAT = 1


def _seed(name: str, number: int) -> int:
    digest = hashlib.sha256(f"train/{number}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _layout_arrays(layout: SceneLayout) -> dict[str, NDArray[np.float32]]:
    arrays = {"colours": layout.colours, "detail": layout.detail}
    if layout.classes is not None:
        arrays["classes"] = layout.classes
    return arrays


def _missing(root: Path, index: int, draws: int) -> list[int]:
    """Numbers of an image's draws that are not there yet."""
    return [n for n in range(draws) if not (root / "draws" / f"{index:05d}-{n:03d}.json").exists()]


def _render_image(root: Path, index: int, clean: Clean, draws: int) -> int:
    """Render all missing draws of one image; returns how many were made."""
    todo = _missing(root, index, draws)
    if not todo:
        return 0
    frame = read_image(clean.path)
    labels = LabelPrior.from_file(clean.labels).labels if clean.labels is not None else None
    save_array(root / "clean" / f"{index:05d}.npy", frame)
    for mirrored in (False, True):
        numbers = [number for number in todo if number % 2 == mirrored]
        if not numbers:
            continue
        source, classes = frame, labels
        prior: DepthPrior = geometric
        if mirrored:
            source = np.ascontiguousarray(frame[:, ::-1])
            classes = np.ascontiguousarray(labels[:, ::-1]) if labels is not None else None
        if classes is not None:
            prior = LabelPrior(classes).standing()
        layout = observe(to_float(source), classes)
        for number in numbers:
            draw = make_draw(source, _seed(clean.name, number), layout, prior)
            stem = f"{index:05d}-{number:03d}"
            save_array(root / "draws" / f"{stem}.npy", draw.degraded)
            save_array(root / "maps" / f"{stem}.npy", draw.transmission.astype(np.float16))
            with (root / "maps" / f"{stem}.npz").open("wb") as file:
                arrays = _layout_arrays(layout)
                np.savez(file, **arrays)  # type: ignore[arg-type]  # the stub lacks ** of arrays
            write_atomic(root / "draws" / f"{stem}.json", draw.diagnosis.to_json().encode())
    return len(todo)


def _one_thread() -> None:
    """The processes are the parallelism: OpenCV's own threads would only be in their way."""
    cv2.setNumThreads(1)


def _render_all(root: Path, images: Sequence[Clean], draws: int, workers: int) -> Iterator[int]:
    """Render image by image; yields how many draws were made of each, in order."""
    if workers <= 1 or not any(_missing(root, index, draws) for index in range(len(images))):
        for index, clean in enumerate(images):
            yield _render_image(root, index, clean, draws)
        return
    # Spawned, not forked: a fork of a process whose libraries have threads can wait forever for a
    # lock that one of those threads held.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        jobs = [
            pool.submit(_render_image, root, index, clean, draws)
            for index, clean in enumerate(images)
        ]
        for job in jobs:
            yield job.result()


def render(
    root: Path, images: Sequence[Clean], draws: int, *, workers: int = 2, progress: bool = True
) -> DrawSet:
    """Render ``draws`` degraded versions of each image below ``root``, continuing what is there.

    With more than one worker, new processes import the calling program's main module: a script
    keeps its own work under ``if __name__ == "__main__":``.

    Raises:
        ImageError: the folder holds a set of other images.
    """
    index_file = root / "index.json"
    names = [clean.name for clean in images]
    wanted = {"format": _FORMAT, "names": names, "draws": draws, "finished": False}
    if index_file.exists():
        found = json.loads(index_file.read_text())
        if found.get("format") != _FORMAT or found.get("names") != names:
            raise ImageError(
                f"{root} holds draws of other images (or of another version); "
                "name another cache folder or delete this one"
            )
    for folder in ("clean", "draws", "maps"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    # Written first: a stopped rendering must not be continued with other images.
    write_atomic(index_file, json.dumps(wanted).encode())
    bar = tqdm(total=len(images) * draws, desc="degrade", unit="draw", disable=not progress)
    with bar:
        for made in _render_all(root, images, draws, workers):
            bar.update(draws)
            bar.set_postfix(new=made, refresh=False)
    write_atomic(index_file, json.dumps({**wanted, "finished": True}).encode())
    return DrawSet.open(root)


@dataclass(frozen=True)
class DrawSet:
    """A rendered set; position ``i`` is image ``i // draws``, number ``i % draws``."""

    root: Path
    names: tuple[str, ...]
    draws: int

    @classmethod
    def open(cls, root: Path) -> DrawSet:
        """Open a rendered set.

        Raises:
            ImageError: there is none, or its rendering was not finished.
        """
        try:
            index = json.loads((root / "index.json").read_text())
            if not index.get("finished", True):
                raise ValueError("its rendering was stopped: render it again to continue")
            return cls(root, tuple(index["names"]), int(index["draws"]))
        except (OSError, ValueError, KeyError) as error:
            raise ImageError(f"{root}: no finished set of draws here ({error})") from error

    def __len__(self) -> int:
        return len(self.names) * self.draws

    def split(self, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions for training and for validation; all draws of an image go to one side."""
        mask = np.repeat([held_out(name, share) for name in self.names], self.draws)
        positions = np.arange(len(self))
        return positions[~mask], positions[mask]

    def _stem(self, position: int) -> str:
        return f"{position // self.draws:05d}-{position % self.draws:03d}"

    def degraded(self, position: int) -> NDArray[np.uint8]:
        """The degraded frame as a read-only memory map, uint8 BGR (H, W, 3)."""
        path = self.root / "draws" / f"{self._stem(position)}.npy"
        frame: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        return frame

    def clean(self, position: int) -> NDArray[np.uint8]:
        """The clean frame, uint8 BGR (H, W, 3), mirrored for odd draws."""
        path = self.root / "clean" / f"{position // self.draws:05d}.npy"
        frame: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        return frame[:, ::-1] if position % self.draws % 2 == 1 else frame

    def draw(self, position: int) -> Draw:
        """Everything that is kept of a draw."""
        return Draw(
            clean=self.clean(position),
            degraded=self.degraded(position),
            transmission=self.transmission(position),
            diagnosis=self.diagnosis(position),
            layout=self.layout(position),
        )

    def transmission(self, position: int) -> NDArray[np.float32]:
        """The true transmission map, float32 (32, 32)."""
        path = self.root / "maps" / f"{self._stem(position)}.npy"
        values: NDArray[np.float32] = np.load(path).astype(np.float32)
        return values

    def layout(self, position: int) -> SceneLayout:
        """Class shares, colours and detail of the clean scene."""
        with np.load(self.root / "maps" / f"{self._stem(position)}.npz") as arrays:
            classes = arrays["classes"] if "classes" in arrays.files else None
            return SceneLayout(classes, arrays["colours"], arrays["detail"])

    def diagnosis(self, position: int) -> Diagnosis:
        """The true diagnosis."""
        return Diagnosis.from_json(
            (self.root / "draws" / f"{self._stem(position)}.json").read_bytes()
        )
