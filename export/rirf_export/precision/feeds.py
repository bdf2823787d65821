"""What the networks really see: degraded frames, run through the pipeline, its tensors recorded.

Calibration and precision choices look at these, because random tensors have other ranges than
photographs in fog. Knows the pipeline; knows nothing of precisions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rirf.degradation import degrade
from rirf.engine import Engine, TensorSpec
from rirf.errors import ImageError
from rirf.files import find_images
from rirf.images import read_image, to_float, to_uint8
from rirf.pipeline import Pipeline

__all__ = ["Feeds", "Recording", "degraded_frames", "record"]

# Input tensors of one run of a graph, by name.
Feeds: TypeAlias = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Recording:
    """What both networks were given for one frame: a run of the reasoner, each of the restorer."""

    reasoner: tuple[Feeds, ...]
    restorer: tuple[Feeds, ...]

    def of(self, kind: str) -> tuple[Feeds, ...]:
        """The runs of ``reasoner`` or ``restorer``."""
        return {"reasoner": self.reasoner, "restorer": self.restorer}[kind]


def degraded_frames(
    source: Path, count: int, *, side: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """``count`` pictures of a folder, evenly spaced over it, each with a degradation of its own.

    The draw depends on the picture's name alone, so the same folder gives the same frames. Now and
    then it has no effect at all, as frames in use have none.

    Args:
        source: a folder of clean pictures, or one picture.
        count: how many, at least 1; all of them where there are fewer.
        side: cut the centre, at most this many pixels high and wide; the whole frame when None.

    Returns:
        Degraded frames, uint8 BGR (H, W, 3).

    Raises:
        ImageError: nothing to read there, a damaged picture, or a count below 1.
    """
    if count < 1:
        raise ImageError(f"got a count of {count} frames; expected at least 1")
    found = find_images([source])
    total = min(count, len(found))
    return (
        _centre(_degraded(found[(2 * place + 1) * len(found) // (2 * total)].path), side)
        for place in range(total)
    )


def _centre(frame: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    if side is None:
        return frame
    top, left = (max(0, (size - side) // 2) for size in frame.shape[:2])
    return np.ascontiguousarray(frame[top : top + side, left : left + side])


def _degraded(path: Path) -> NDArray[np.uint8]:
    # Not the protocol's seeds: what is evaluated must not be what was calibrated on.
    digest = hashlib.sha256(f"calibration/{path.name}".encode()).digest()
    seed = int.from_bytes(digest[:8], "little")
    return to_uint8(degrade(to_float(read_image(path)), seed).image)


class _Recorder:
    """An engine that keeps a copy of what it is given; see :class:`rirf.engine.base.Engine`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.taken: list[Feeds] = []

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.engine.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.engine.outputs

    @property
    def device(self) -> str:
        return self.engine.device

    def run(self, inputs: Feeds) -> dict[str, NDArray[Any]]:
        # The pipeline may write into its arrays again.
        self.taken.append({name: value.copy() for name, value in inputs.items()})
        return self.engine.run(inputs)

    def run_into(self, inputs: Feeds, outputs: Feeds) -> None:
        self.taken.append({name: value.copy() for name, value in inputs.items()})
        self.engine.run_into(inputs, outputs)

    def warm_up(self, inputs: Feeds) -> None:
        self.engine.warm_up(inputs)

    def close(self) -> None:
        self.engine.close()

    def take(self) -> tuple[Feeds, ...]:
        """What was given since the last call."""
        taken, self.taken = tuple(self.taken), []
        return taken


def record(pipeline: Pipeline, frames: Iterable[NDArray[np.uint8]]) -> Iterator[Recording]:
    """Run frames through a pipeline and give back what its networks were given, frame by frame.

    The restorer's modes take turns, so that every moment of every schedule is seen; the step
    policy has no say, or it would leave light frames out.

    Args:
        pipeline: loaded and in fp32; it stays open.
        frames: uint8 BGR (H, W, 3).
    """
    reasoner, restorer = _Recorder(pipeline.reasoner), _Recorder(pipeline.restorer)
    watched = Pipeline(pipeline.bundle, reasoner, restorer)
    modes = cycle(pipeline.bundle.manifest.restorer.schedules)
    for frame, mode in zip(frames, modes, strict=False):
        watched(frame, steps=mode)
        yield Recording(reasoner=reasoner.take(), restorer=restorer.take())
