from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rirf.degradation.draws import ParameterDraws
from rirf.degradation.philox import Stage, Stream, uniforms
from tests.strategies import SEEDS

pytestmark = pytest.mark.lean


@given(SEEDS, st.sampled_from(Stage), st.integers(0, 31))
def test_a_slot_is_a_word_of_the_parameter_stream(seed: int, stage: Stage, slot: int) -> None:
    expected = float(uniforms(seed, stage, Stream.PARAMETERS, 32)[slot])
    draws = ParameterDraws(seed, stage)
    assert draws.uniform(slot, 0.0, 1.0) == expected
    assert draws.uniform(slot, -2.0, 3.0) == -2.0 + 5.0 * expected
    assert draws.flag(slot, 0.5) is (expected < 0.5)
    # Asking twice, or for another slot in between, changes nothing.
    draws.uniform((slot + 1) % 32, 0.0, 1.0)
    assert draws.uniform(slot, 0.0, 1.0) == expected


@given(SEEDS, st.integers(0, 31), st.integers(-50, 50), st.integers(0, 60))
def test_integers_stay_inside(seed: int, slot: int, low: int, span: int) -> None:
    value = ParameterDraws(seed, Stage.SHAKE).integer(slot, low, low + span)
    assert isinstance(value, int)
    assert low <= value <= low + span


def test_integers_reach_both_ends_evenly() -> None:
    values = [ParameterDraws(seed, Stage.SHAKE).integer(0, 8, 11) for seed in range(2000)]
    counts = np.bincount(values)[8:]
    assert counts.shape == (4,)
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_flags_have_their_frequency(probability: float) -> None:
    share = np.mean(
        [ParameterDraws(seed, Stage.PRESENCE).flag(2, probability) for seed in range(2000)]
    )
    assert share == pytest.approx(probability, abs=5 * np.sqrt(0.25 / 2000) * (0 < probability < 1))


def test_slots_are_independent() -> None:
    values = np.array(
        [
            [ParameterDraws(seed, Stage.FOG).uniform(s, 0, 1) for s in range(6)]
            for seed in range(1500)
        ]
    )
    correlation = np.corrcoef(values.T) - np.eye(6)
    assert np.abs(correlation).max() < 5 / np.sqrt(1500)
