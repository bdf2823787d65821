"""Scalar parameter draws of one stage, each at a numbered slot of its parameter stream."""

from __future__ import annotations

from rirf.degradation.philox import Stage, Stream, uniforms

__all__ = ["ParameterDraws"]

_SLOTS = 32


class ParameterDraws:
    """Uniform draws by slot: adding a parameter at a new slot never changes the older ones."""

    def __init__(self, seed: int, stage: Stage) -> None:
        self._values = uniforms(seed, stage, Stream.PARAMETERS, _SLOTS)

    def uniform(self, slot: int, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + (high - low) * float(self._values[slot])

    def integer(self, slot: int, low: int, high: int) -> int:
        """An integer in [low, high], both ends included."""
        return min(high, low + int(float(self._values[slot]) * (high - low + 1)))

    def flag(self, slot: int, probability: float) -> bool:
        """True with the given probability."""
        return float(self._values[slot]) < probability
