from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from rirf_training.rl import (
    SdeStep,
    advantages,
    clipped_loss,
    gaussian_kl,
    grpo_loss,
    log_probability,
    ratio,
    sde_step,
)

REWARDS = arrays.arrays(
    np.float64, (3, 6), elements=st.floats(-2.0, 2.0, allow_nan=False, width=32)
)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradient(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, inputs))


# Advantages.


@settings(max_examples=50, deadline=None)
@given(REWARDS)
def test_advantages_sum_to_zero(rewards: np.ndarray) -> None:
    found = advantages(torch.from_numpy(rewards))
    assert found.shape == (3, 6)
    torch.testing.assert_close(found.sum(dim=1), torch.zeros(3), atol=2e-3, rtol=0)
    assert float(found.abs().max()) <= math.sqrt(5) + 1e-3


@settings(max_examples=50, deadline=None)
@given(REWARDS, st.floats(0.5, 20.0), st.floats(-5.0, 5.0))
def test_advantages_know_no_scale_and_no_offset(
    rewards: np.ndarray, scale: float, offset: float
) -> None:
    plain = torch.from_numpy(rewards)
    # Where the spread is far above the constant that keeps the division stable.
    kept = plain.std(dim=1, correction=0) > 0.1
    moved = advantages(scale * plain + offset)
    torch.testing.assert_close(moved[kept], advantages(plain)[kept], atol=5e-3, rtol=5e-3)


@settings(max_examples=20, deadline=None)
@given(st.floats(-100.0, 100.0), st.integers(2, 9))
def test_a_group_without_spread_has_none(reward: float, count: int) -> None:
    assert not advantages(torch.full((2, count), reward)).any()


