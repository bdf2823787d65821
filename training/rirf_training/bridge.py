"""The coarse leap and the bridge of the edge restorer: how its steps are taken and trained.

Time -1 to 0 leads from the degraded frame to a coarse estimate; 0 to 1 from that estimate, with a
little noise, along a straight line to the clean frame. One network serves all step sizes: it is
told the step it is about to take.

Source of the training of large steps: Frans et al., "One Step Diffusion via Shortcut Models", 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rirf_training.loop import Batch
from rirf_training.networks.restorer import Restorer

__all__ = ["SHORTEST", "STEPS", "bridge_loss", "coarse", "leap", "update"]

SHORTEST = 0.25
# What a sample of a batch can train: three in four a shortest step, at one of four times; the
# others a step of 1/2, at one of two times, or the whole step. With as many long steps as short
# ones the targets that the network makes itself outweigh the true ones and grow without bound.
_MOMENTS = (
    *(3 * ((0.0, 0.25), (0.25, 0.25), (0.5, 0.25), (0.75, 0.25))),
    *((0.0, 0.5), (0.5, 0.5)),
    *((0.0, 1.0), (0.0, 1.0)),
)
STEPS = len(_MOMENTS)


def _rows(batch: Batch, rows: Tensor | slice) -> Batch:
    names = ("degraded", "transmission", "condition")
    return {name: batch[name][rows] for name in names}


def update(network: Restorer, batch: Batch, state: Tensor, time: Tensor, step: Tensor) -> Tensor:
    """What the network would change, float32 (B, 3, H, W), at times and steps (B,)."""
    degraded = batch["degraded"].contiguous(memory_format=torch.channels_last)
    found: Tensor = network(
        degraded, state, batch["transmission"], batch["condition"], time, step
    ).float()
    return found


def coarse(network: Restorer, batch: Batch) -> Tensor:
    """The coarse estimate (B, 3, H, W) of a batch."""
    degraded = batch["degraded"].contiguous(memory_format=torch.channels_last)
    one = torch.ones(degraded.shape[0], device=degraded.device)
    return degraded + update(network, batch, degraded, -one, one)


def leap(network: Restorer, batch: Batch, estimate: Tensor, steps: int) -> Tensor:
    """From a coarse estimate over the bridge, in so many equal steps."""
    state = estimate
    one = torch.ones(estimate.shape[0], device=estimate.device)
    for number in range(steps):
        found = update(network, batch, state, one * (number / steps), one / steps)
        state = state + found / steps
    return state


def bridge_loss(network: Restorer, batch: Batch, estimate: Tensor) -> Tensor:
    """Mean absolute error of the updates that the first samples of a batch train.

    Args:
        network: the restorer.
        batch: ``noise`` (K, 3, H, W) and ``moment`` (K,), numbers below ``STEPS``, for its first K
            samples, beside what every batch holds.
        estimate: the coarse estimates (B, 3, H, W), without gradient.

    The shortest steps are trained by flow matching, towards clean minus start. A longer step is
    trained to be the mean of the two of half its size that the network itself would take.
    """
    device = estimate.device
    moments = torch.tensor(_MOMENTS, device=device)[batch["moment"]]
    time, step = moments[:, 0], moments[:, 1]
    count = len(time)
    given = _rows(batch, slice(count))
    start, clean = estimate[:count] + batch["noise"], batch["clean"][:count]
    along = time[:, None, None, None]
    state = (1.0 - along) * start + along * clean
    target = clean - start
    (long,) = torch.nonzero(step > SHORTEST, as_tuple=True)
    if len(long):
        with torch.no_grad():
            some, half = _rows(given, long), step[long] / 2.0
            first = update(network, some, state[long], time[long], half)
            middle = state[long] + half[:, None, None, None] * first
            second = update(network, some, middle, time[long] + half, half)
            target = target.index_copy(0, long, 0.5 * (first + second))
    return F.l1_loss(update(network, given, state, time, step), target)
