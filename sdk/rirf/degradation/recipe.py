"""What is done to one frame: the parameters of every effect, drawn from a seed or given.

Holds the model's range of each parameter, so that a recipe is refused before anything runs, and in
the same words whichever backend runs it.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import asdict, dataclass
from typing import Any

from rirf.degradation import fog, noise, rain, shake
from rirf.degradation.draws import ParameterDraws
from rirf.degradation.philox import Stage
from rirf.diagnosis import EFFECTS
from rirf.errors import ImageError

__all__ = ["PRESENCE_PROBABILITY", "Recipe", "check_recipe", "sample_recipe"]

PRESENCE_PROBABILITY = 0.5


@dataclass(frozen=True)
class Recipe:
    """Parameters of every effect; None means absent. The light A is there in any case."""

    atmospheric_light: tuple[float, float, float]
    fog: fog.FogParameters | None = None
    shake: shake.ShakeParameters | None = None
    rain: rain.RainParameters | None = None
    noise: noise.NoiseParameters | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, for JSON records."""
        return asdict(self)


def sample_recipe(seed: int) -> Recipe:
    """Draw which effects are present (each with probability 0.5) and their parameters."""
    draws = ParameterDraws(seed, Stage.PRESENCE)
    present = {name: draws.flag(slot, PRESENCE_PROBABILITY) for slot, name in enumerate(EFFECTS)}
    return Recipe(
        atmospheric_light=fog.sample_atmospheric_light(seed),
        fog=fog.sample(seed) if present["fog"] else None,
        shake=shake.sample(seed) if present["shake"] else None,
        rain=rain.sample(seed) if present["rain"] else None,
        noise=noise.sample(seed) if present["noise"] else None,
    )


@dataclass(frozen=True)
class _Bounds:
    low: float
    high: float
    above: bool = False  # whether the lower end itself is out
    whole: bool = False

    def holds(self, value: Any) -> bool:
        kind = numbers.Integral if self.whole else numbers.Real
        if not isinstance(value, kind) or isinstance(value, bool):
            return False
        number = float(value)
        if not math.isfinite(number):
            return False
        return (self.low < number if self.above else self.low <= number) and number <= self.high

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        start = "above" if self.above else "from"
        return f"{kind} {start} {self.low:g} to {self.high:g}"


_SHARE = _Bounds(0, 1)
# The physics gives the ends that are shares and angles. The others are far beyond what a camera
# shows, and keep float32 and the memory of a streak's stamp within bounds.
_BOUNDS: dict[str, dict[str, _Bounds]] = {
    "fog": {"beta": _Bounds(0, 100, above=True)},
    "shake": {"steps": _Bounds(1, 4096, whole=True), "step_px": _Bounds(0, 1000)},
    "rain": {
        "density": _SHARE,
        "slant_deg": _Bounds(-90, 90),
        "length_px": _Bounds(0, 1000, above=True),
        "width_px": _Bounds(0, 100, above=True),
        "opacity": _SHARE,
    },
    "noise": {"gain": _Bounds(0, 10), "offset": _Bounds(-255, 255)},
}


def check_recipe(recipe: Recipe) -> None:
    """See that every parameter lies in the model's range.

    Raises:
        ImageError: one does not; the message names it.
    """
    light = recipe.atmospheric_light
    if not isinstance(light, tuple | list) or len(light) != 3:
        raise ImageError(
            f"the recipe's atmospheric_light is {light!r}; expected three numbers (R, G, B) from "
            "0 to 1"
        )
    for value in light:
        if not _SHARE.holds(value):
            raise ImageError(
                f"the recipe's atmospheric_light is {light!r}; expected each of R, G, B to be "
                f"{_SHARE}"
            )
    for effect, fields in _BOUNDS.items():
        parameters = getattr(recipe, effect)
        if parameters is None:
            continue
        for name, bounds in fields.items():
            value = getattr(parameters, name)
            if not bounds.holds(value):
                raise ImageError(f"the recipe's {effect}.{name} is {value!r}; expected {bounds}")
