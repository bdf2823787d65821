from __future__ import annotations

import pytest

from rirf_training.rl.guard import Validation, best, hacked


def history(rewards: list[float], judged: list[float]) -> list[Validation]:
    return [
        Validation(100 * number, reward, judge)
        for number, (reward, judge) in enumerate(zip(rewards, judged, strict=True))
    ]


RISING = [0.10, 0.12, 0.14, 0.16, 0.18, 0.20]


@pytest.mark.parametrize(
    ("rewards", "judged", "stops"),
    [
        # The judge falls below its best of 0.12 by more than 0.02, three times in a row.
        (RISING, [0.10, 0.12, 0.11, 0.09, 0.08, 0.07], True),
        # Twice only, then not enough.
        (RISING, [0.10, 0.12, 0.11, 0.09, 0.08, 0.105], False),
        (RISING, [0.10, 0.12, 0.12, 0.11, 0.08, 0.07], False),
        # It rises with the reward.
        (RISING, [0.10, 0.12, 0.14, 0.16, 0.18, 0.20], False),
        # Both fall: training went wrong, but nobody is fooled.
        ([0.10, 0.20, 0.15, 0.12, 0.11, 0.10], [0.10, 0.12, 0.11, 0.09, 0.08, 0.07], False),
        # From the start on.
        (RISING[:4], [0.12, 0.09, 0.08, 0.07], True),
        (RISING[:3], [0.12, 0.09, 0.08], False),
        ([0.1], [0.1], False),
    ],
)
def test_when_it_stops(rewards: list[float], judged: list[float], stops: bool) -> None:
    assert hacked(history(rewards, judged), margin=0.02, patience=3) is stops


def test_margin_and_patience() -> None:
    falling = history(RISING, [0.10, 0.12, 0.11, 0.09, 0.08, 0.07])
    assert not hacked(falling, margin=0.031, patience=3)
    assert hacked(falling, margin=0.031, patience=2)
    assert hacked(falling, margin=0.0, patience=4)
    assert not hacked(falling, margin=0.0, patience=5)


def test_the_best_is_the_judges_first() -> None:
    assert best(history([0.1, 0.5, 0.2], [0.3, 0.1, 0.3])).step == 0
    assert best(history([0.1, 0.5, 0.2], [0.3, 0.1, 0.31])).step == 200
