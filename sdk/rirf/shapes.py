"""Frame sizes that engines with fixed profiles are built for, as people write them.

Knows the runtime's tile, beyond which nothing reaches an engine; knows no engine.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

from rirf.errors import EngineError
from rirf.images import MIN_SIDE
from rirf.restorer import TILE

__all__ = ["DEFAULT_SHAPES", "Shapes", "parse_shapes"]

# (width, height) in pixels, as cameras are described.
Size: TypeAlias = tuple[int, int]

_SIZE = re.compile(r"(\d+)x(\d+)")


class Shapes(NamedTuple):
    """Frame sizes an engine serves: the smallest, the one to be fastest at, the largest.

    The runtime cuts frames larger than ``rirf.restorer.TILE`` into tiles of that size, so nothing
    beyond it reaches an engine.
    """

    minimum: Size
    optimum: Size
    maximum: Size

    def __str__(self) -> str:
        return ":".join(f"{width}x{height}" for width, height in self)

    @property
    def axes(self) -> dict[str, tuple[int, int, int]]:
        """(min, opt, max) of the restorer's dynamic axes."""
        widths, heights = zip(*self, strict=True)
        return {"height": heights, "width": widths}


DEFAULT_SHAPES = Shapes((MIN_SIDE, MIN_SIDE), (TILE // 2, TILE // 2), (TILE, TILE))


def parse_shapes(text: str) -> Shapes:
    """``MIN:OPT:MAX``, each ``WIDTHxHEIGHT`` in pixels.

    Raises:
        EngineError: not of that form, sizes that contradict each other, or larger than a tile.
    """
    found = [_SIZE.fullmatch(part) for part in text.split(":")]
    if len(found) != len(Shapes._fields) or any(match is None for match in found):
        raise EngineError(
            f"shapes {text!r}: expected MIN:OPT:MAX, each WIDTHxHEIGHT, e.g. {DEFAULT_SHAPES}"
        )
    shapes = Shapes(*((int(match[1]), int(match[2])) for match in found if match is not None))
    for axis, values in shapes.axes.items():
        if not 0 < values[0] <= values[1] <= values[2]:
            raise EngineError(
                f"shapes {text}: the {axis}s are {values[0]}, {values[1]}, {values[2]}; expected "
                "0 < MIN <= OPT <= MAX"
            )
        if values[2] > TILE:
            raise EngineError(
                f"shapes {text}: the largest {axis} is {values[2]}; expected {TILE} at most, "
                "since larger frames are cut into tiles of that size"
            )
    return shapes
