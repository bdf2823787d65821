"""Arrays in memory as users have them: flipped, skipping, channels first, slices of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

LAYOUTS = (
    "dense",
    "flipped",
    "skipping",
    "channels_first",
    "slice_of_batch",
    "window",
    "transposed",
)


def _carve(
    shape: tuple[int, ...], layout: str, make: Callable[[tuple[int, ...]], NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A base array and a view of it with the wanted shape: (N, H, W) or (N, H, W, C)."""
    count, height, width, *rest = shape
    if layout == "flipped":
        base = make(shape)
        return base, base[:, ::-1, ::-1]
    if layout == "skipping":
        base = make((count, 2 * height, 2 * width + 1, *rest))
        return base, base[:, ::2, 1::2]
    if layout == "channels_first":
        base = make((count, *rest, height, width))
        return base, np.moveaxis(base, 1, -1) if rest else base
    if layout == "slice_of_batch":
        base = make((2 * count, *shape[1:]))
        return base, base[::-2]
    if layout == "window":  # of a larger frame with more channels
        base = make((count, height + 3, width + 2, *(size + 1 for size in rest)))
        view = base[:, 2:-1, 1:-1]
        return base, view[..., :-1] if rest else view
    if layout == "transposed":
        base = make((count, width, height, *rest))
        return base, np.swapaxes(base, 1, 2)
    base = make(shape)
    return base, base


@dataclass(frozen=True)
class Room:
    """Memory for a result: the view to be written, and everything around it."""

    view: NDArray[np.float32]
    base: NDArray[np.float32]
    around: NDArray[np.bool_]

    def left_alone(self) -> bool:
        """Whether nothing but the view was written."""
        return bool(np.isnan(self.base[self.around]).all())

    def untouched(self) -> bool:
        """Whether nothing at all was written."""
        return bool(np.isnan(self.base).all())


def room(shape: tuple[int, ...], layout: str) -> Room:
    """Memory full of NaN, with a view of this shape in this layout."""
    base, view = _carve(shape, layout, lambda size: np.full(size, np.nan, dtype=np.float32))
    around, inside = _carve(shape, layout, lambda size: np.ones(size, dtype=bool))
    inside[...] = False
    return Room(view, base, around)


def laid_out(values: NDArray[np.float32], layout: str) -> NDArray[np.float32]:
    """The same values in another layout; what lies around them is NaN, to be noticed if read."""
    found = room(values.shape, layout).view
    found[...] = values
    return found


def layouts() -> st.SearchStrategy[str]:
    return st.sampled_from(LAYOUTS)


def sizes(low: int = 1, high: int = 150) -> st.SearchStrategy[tuple[int, int]]:
    """Heights and widths: odd, narrow, and just beside the widths of vectors and blocks."""
    edges = [n for n in (1, 2, 3, 7, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129) if low <= n <= high]
    side = st.one_of(st.integers(low, high), st.sampled_from(edges))
    return st.tuples(side, side)


def pixels(seed: int, *shape: int) -> NDArray[np.float32]:
    """Uniform values in [0, 1] with whole stretches of 0 and 1, repeatable."""
    generator = np.random.default_rng(seed)
    values = generator.uniform(-0.1, 1.1, size=shape)
    return np.clip(values, 0.0, 1.0).astype(np.float32)
