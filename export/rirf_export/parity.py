"""Parity of an exported graph with its torch network. Export fails below the constant."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rirf.engine import Engine
from rirf.errors import EngineError
from rirf_export.graphs import input_names, output_names
from rirf_training.networks.reasoner import Reasoner
from rirf_training.networks.restorer import Restorer

__all__ = ["PARITY_MIN_DB", "check_parity", "signal_to_error"]

# Signal over error of every output against torch in fp32, in dB: 80 dB is a relative error of 1e-4.
PARITY_MIN_DB = 80.0


def signal_to_error(reference: NDArray[np.float32], value: NDArray[np.float32]) -> float:
    """10 log10(sum reference^2 / sum (value - reference)^2); infinite when they are equal."""
    error = float(np.sum((value.astype(np.float64) - reference) ** 2))
    signal = float(np.sum(reference.astype(np.float64) ** 2))
    if not math.isfinite(error):
        return -math.inf
    if error == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / error) if signal > 0 else -math.inf


def check_parity(
    network: Reasoner | Restorer, engine: Engine, samples: Sequence[tuple[Tensor, ...]]
) -> dict[str, float]:
    """The worst signal-to-error ratio of each output over the samples, in dB.

    Raises:
        EngineError: one lies below ``PARITY_MIN_DB``.
    """
    worst: dict[str, float] = {}
    network.eval()
    for sample in samples:
        with torch.no_grad():
            reference = network(*sample)
        if isinstance(reference, Tensor):
            reference = (reference,)
        inputs = zip(input_names(network), sample, strict=True)
        got = engine.run({name: value.numpy() for name, value in inputs})
        for name, value in zip(output_names(network), reference, strict=True):
            decibels = signal_to_error(value.numpy(), got[name])
            worst[name] = min(worst.get(name, math.inf), decibels)
    low = {name: decibels for name, decibels in worst.items() if decibels < PARITY_MIN_DB}
    if low:
        figures = ", ".join(f"{name} {decibels:.1f} dB" for name, decibels in low.items())
        raise EngineError(
            f"the exported {network.config.kind} differs from torch: {figures}; expected at least "
            f"{PARITY_MIN_DB:.0f} dB; nothing was written"
        )
    return worst
