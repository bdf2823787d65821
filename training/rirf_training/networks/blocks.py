"""Layers both networks share.

No normalisation: half precision has nothing to overflow in, and tiles stay equal to the whole
frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FilmBlock", "ResidualBlock", "WideBlock"]


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


class WideBlock(nn.Module):
    """A depthwise convolution with a large kernel, then a pointwise MLP, added to x.

    Source: Liu et al., "A ConvNet for the 2020s", CVPR 2022, without its normalisation; FiLM comes
    between the two. The last convolution starts at zero.
    """

    def __init__(self, channels: int, condition: int, kernel: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.first = nn.Conv2d(channels, 2 * channels, 1)
        self.second = nn.Conv2d(2 * channels, channels, 1)
        self.film = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]  # bias is a Parameter here
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """From x (B, C, H, W) and condition (B, D) to (B, C, H, W)."""
        scale, shift = torch.chunk(self.film(condition)[..., None, None], 2, dim=1)
        hidden = self.spread(x) * (1.0 + scale) + shift
        out: Tensor = x + self.second(F.relu(self.first(hidden)))
        return out
