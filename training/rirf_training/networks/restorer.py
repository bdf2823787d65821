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
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from rirf import conditioning
from rirf_training.networks.blocks import FilmBlock, WideBlock

__all__ = ["Restorer", "RestorerConfig"]

_TRANSMISSION_FLOOR = 0.1
_INPUTS = 13
_DENSE = 3  # the kernel that means dense blocks


class RestorerConfig(BaseModel):
    """Size of the restorer.

    Attributes:
        scale: the finest level works at 1/scale of the frame's resolution.
        channels: channels of each level, finest first; each level halves the resolution.
        blocks: blocks of each level on the way down; the deepest level's are the middle.
        decoder_blocks: blocks of each level but the deepest on the way up.
        kernels: of each level's blocks: 3 for dense residual blocks, a larger odd number for
            depthwise ones of that kernel.
        stem: side of the first convolution's kernel, in steps of ``scale``.
        growth: how a level doubles its resolution: ``transposed``, a 2x2 transposed convolution,
            or ``nearest``, a pointwise one whose output is repeated, which CPUs run faster.
        condition: width of the condition embedding.
        without: parts of the diagnosis that the network does not look at, for ablations; without
            ``parameters`` the transmission map is not looked at either.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["restorer"] = "restorer"
    conditioning_version: Literal[1] = 1
    scale: Literal[2, 4] = 2
    channels: tuple[int, ...] = (32, 64, 128, 160)
    blocks: tuple[int, ...] = (1, 1, 2, 3)
    decoder_blocks: tuple[int, ...] = (1, 1, 2)
    kernels: tuple[int, ...] = (3, 3, 3, 3)
    stem: Literal[2, 3] = 3
    growth: Literal["transposed", "nearest"] = "transposed"
    condition: int = 128
    without: tuple[conditioning.Part, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> RestorerConfig:
        levels = len(self.channels)
        counts = (len(self.blocks), len(self.decoder_blocks) + 1, len(self.kernels))
        if any(count != levels for count in counts):
            raise ValueError(
                f"{levels} levels of channels need as many blocks and kernels and one fewer "
                f"decoder_blocks; got {counts[0]}, {counts[2]} and {counts[1] - 1}"
            )
        if any(kernel < 3 or kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels must be odd and 3 or more, got {self.kernels}")
        return self


def _blocks(channels: int, count: int, kernel: int, condition: int) -> nn.ModuleList:
    if kernel == _DENSE:
        return nn.ModuleList(FilmBlock(channels, condition) for _ in range(count))
    return nn.ModuleList(WideBlock(channels, condition, kernel) for _ in range(count))


class _Repeat(nn.Conv2d):
    """A pointwise convolution, then every pixel of its output four times."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(super().forward(x), scale_factor=2.0, mode="nearest")


class Restorer(nn.Module):
    """See the module's text. H and W must be multiples of :attr:`multiple`."""

    kept: Tensor

    def __init__(self, config: RestorerConfig) -> None:
        super().__init__()
        self.config = config
        kept = torch.ones(conditioning.SIZE)
        for part in config.without:
            kept[list(conditioning.entries(part))] = 0.0
        self.register_buffer("kept", kept, persistent=False)
        channels, width, scale = config.channels, config.condition, config.scale
        self.embed = nn.Sequential(
            nn.Linear(conditioning.SIZE + 2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        # Strided and transposed convolutions do what moving pixels into channels and back before a
        # dense one would, in less time.
        side = config.stem * scale
        self.stem = nn.Conv2d(_INPUTS, channels[0], side, stride=scale, padding=(side - scale) // 2)
        levels = list(zip(channels, config.kernels, strict=True))
        self.down = nn.ModuleList(
            _blocks(c, count, kernel, width)
            for (c, kernel), count in zip(levels, config.blocks, strict=True)
        )
        pairs = list(pairwise(channels))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.grow = nn.ModuleList(
            _Repeat(b, a) if config.growth == "nearest" else nn.ConvTranspose2d(b, a, 2, stride=2)
            for a, b in pairs
        )
        self.up = nn.ModuleList(
            _blocks(c, count, kernel, width)
            for (c, kernel), count in zip(levels[:-1], config.decoder_blocks, strict=True)
        )
        # Residual (3) and the weight of the inverted-fog estimate (1), at full resolution.
        self.head = nn.Conv2d(channels[0], 4 * scale * scale, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # bias is a Parameter here

    @property
    def multiple(self) -> int:
        """H and W must be multiples of this."""
        return int(self.config.scale * 2 ** (len(self.config.channels) - 1))

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
        if self.config.without:
            condition = condition * self.kept
        if "parameters" in self.config.without:
            transmission = torch.ones_like(transmission)
        clear, sigma = self.physics(degraded, transmission, condition)
        moment = torch.stack([time, torch.log2(step)], dim=1)
        embedding = self.embed(torch.cat([condition, moment], dim=1))
        x = torch.cat([degraded, clear, state, transmission, sigma], dim=1)
        x = self.stem(x)
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]  # a ModuleList inside a ModuleList
                x = block(x, embedding)
            if level < len(self.shrink):
                skips.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.up))):
            x = self.grow[level](x) + skips[level]
            for block in self.up[level]:  # type: ignore[attr-defined]  # as above
                x = block(x, embedding)
        out = F.pixel_shuffle(self.head(x), self.config.scale)
        # The coarse leap goes part of the way to the inverted fog. The bridge has that behind it:
        # doing nothing is where it starts from.
        leaping = (time < 0.0).to(out.dtype)[:, None, None, None]
        weight = torch.sigmoid(out[:, 3:]) * leaping
        return out[:, :3] + weight * (clear - state)
