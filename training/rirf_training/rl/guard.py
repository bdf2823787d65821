"""When the reward no longer means what it should: the verdict of a reasoner that is not the reward.

Knows figures of validations only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["RewardHacked", "Validation", "best", "hacked"]


class RewardHacked(Exception):
    """Training has to stop; the message says why. Caught by the run, never shown as an error."""


@dataclass(frozen=True)
class Validation:
    """Mean rewards of the held-out patches after so many steps: by the reward, and by the judge."""

    step: int
    reward: float
    judge: float


def best(history: Sequence[Validation]) -> Validation:
    """The validation that the judge liked best, the first of several."""
    return max(history, key=lambda validation: validation.judge)


def hacked(history: Sequence[Validation], margin: float, patience: int) -> bool:
    """Whether the reward is being won in ways that the judge does not see.

    So it is when in each of the last ``patience`` validations the judge's reward was more than
    ``margin`` below its best, while the reward itself was above what it was then.
    """
    peak = best(history)
    recent = history[-patience:]
    return len(recent) == patience and all(
        validation.step > peak.step
        and validation.judge < peak.judge - margin
        and validation.reward > peak.reward
        for validation in recent
    )
