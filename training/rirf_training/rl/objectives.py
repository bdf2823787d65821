"""What reinforcement learning minimises, as functions of tensors alone.

Two objectives over groups of N restorations of the same input: GRPO as Algorithm 1 of R&R (arXiv
2604.09511), and Flow-GRPO (Liu et al., "Flow-GRPO: Training Flow Matching Models via Online RL",
2025). Knows no network, no reward and no image; the edge pair and the foundation pair share it.

Algorithm 1 is not a policy gradient: it differentiates the squared error of what was sampled, not
the probability of sampling it. Good samples are drawn to the clean image and bad ones pushed away
from it, each by its own path through the network. Where all samples of a group share their
parameters alike, the difference of those two pulls points away from the good samples (the error
grows with the distance), so the reward falls; hence the share of the supervised loss beside it, and
the held-out reasoner that stops it. Flow-GRPO has no such property.

Flow convention: time 1 is noise, 0 is data, x_t = (1 - t) data + t noise with unit Gaussian noise,
and a velocity is noise minus data, as in diffusers' flow-matching models.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "SDE_LEVEL",
    "SdeStep",
    "advantages",
    "clipped_loss",
    "gaussian_kl",
    "grpo_loss",
    "log_probability",
    "ratio",
    "sde_step",
]

SDE_LEVEL = 0.7
_STABLE = 1e-4  # added to the standard deviation of a group's rewards
# A group whose rewards differ by less (their standard deviation) says nothing.
_NO_SPREAD = 1e-4
_BOUND = 5.0


def advantages(rewards: Tensor) -> Tensor:
    """How much better each sample is than its group: (reward - mean) / (deviation + 1e-4).

    Args:
        rewards: (G, N), a group a row.

    Returns:
        (G, N) without gradient, bounded to [-5, 5]. Rows whose rewards do not differ are zero, and
        every loss here leaves them out. Below 27 samples no bound is reached and rows sum to zero.

    Source: R&R, Algorithm 1; the deviation is the population's.
    """
    rewards = rewards.detach().float()
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    deviation = rewards.std(dim=1, keepdim=True, correction=0)
    scaled = (centred / (deviation + _STABLE)).clamp(-_BOUND, _BOUND)
    return torch.where(deviation > _NO_SPREAD, scaled, torch.zeros_like(scaled))


def _over_groups(values: Tensor, advantage: Tensor) -> Tensor:
    """Mean of values (G, N) over the groups that have a spread; 0, with a gradient, if none has."""
    counted = advantage.ne(0).any(dim=1, keepdim=True).to(values.dtype)
    total = (values * counted).sum()
    return total / (counted.sum() * values.shape[1]).clamp(min=1.0)


def grpo_loss(errors: Tensor, advantage: Tensor, temperature: float) -> Tensor:
    """-1/N sum A_k log P_k with log P = log softmax(-E / temperature), mean over groups.

    Args:
        errors: (G, N) mean squared error of each sample to the clean image, with gradient.
        advantage: (G, N) of :func:`advantages`.
        temperature: since a group's advantages sum to zero, the softmax's normaliser cancels, the
            loss is sum A_k E_k / (N temperature), and the temperature only scales it.

    Source: R&R, Algorithm 1 (its appendix, Eq. 6, leaves the logarithm out).
    """
    log_share = F.log_softmax(-errors.float() / temperature, dim=1)
    return -_over_groups(advantage * log_share, advantage)


class SdeStep(NamedTuple):
    """The Gaussian a step is drawn from: mean (B, ...), deviation (B, 1, ..., 1)."""

    mean: Tensor
    deviation: Tensor


def sde_step(
    state: Tensor, velocity: Tensor, time: Tensor, following: Tensor, level: float = SDE_LEVEL
) -> SdeStep:
    """One Euler-Maruyama step of the SDE with the same marginals as the flow's ODE.

    With s_t = level sqrt(t / (1 - t)) and dt = following - time, below 0: mean
    x + (v + s_t^2 / (2 t) (x + (1 - t) v)) dt, deviation s_t sqrt(-dt).

    Args:
        state: (B, ...) x at ``time``.
        velocity: (B, ...) v, noise minus data.
        time: (B,) in (0, 1]. At 1, where s_t has no bound, 1 - t counts as the step's size.
        following: (B,) in [0, time).
        level: 0 makes it a step of the ODE, with deviation 0.

    Source: Liu et al., "Flow-GRPO", 2025, Eq. 9, with the treatment of t = 1 of its published
    implementation.
    """
    shape = (-1, *([1] * (state.ndim - 1)))
    time, following = time.float().reshape(shape), following.float().reshape(shape)
    size = time - following
    remaining = torch.where(time < 1.0, 1.0 - time, size)
    variance = level**2 * time / remaining
    noise = state + (1.0 - time) * velocity
    mean = state - (velocity + variance / (2.0 * time) * noise) * size
    return SdeStep(mean, (variance * size).sqrt())


def log_probability(state: Tensor, step: SdeStep) -> Tensor:
    """Log-density of what a step drew, (B,), the mean over its dimensions.

    The mean, not the sum: the ratio of two policies is then that of one dimension on average, and a
    bound on it means the same whatever the image's size. As in Flow-GRPO's implementation.

    Args:
        state: (B, ...) the state after the step; no gradient flows into it.
        step: the Gaussian, of deviation above 0.
    """
    squared = ((state.detach() - step.mean) / step.deviation) ** 2
    constant = step.deviation.log() + 0.5 * math.log(2.0 * math.pi)
    return (-0.5 * squared - constant).flatten(1).mean(dim=1)


def ratio(log_probability: Tensor, sampled: Tensor) -> Tensor:
    """Probability of the samples now over that when they were drawn, from logarithms alike."""
    return (log_probability - sampled.detach()).exp()


def clipped_loss(ratios: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """-min(ratio A, clamp(ratio, 1 - clip, 1 + clip) A), mean over groups.

    Args:
        ratios: (G, N) of :func:`ratio`, with gradient. At 1 the gradient is the policy gradient's,
            -A grad log p.
        advantage: (G, N) of :func:`advantages`.
        clip: how far a ratio may leave 1 before the sample has no more say.

    Source: Schulman et al., "Proximal Policy Optimization Algorithms", 2017, Eq. 7.
    """
    bounded = ratios.clamp(1.0 - clip, 1.0 + clip)
    return -_over_groups(torch.minimum(ratios * advantage, bounded * advantage), advantage)


def gaussian_kl(step: SdeStep, reference: Tensor) -> Tensor:
    """KL divergence (B,) to the reference policy's step, the mean over dimensions.

    Both steps have the same deviation, so it is |mean - reference|^2 / (2 deviation^2).

    Args:
        step: the policy's Gaussian, of deviation above 0.
        reference: (B, ...) the mean of the reference's.
    """
    squared = ((step.mean - reference.detach()) / step.deviation) ** 2
    return 0.5 * squared.flatten(1).mean(dim=1)
