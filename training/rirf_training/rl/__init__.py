"""Reinforcement learning, phase 3: objectives that know no network, and the edge restorer's task.

A foundation restorer uses the objectives with a task of its own.
"""

from rirf_training.rl.objectives import (
    SDE_LEVEL,
    SdeStep,
    advantages,
    clipped_loss,
    gaussian_kl,
    grpo_loss,
    log_probability,
    ratio,
    sde_step,
)

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
