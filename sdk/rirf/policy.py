"""The step policy: how much restoring a diagnosis deserves.

Bypass when nothing can be bad ("do no harm": a clean frame comes back untouched), else a mode
chosen by the expected burden S, the sum of probability times upper severity bound. Knows no
engine.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rirf.diagnosis import EFFECTS, Diagnosis

__all__ = ["MODES", "Mode", "Policy", "burden"]

Mode: TypeAlias = Literal["bypass", "coarse", "1", "2", "4"]
MODES: tuple[Mode, ...] = ("bypass", "coarse", "1", "2", "4")


def burden(diagnosis: Diagnosis) -> dict[str, float]:
    """Probability times upper severity bound of each effect, in points."""
    effects = {name: diagnosis.effect(name) for name in EFFECTS}
    return {name: effect.probability * effect.interval[1] for name, effect in effects.items()}


class Rung(BaseModel):
    """From a total burden of ``above`` points on, use ``mode``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    above: Annotated[float, Field(ge=0.0)]
    mode: Mode


class Policy(BaseModel):
    """Thresholds of a bundle.

    Attributes:
        bypass_below: bypass when every effect's burden is below this.
        ladder: rungs by rising ``above``; the first must start at 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bypass_below: Annotated[float, Field(ge=0.0)]
    ladder: tuple[Rung, ...]

    @model_validator(mode="after")
    def _rising(self) -> Policy:
        starts = [rung.above for rung in self.ladder]
        if not starts or starts[0] != 0.0 or starts != sorted(starts):
            raise ValueError(f"the ladder must start at 0 and rise, got {starts}")
        return self

    def choose(self, diagnosis: Diagnosis | None) -> Mode:
        """The mode for a diagnosis; the first rung's without one."""
        if diagnosis is None:
            return self.ladder[0].mode
        each = burden(diagnosis)
        if max(each.values()) < self.bypass_below:
            return "bypass"
        total = sum(each.values())
        return next(rung.mode for rung in reversed(self.ladder) if total >= rung.above)
