from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from rirf.degradation import (
    FogParameters,
    NoiseParameters,
    RainParameters,
    Recipe,
    ShakeParameters,
    sample_recipe,
)
from rirf.degradation.recipe import check_recipe
from rirf.errors import ImageError
from tests.strategies import SEEDS

pytestmark = pytest.mark.lean

FULL = Recipe(
    atmospheric_light=(0.8, 0.85, 0.9),
    fog=FogParameters(1.5),
    shake=ShakeParameters(20, 1.2),
    rain=RainParameters(4e-3, -15.0, 25.0, 1.5, 0.7),
    noise=NoiseParameters(0.1, 5.0),
)
# Smallest and largest value that each field takes, and whether the smallest itself is out.
RANGES: dict[str, tuple[float, float, bool]] = {
    "fog.beta": (0, 100, True),
    "shake.steps": (1, 4096, False),
    "shake.step_px": (0, 1000, False),
    "rain.density": (0, 1, False),
    "rain.slant_deg": (-90, 90, False),
    "rain.length_px": (0, 1000, True),
    "rain.width_px": (0, 100, True),
    "rain.opacity": (0, 1, False),
    "noise.gain": (0, 10, False),
    "noise.offset": (-255, 255, False),
}


def changed(field: str, value: Any) -> Recipe:
    effect, name = field.split(".")
    return replace(FULL, **{effect: replace(getattr(FULL, effect), **{name: value})})


@given(SEEDS)
def test_what_is_drawn_lies_in_the_models_range(seed: int) -> None:
    check_recipe(sample_recipe(seed))


@pytest.mark.parametrize("field", RANGES)
def test_each_field_has_its_range(field: str) -> None:
    low, high, above = RANGES[field]
    check_recipe(changed(field, high))
    check_recipe(changed(field, low + 1 if above else low))
    bad = [low - 1, high + 1, float("nan"), float("inf"), "1", None, True]
    bad += [low] if above else []
    bad += [1.5] if field == "shake.steps" else []
    for value in bad:
        with pytest.raises(ImageError, match=rf"the recipe's {field} is .*; expected a .*{high:g}"):
            check_recipe(changed(field, value))


def test_numpy_numbers_are_numbers() -> None:
    check_recipe(changed("fog.beta", np.float32(1.5)))
    check_recipe(changed("shake.steps", np.int64(12)))


def test_an_absent_effect_is_not_looked_at() -> None:
    check_recipe(Recipe(atmospheric_light=(0.0, 0.5, 1.0)))


@pytest.mark.parametrize(
    "light",
    [(0.5, 0.5), (0.5, 0.5, 0.5, 0.5), 0.5, (0.5, -0.1, 0.5), (0.5, 0.5, 1.01), (0.5, None, 0.5)],
)
def test_the_light_has_three_shares(light: Any) -> None:
    with pytest.raises(ImageError, match="the recipe's atmospheric_light is"):
        check_recipe(Recipe(atmospheric_light=light))
