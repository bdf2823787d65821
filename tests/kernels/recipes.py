"""Recipes by hypothesis, as the kernels and as the NumPy code take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from rirf.degradation import (
    FogParameters,
    NoiseParameters,
    RainParameters,
    Recipe,
    ShakeParameters,
)
from tests.strategies import SEEDS

BITS = {"fog": 1, "shake": 2, "rain": 4, "noise": 8}


def _within(low: float, high: float, *, above: bool = False) -> st.SearchStrategy[float]:
    ends = [high] if above else [low, high]
    return st.one_of(st.sampled_from(ends), st.floats(low, high, exclude_min=above))


def lights() -> st.SearchStrategy[tuple[float, float, float]]:
    share = _within(0.0, 1.0)
    return st.tuples(share, share, share)


def fogs() -> st.SearchStrategy[FogParameters]:
    return st.builds(FogParameters, beta=st.one_of(_within(0.8, 3.0), _within(1e-6, 100.0)))


def shakes() -> st.SearchStrategy[ShakeParameters]:
    steps = st.one_of(st.integers(8, 64), st.sampled_from((1, 2, 3, 500)))
    return st.builds(
        ShakeParameters, steps=steps, step_px=st.one_of(_within(0.8, 3.2), _within(0.0, 1000.0))
    )


def rains(most: float = 80.0) -> st.SearchStrategy[RainParameters]:
    """Streaks up to ``most`` pixels long: NumPy's mask of a longer one takes seconds."""
    return st.builds(
        RainParameters,
        density=st.one_of(_within(5e-4, 1e-2), _within(0.0, 1.0)),
        slant_deg=st.one_of(_within(-30.0, 30.0), _within(-90.0, 90.0)),
        length_px=_within(1e-3, most),
        width_px=st.one_of(_within(1.0, 3.0), _within(1e-3, 20.0)),
        opacity=_within(0.0, 1.0),
    )


def noises(*, wild: bool = True) -> st.SearchStrategy[NoiseParameters]:
    gain, offset = _within(0.0, 0.3), _within(-20.0, 20.0)
    if wild:
        gain, offset = (
            st.one_of(gain, _within(0.0, 10.0)),
            st.one_of(offset, _within(-255.0, 255.0)),
        )
    return st.builds(NoiseParameters, gain=gain, offset=offset)


@st.composite
def seeded_recipes(draw: st.DrawFn) -> tuple[int, Recipe]:
    """A seed and a recipe with any of the effects, within and at the model's limits."""
    recipe = Recipe(
        atmospheric_light=draw(lights()),
        fog=draw(st.none() | fogs()),
        shake=draw(st.none() | shakes()),
        rain=draw(st.none() | rains()),
        noise=draw(st.none() | noises()),
    )
    return draw(SEEDS), recipe


def as_rows(native: Any, seeded: list[tuple[int, Recipe]]) -> NDArray[np.void]:
    """The recipes as an array of ``rirf_kernels.RECIPE``."""
    rows: NDArray[np.void] = native.recipes(len(seeded))
    for row, (seed, recipe) in zip(rows, seeded, strict=True):
        row["seed"] = seed
        row["light"] = recipe.atmospheric_light
        for name, bit in BITS.items():
            parameters = getattr(recipe, name)
            if parameters is None:
                continue
            row["present"] |= bit
            for field, value in vars(parameters).items():
                row[field] = value
    return rows
