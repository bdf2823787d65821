"""The smallest real task for the training loop: fit a line. ``python -m tests.training.line OUT``.

As a program it trains slowly, so that somebody can kill it, and continues a run that is there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rirf.files import write_atomic
from rirf_training.config import LoopConfig
from rirf_training.loop import Batch, generator, train

PROVENANCE = {"task": "line"}


def config(**changes: Any) -> LoopConfig:
    """Forty steps with a checkpoint every five."""
    settings: dict[str, Any] = {
        "steps": 40,
        "batch": 8,
        "learning_rate": 2e-2,
        "warmup": 5,
        "precision": "fp32",
        "validate_every": 20,
        "checkpoint_every": 5,
        "ema": 0.9,
        "device": "cpu",
    }
    return LoopConfig(**{**settings, **changes})


class Line:
    """y = 3 x - 1 by a small network."""

    def __init__(self, seed: int = 0, pause: float = 0.0) -> None:
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.pause = pause
        self.batches: list[int] = []

    def batch(self, step: int) -> Batch:
        time.sleep(self.pause)
        self.batches.append(step)
        x = torch.from_numpy(generator(0, step).uniform(-1, 1, (8, 1))).float()
        return {"x": x, "y": 3 * x - 1}

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        error = network(batch["x"]) - batch["y"]
        return (error**2).mean(), {"error": float(error.detach().abs().mean())}

    def validate(self, network: nn.Module) -> dict[str, float]:
        x = torch.linspace(-1, 1, 21)[:, None]
        return {"mae": float((network(x) - (3 * x - 1)).abs().mean())}

    def describe(self, step: int) -> dict[str, Any]:
        x = generator(0, step).uniform(-1, 1, (8, 1))
        return {"draws": [{"x": float(value)} for value in x[:, 0]]}

    def save(self, folder: Path, network: nn.Module, provenance: dict[str, Any]) -> None:
        weights = torch.cat([parameter.flatten() for parameter in network.parameters()])
        write_atomic(folder / "weights.bin", weights.detach().numpy().tobytes())


def main() -> None:
    """Train at 50 ms a step."""
    torch.set_num_threads(1)
    task = Line(pause=0.05)
    train(task, config(), Path(sys.argv[1]), provenance=PROVENANCE, resume=True, progress=False)


if __name__ == "__main__":
    main()
