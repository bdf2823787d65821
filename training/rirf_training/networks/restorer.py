"""The edge restorer: a convolutional U-Net that knows the diagnosis and the physics of the frame.

One static graph serves every number of steps. A step takes a state z at time t and gives the update
s such that z + step * s is the state at t + step. Time -1 to 0 is the coarse leap from the degraded
frame to a clean estimate; 0 to 1 is the bridge from that estimate to the clean frame, in 1, 2 or 4
steps (schedules are recorded in the bundle).

Physics enters as extra input channels, never as a replacement: the inverted fog
J = clip((y - A (1 - t)) / max(t, 0.1)), the transmission t, and the noise sigma |k y + b| / 255.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from rirf import conditioning
from rirf_training.networks.blocks import FilmBlock

__all__ = ["Restorer", "RestorerConfig"]

_TRANSMISSION_FLOOR = 0.1
_INPUTS = 13


class RestorerConfig(BaseModel):
    """Size of the restorer.

    Attributes:
        channels: channels of each level, finest (half resolution) first.
        blocks: residual blocks of each level on the way down; the deepest level's are the middle.
        decoder_blocks: residual blocks of each level but the deepest on the way up.
        condition: width of the condition embedding.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["restorer"] = "restorer"
    conditioning_version: Literal[1] = 1
    channels: tuple[int, ...] = (32, 64, 128, 160)
    blocks: tuple[int, ...] = (1, 1, 2, 3)
    decoder_blocks: tuple[int, ...] = (1, 1, 2)
    condition: int = 128


class Restorer(nn.Module):
    """See the module's text. H and W must be multiples of :attr:`multiple`."""

    def __init__(self, config: RestorerConfig) -> None:
        super().__init__()
        self.config = config
        channels, width = config.channels, config.condition
        self.embed = nn.Sequential(
            nn.Linear(conditioning.SIZE + 2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.stem = nn.Conv2d(_INPUTS * 4, channels[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.ModuleList(FilmBlock(c, width) for _ in range(n))
            for c, n in zip(channels, config.blocks, strict=True)
        )
        pairs = list(pairwise(channels))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairs)
        self.up = nn.ModuleList(
            nn.ModuleList(FilmBlock(c, width) for _ in range(n))
            for c, n in zip(channels[:-1], config.decoder_blocks, strict=True)
        )
        # Residual (3) and the weight of the inverted-fog estimate (1), at full resolution.
        self.head = nn.Conv2d(channels[0], 4 * 4, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # bias is a Parameter here

    @property
    def multiple(self) -> int:
        """H and W must be multiples of this."""
        return int(2 ** len(self.config.channels))

    def physics(
        self, degraded: Tensor, transmission: Tensor, condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Inverted fog (B, 3, H, W) and noise sigma (B, 3, H, W) as the diagnosis has them."""

        def entry(name: str) -> Tensor:
            at = conditioning.index(name)
            return condition[:, at : at + 1, None, None] * conditioning.scale(name)

        at = conditioning.index("fog.light_red")
        light = condition[:, at : at + 3, None, None]
        clear = (degraded - light * (1.0 - transmission)) / transmission.clamp(
            min=_TRANSMISSION_FLOOR
        )
        offset = entry("noise.offset") / 255.0
        sigma = (entry("noise.gain") * degraded + offset).abs()
        return clear.clamp(0.0, 1.0), sigma

    def forward(
        self,
        degraded: Tensor,
        state: Tensor,
        transmission: Tensor,
        condition: Tensor,
        time: Tensor,
        step: Tensor,
    ) -> Tensor:
        """One update.

        Args:
            degraded: (B, 3, H, W) RGB in [0, 1].
            state: (B, 3, H, W), the degraded frame itself for the coarse leap.
            transmission: (B, 1, H, W) in (0, 1], 1 where there is no fog.
            condition: (B, 40), see ``rirf.conditioning``.
            time: (B,) in [-1, 1).
            step: (B,), 1, 1/2 or 1/4.

        Returns:
            The update s (B, 3, H, W): the next state is ``state + step * s``.
        """
        clear, sigma = self.physics(degraded, transmission, condition)
        moment = torch.stack([time, torch.log2(step)], dim=1)
        embedding = self.embed(torch.cat([condition, moment], dim=1))
        x = torch.cat([degraded, clear, state, transmission, sigma], dim=1)
        x = self.stem(F.pixel_unshuffle(x, 2))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]  # a ModuleList inside a ModuleList
                x = block(x, embedding)
            if level < len(self.shrink):
                skips.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.up))):
            x = F.pixel_shuffle(self.grow[level](x), 2) + skips[level]
            for block in self.up[level]:  # type: ignore[attr-defined]  # as above
                x = block(x, embedding)
        out = F.pixel_shuffle(self.head(x), 2)
        weight = torch.sigmoid(out[:, 3:])
        return out[:, :3] + weight * (clear - state)