def test_advantages_by_hand() -> None:
    found = advantages(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    expected = torch.tensor([[-1.0, 1.0], [0.0, 0.0]]) / 1.0001
    torch.testing.assert_close(found, expected)


def test_advantages_are_bounded() -> None:
    rewards = torch.zeros(1, 50)
    rewards[0, 0] = 1.0
    found = advantages(rewards)
    # Without the bound it would be 7.
    assert float(found[0, 0]) == 5.0


# GRPO.


@settings(max_examples=30, deadline=None)
@given(
    arrays.arrays(np.float64, (2, 5), elements=st.floats(0.0, 0.5, width=32)),
    st.floats(0.01, 2.0),
    st.integers(0, 1000),
)
def test_the_normaliser_cancels(errors: np.ndarray, tau: float, seed: int) -> None:
    advantage = advantages(torch.rand(2, 5, generator=random(seed)))
    given_errors = torch.from_numpy(errors).float().requires_grad_()
    plain = (advantage * given_errors).sum(dim=1).mean() / (5 * tau)
    loss = grpo_loss(given_errors, advantage, tau)
    torch.testing.assert_close(loss, plain, atol=1e-4, rtol=1e-4)
    (found,) = gradient(loss, given_errors)
    torch.testing.assert_close(found, advantage / (2 * 5 * tau), atol=1e-4, rtol=1e-4)


def test_groups_without_spread_are_left_out() -> None:
    rewards = torch.tensor([[0.1, 0.2, 0.4], [0.3, 0.3, 0.3]])
    errors = torch.rand(2, 3, generator=random(), requires_grad=True)
    advantage = advantages(rewards)
    loss = grpo_loss(errors, advantage, 0.1)
    # The mean over the groups that count, not over all.
    torch.testing.assert_close(loss, grpo_loss(errors[:1], advantage[:1], 0.1))
    assert not gradient(loss, errors)[0][1].any()
    none = grpo_loss(errors, torch.zeros(2, 3), 0.1)
    assert float(none.detach()) == 0.0
    assert not gradient(none, errors)[0].any()


def descend(objective: str, weight: float, target: float, steps: int = 200) -> tuple[float, float]:
    """A one-parameter restorer's weight and mean reward after training with GRPO.

    ``mode``: noise decides whether a sample is weight or 0. ``shift``: a sample is weight + noise.
    The reward is minus the distance to the target, which is the clean image too.
    """
    parameter = torch.tensor(weight, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.02)
    source = random()
    reward = torch.zeros(())
    for _ in range(steps):
        noise = torch.randn(8, 8, generator=source)
        sample = parameter * (noise > 0) if objective == "mode" else parameter + 0.3 * noise
        rewards = -(sample.detach() - target).abs()
        reward = rewards.mean()
        loss = grpo_loss((sample - target) ** 2, advantages(rewards), 1.0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
        optimizer.step()
    return float(parameter.detach()), float(reward)


def test_grpo_raises_the_reward_of_what_good_samples_do() -> None:
    weight, reward = descend("mode", weight=0.2, target=1.0)
    # Half of the samples are 0 whatever the weight: -0.5 is the best there is, from -0.9.
    assert weight == pytest.approx(1.0, abs=0.05)
    assert reward > -0.6


def test_grpo_alone_pushes_what_all_samples_share_away() -> None:
    """Algorithm 1 is no policy gradient; the supervised share beside it is not a luxury."""
    weight, reward = descend("shift", weight=0.2, target=1.0)
    assert weight < 0.1
    assert reward < -0.9


# Flow-GRPO.

TIMES = [(1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0.0)]


def pair(time: float, following: float, count: int = 3) -> tuple[Tensor, Tensor]:
    return torch.full((count,), time), torch.full((count,), following)


@pytest.mark.parametrize(("time", "following"), TIMES)
def test_without_noise_a_step_is_the_odes(time: float, following: float) -> None:
    state, velocity = torch.randn(2, 3, 3, 4, 5, generator=random())
    step = sde_step(state, velocity, *pair(time, following), level=0.0)
    torch.testing.assert_close(step.mean, state + (following - time) * velocity)
    assert step.deviation.shape == (3, 1, 1, 1)
    assert not step.deviation.any()


@pytest.mark.parametrize(("time", "following"), TIMES)
def test_a_step_by_hand(time: float, following: float) -> None:
    state, velocity = torch.tensor([[0.4]]), torch.tensor([[-1.1]])
    level = 0.7
    remaining = 1 - time if time < 1 else time - following
    sigma = level * math.sqrt(time / remaining)
    drift = -1.1 + sigma**2 / (2 * time) * (0.4 + (1 - time) * -1.1)
    step = sde_step(state, velocity, *pair(time, following, 1))
    assert float(step.mean) == pytest.approx(0.4 + drift * (following - time), rel=1e-5)
    assert float(step.deviation) == pytest.approx(sigma * math.sqrt(time - following), rel=1e-5)


def test_the_sde_keeps_the_flows_marginals() -> None:
    """Data of mean 2 and spread 0.5: many small steps end there, as the ODE does."""
    mean, spread, steps = 2.0, 0.5, 200
    state = torch.randn(20000, 1, generator=random(1))
    for number in range(steps):
        time, following = 1 - number / steps, 1 - (number + 1) / steps
        # The expected velocity of a Gaussian flow: E[noise - data | state].
        variance = (1 - time) ** 2 * spread**2 + time**2
        slope = (time - (1 - time) * spread**2) / variance
        velocity = slope * (state - (1 - time) * mean) - mean
        step = sde_step(state, velocity, *pair(time, following, len(state)))
        noise = torch.randn(state.shape, generator=random(2 + number))
        state = step.mean + step.deviation * noise
    assert float(state.mean()) == pytest.approx(mean, abs=0.03)
    assert float(state.std()) == pytest.approx(spread, abs=0.03)


def test_the_log_probability_is_the_gaussians() -> None:
    state, velocity, drawn = torch.randn(3, 4, 3, 5, 6, generator=random())
    step = sde_step(state, velocity, *pair(0.75, 0.5, 4))
    normal = torch.distributions.Normal(step.mean, step.deviation.expand_as(step.mean))
    density = normal.log_prob(drawn)  # type: ignore[no-untyped-call]  # torch has no type for it
    expected = density.flatten(1).mean(dim=1)
    torch.testing.assert_close(log_probability(drawn, step), expected)


def test_no_gradient_flows_into_what_was_drawn() -> None:
    mean = torch.zeros(2, 3, requires_grad=True)
    step = SdeStep(mean, torch.ones(2, 1))
    drawn = mean + 1.0
    (found,) = gradient(log_probability(drawn, step).sum(), mean)
    torch.testing.assert_close(found, torch.full((2, 3), 1 / 3))


def test_at_ratio_one_it_is_the_policy_gradient() -> None:
    log_prob = torch.randn(2, 4, generator=random(), requires_grad=True)
    advantage = advantages(torch.rand(2, 4, generator=random(1)))
    ratios = ratio(log_prob, log_prob)
    torch.testing.assert_close(ratios, torch.ones(2, 4))
    (found,) = gradient(clipped_loss(ratios, advantage, 0.1), log_prob)
    torch.testing.assert_close(found, -advantage / 8)


def test_clipping() -> None:
    # Two groups of which only the first has a spread.
    advantage = torch.tensor([[1.0, 1.0, -1.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    ratios = torch.tensor([[1.3, 0.5, 1.3, 0.5], [2.0, 2.0, 2.0, 2.0]], requires_grad=True)
    loss = clipped_loss(ratios, advantage, 0.2)
    # Good samples gain nothing above 1.2, bad ones nothing below 0.8.
    assert float(loss.detach()) == pytest.approx(-(1.2 + 0.5 - 1.3 - 0.8) / 4)
    (found,) = gradient(loss, ratios)
    expected = torch.tensor([[0.0, -0.25, 0.25, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(found, expected)


def test_the_divergence() -> None:
    one, other = torch.randn(2, 3, 2, 4, generator=random())
    step = SdeStep(one, torch.full((3, 1, 1), 0.6))
    assert not gaussian_kl(step, one).any()
    normals = [torch.distributions.Normal(mean, torch.tensor(0.6)) for mean in (one, other)]
    expected = torch.distributions.kl_divergence(*normals).flatten(1).mean(dim=1)
    torch.testing.assert_close(gaussian_kl(step, other), expected)


def test_flow_grpo_raises_the_reward() -> None:
    """A flow to a point, which is the only parameter, learns where the reward is."""
    point = torch.tensor(0.0, requires_grad=True)
    optimizer = torch.optim.SGD([point], lr=0.05)
    source = random()
    means = []
    for _ in range(100):
        states, found = [torch.randn(32, 1, generator=source)], []
        with torch.no_grad():
            for time, following in TIMES[:-1]:
                step = sde_step(states[-1], (states[-1] - point) / time, *pair(time, following, 32))
                noise = torch.randn(32, 1, generator=source)
                states.append(step.mean + step.deviation * noise)
                found.append(log_probability(states[-1], step))
        rewards = -(states[-1] - 2.0).abs().reshape(4, 8)
        means.append(float(rewards.mean()))
        advantage = advantages(rewards)
        losses = []
        for number, (time, following) in enumerate(TIMES[:-1]):
            velocity = (states[number] - point) / time
            step = sde_step(states[number], velocity, *pair(time, following, 32))
            ratios = ratio(log_probability(states[number + 1], step), found[number])
            losses.append(clipped_loss(ratios.reshape(4, 8), advantage, 0.2))
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]  # no type for it
        optimizer.step()
    assert np.mean(means[-10:]) > np.mean(means[:10]) + 1.0
    assert float(point.detach()) > 1.0
