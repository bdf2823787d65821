"""Layers both networks share.

No normalisation: dense 3x3 convolutions with ReLU are what CPUs and TensorRT run fastest, and half
precision has nothing to overflow in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FilmBlock", "ResidualBlock"]


class ResidualBlock(nn.Module):
    """Adds conv(relu(conv(x))) to x, both 3x3; the second convolution starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]  # bias is a Parameter here

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        out: Tensor = x + self.second(F.relu(self.first(x)))
        return out


class FilmBlock(ResidualBlock):
    """A residual block whose hidden layer is scaled and shifted by a condition (FiLM).

    Source: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018.
    Scale and shift start at zero, so the block starts unconditioned.
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__(channels)
        self.film = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """From x (B, C, H, W) and condition (B, D) to (B, C, H, W)."""
        if condition is None:
            return super().forward(x)
        scale, shift = torch.chunk(self.film(condition)[..., None, None], 2, dim=1)
        out: Tensor = x + self.second(F.relu(self.first(x) * (1.0 + scale) + shift))
        return out
