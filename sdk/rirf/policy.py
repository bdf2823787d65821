"""The step policy: how much restoring a diagnosis deserves.

Bypass when nothing can be bad ("do no harm": a clean frame comes back untouched), else a mode
chosen by the expected burden S, the sum of probability times upper severity bound. What decides the
bypass is one of three summaries of a diagnosis, see :data:`SUMMARIES`. Knows no engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from rirf.diagnosis import EFFECTS, Diagnosis

__all__ = [
    "MODES",
    "SUMMARIES",
    "FittedPolicy",
    "Mode",
    "Policy",
    "Rung",
    "Summary",
    "any_probability",
    "burden",
]

Mode: TypeAlias = Literal["bypass", "coarse", "1", "2", "4"]
MODES: tuple[Mode, ...] = ("bypass", "coarse", "1", "2", "4")


def burden(diagnosis: Diagnosis) -> dict[str, float]:
    """Probability times upper severity bound of each effect, in points."""
    effects = {name: diagnosis.effect(name) for name in EFFECTS}
    return {name: effect.probability * effect.interval[1] for name, effect in effects.items()}


def any_probability(diagnosis: Diagnosis) -> float:
    """Probability, 0 to 1, that any effect is there, as if each came by itself."""
    return 1.0 - math.prod(1.0 - diagnosis.effect(name).probability for name in EFFECTS)


Summary: TypeAlias = Literal["worst_burden", "total_burden", "any_probability"]
# What can decide the bypass: burdens in points, the probability from 0 to 1.
SUMMARIES: Final[Mapping[Summary, Callable[[Diagnosis], float]]] = MappingProxyType(
    {
        "worst_burden": lambda diagnosis: max(burden(diagnosis).values()),
        "total_burden": lambda diagnosis: sum(burden(diagnosis).values()),
        "any_probability": any_probability,
    }
)


class Rung(BaseModel):
    """From a total burden of ``above`` points on, use ``mode``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    above: Annotated[float, Field(ge=0.0)]
    mode: Mode


class Policy(BaseModel):
    """Thresholds of a bundle.

    Attributes:
        bypass_below: bypass when the summary is below this; 0 never bypasses.
        bypass_by: the summary of a diagnosis that decides the bypass. Left out of JSON where it is
            ``worst_burden``: every effect's burden must be small.
        ladder: rungs by rising ``above``; the first must start at 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bypass_below: Annotated[float, Field(ge=0.0)]
    bypass_by: Summary = "worst_burden"
    ladder: tuple[Rung, ...]

    @model_validator(mode="after")
    def _rising(self) -> Policy:
        starts = [rung.above for rung in self.ladder]
        if not starts or starts[0] != 0.0 or starts != sorted(starts):
            raise ValueError(f"the ladder must start at 0 and rise, got {starts}")
        if self.bypass_by == "any_probability" and self.bypass_below > 1.0:
            raise ValueError(
                f"bypass_below is {self.bypass_below}; expected a probability, 0 to 1, because "
                "any_probability decides the bypass"
            )
        return self

    @model_serializer(mode="wrap")
    def _brief(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # As before there was a choice, so that earlier versions read what they can follow.
        data: dict[str, Any] = handler(self)
        if self.bypass_by == "worst_burden":
            data.pop("bypass_by", None)
        return data

    def choose(self, diagnosis: Diagnosis | None) -> Mode:
        """The mode for a diagnosis; the first rung's without one."""
        if diagnosis is None:
            return self.ladder[0].mode
        if SUMMARIES[self.bypass_by](diagnosis) < self.bypass_below:
            return "bypass"
        total = SUMMARIES["total_burden"](diagnosis)
        return next(rung.mode for rung in reversed(self.ladder) if total >= rung.above)


class FittedPolicy(Policy):
    """A policy together with how it was found: the file that ``rirf export --policy`` reads.

    Attributes:
        provenance: free form, for people and for audits.
    """

    provenance: dict[str, Any]

    @property
    def thresholds(self) -> Policy:
        """The policy alone, as a bundle's manifest holds it."""
        return Policy(bypass_below=self.bypass_below, bypass_by=self.bypass_by, ladder=self.ladder)
