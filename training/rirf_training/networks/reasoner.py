"""The edge reasoner: a thumbnail and native-resolution crops in, every part of a diagnosis out.

The thumbnail carries fog, light and scene; the crops, with a high-pass copy, carry noise and rain;
their second-order statistics carry blur. Crop tokens are pooled by attention together with the
thumbnail's and the statistics'. Presence probabilities are temperature-scaled and severity
intervals conformally widened by buffers fitted after training.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from rirf import scene
from rirf.diagnosis import EFFECTS
from rirf.views import CROP_SIZE, CROPS
from rirf_training.networks.blocks import ResidualBlock
from rirf_training.networks.statistics import CropStatistics

__all__ = ["OUTPUTS", "Reasoner", "ReasonerConfig"]

# Names of the graph's outputs, in order; shapes are in Reasoner.forward.
OUTPUTS = (
    "presence",
    "severity",
    "interval",
    "light",
    "transmission",
    "shake",
    "rain",
    "noise",
    "street",
    "classes",
    "colours",
    "detail",
)

_FEATURES = 256  # of the trunk, which every head reads
_MAP = 48  # channels of the transmission map's branch
_DROPOUT = 0.1
# Standardised statistics are bounded: a frame unlike any other must not drown the rest.
_OUTLIER = 8.0


class ReasonerConfig(BaseModel):
    """Size of the reasoner.

    Attributes:
        thumbnail_channels: of the stem at 64 x 64 and the stages at 32, 16 and 8.
        thumbnail_blocks: residual blocks of those stages.
        crop_channels: of the stem at 48 x 48 and the stages at 24 and 12.
        crop_blocks: residual blocks of each of those stages.
        hidden: width of the layer that reads the statistics.
        tokens: width of a token.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["reasoner"] = "reasoner"
    thumbnail_channels: tuple[int, int, int, int] = (32, 48, 96, 160)
    thumbnail_blocks: tuple[int, int, int] = (2, 3, 3)
    crop_channels: tuple[int, int, int] = (16, 32, 64)
    crop_blocks: int = 1
    hidden: int = 256
    tokens: int = 192


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, 2, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, *(ResidualBlock(outputs) for _ in range(blocks)))


class _Attention(nn.Module):
    """One pre-norm self-attention layer with an MLP over a handful of tokens."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm_in = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        batch, count, width = x.shape
        qkv = self.qkv(self.norm_in(x)).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, count, width))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


class Reasoner(nn.Module):
    """See the module's text."""

    temperature: Tensor
    quantile: Tensor
    usual: Tensor
    spread: Tensor

    def __init__(self, config: ReasonerConfig) -> None:
        super().__init__()
        self.config = config
        a, b, c, d = config.thumbnail_channels
        width = config.tokens
        # Strided convolutions: cheaper on every engine than moving pixels into channels first.
        self.thumbnail_stem = nn.Sequential(nn.Conv2d(3, a, 6, stride=4, padding=1), nn.ReLU())
        self.thumbnail_32 = _stage(a, b, config.thumbnail_blocks[0])
        self.thumbnail_16 = _stage(b, c, config.thumbnail_blocks[1])
        self.thumbnail_8 = _stage(c, d, config.thumbnail_blocks[2])
        self.lateral_32 = nn.Conv2d(b, _MAP, 1)
        self.lateral_16 = nn.Conv2d(c, _MAP, 1)
        self.lateral_8 = nn.Conv2d(d, _MAP, 1)
        self.map_context = nn.Linear(_FEATURES, _MAP)
        self.map = nn.Sequential(
            ResidualBlock(_MAP), ResidualBlock(_MAP), nn.ReLU(), nn.Conv2d(_MAP, 2, 3, padding=1)
        )
        self.grid = nn.Conv2d(d, len(scene.CLASSES) + 1 + 4, 1)
        self.thumbnail_token = nn.Linear(2 * d, width)

        e, f, g = config.crop_channels
        self.crop_stem = nn.Sequential(nn.Conv2d(6, e, 4, stride=2, padding=1), nn.ReLU())
        self.crop_24 = _stage(e, f, config.crop_blocks)
        self.crop_12 = _stage(f, g, config.crop_blocks)
        self.crop_token = nn.Linear(2 * (f + g), width)
        self.crop_place = nn.Parameter(torch.zeros(CROPS, width))
        self.statistics = CropStatistics(CROPS, CROP_SIZE)
        # Brings each statistic to mean 0 and spread 1; fitted before training.
        self.register_buffer("usual", torch.zeros(self.statistics.size))
        self.register_buffer("spread", torch.ones(self.statistics.size))
        self.statistics_token = nn.Sequential(
            nn.Linear(self.statistics.size, config.hidden),
            nn.ReLU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(config.hidden, width),
        )
        self.attend = _Attention(width)
        self.trunk = nn.Sequential(nn.Linear(3 * width, _FEATURES), nn.ReLU())
        count = len(EFFECTS)
        self.heads = nn.ModuleDict(
            {
                "presence": nn.Linear(_FEATURES, count),
                "severity": nn.Linear(_FEATURES, count),
                "log_scale": nn.Linear(_FEATURES, count),
                "light": nn.Linear(_FEATURES, 3),
                "shake": nn.Linear(_FEATURES, 4),
                "rain": nn.Linear(_FEATURES, 5),
                "noise": nn.Linear(_FEATURES, 2),
                "street": nn.Linear(_FEATURES, 1),
            }
        )
        self.register_buffer("temperature", torch.ones(count))
        # log(10): the interval that holds 90 % of a Laplace distribution, until calibrated.
        self.register_buffer("quantile", torch.full((count,), 2.302585))

    def standardise(self, found: Tensor) -> None:
        """Fit the standardisation on the statistics (B, size) of many frames."""
        self.usual.copy_(found.mean(dim=0))
        self.spread.copy_(found.std(dim=0) + 1e-4)

    def raw(
        self, thumbnail: Tensor, crops: Tensor, places: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Uncalibrated outputs for the losses.

        Args:
            thumbnail: (B, 3, 256, 256).
            crops: (B, 8, 3, 96, 96).
            places: (N,) which crops the convolutions look at; all of them when None. The
                statistics are always those of all.
        """
        t32 = self.thumbnail_32(self.thumbnail_stem(thumbnail - 0.5))
        t16 = self.thumbnail_16(t32)
        t8 = self.thumbnail_8(t16)
        grid = F.avg_pool2d(self.grid(t8), 2)
        seen = torch.cat([t8.mean(dim=(2, 3)), t8.amax(dim=(2, 3))], dim=1)
        thumbnail_token = self.thumbnail_token(seen)

        # Spectra span many orders of magnitude: single precision, whatever the rest runs in.
        with torch.autocast(crops.device.type, enabled=False):
            measured = (self.statistics(crops.float()) - self.usual) / self.spread
        statistics_token = self.statistics_token(measured.clamp(-_OUTLIER, _OUTLIER))

        chosen = crops if places is None else crops[:, places]
        batch, count = chosen.shape[:2]
        flat = chosen.flatten(0, 1)
        high = flat - F.avg_pool2d(flat, 3, stride=1, padding=1, count_include_pad=False)
        # High-pass values are an order of magnitude smaller than the image's.
        c24 = self.crop_24(self.crop_stem(torch.cat([flat - 0.5, 5.0 * high], dim=1)))
        c12 = self.crop_12(c24)
        pooled = [c24.mean(dim=(2, 3)), c12.mean(dim=(2, 3))]
        # E|x - mean| rather than a standard deviation: no square root near zero, safe in fp16.
        pooled += [
            (x - x.mean(dim=(2, 3), keepdim=True)).abs().mean(dim=(2, 3)) for x in (c24, c12)
        ]
        tokens = self.crop_token(torch.cat(pooled, dim=1)).reshape(batch, count, -1)
        place = self.crop_place if places is None else self.crop_place[places]
        globals_ = [thumbnail_token[:, None], statistics_token[:, None]]
        tokens = self.attend(torch.cat([*globals_, tokens + place], dim=1))
        # The crops' mean, so that training on some of them resembles running on all.
        joined = torch.cat([tokens[:, 0], tokens[:, 1], tokens[:, 2:].mean(dim=1)], dim=1)
        feature = self.trunk(joined)
        out = {name: head(feature) for name, head in self.heads.items()}

        fused = self.lateral_16(t16) + F.interpolate(self.lateral_8(t8), scale_factor=2.0)
        fused = self.lateral_32(t32) + F.interpolate(fused, scale_factor=2.0)
        maps = self.map(fused + self.map_context(feature)[..., None, None])
        out["map"] = maps[:, :1]
        # Where fog is thickest its light is seen: a weighted mean of the frame's own colours,
        # corrected by what the rest of the network makes of it.
        weights = torch.softmax(maps[:, 1:].flatten(2).float(), dim=2)
        colours = F.avg_pool2d(thumbnail, 8).flatten(2)
        out["light"] = out["light"] + (weights * colours).sum(dim=2)
        out["grid"] = grid
        return out

    def forward(self, thumbnail: Tensor, crops: Tensor) -> tuple[Tensor, ...]:
        """Calibrated outputs, in the order and under the names of ``OUTPUTS``.

        Args:
            thumbnail: (B, 3, 256, 256) RGB in [0, 1].
            crops: (B, 8, 3, 96, 96) RGB in [0, 1].

        Returns:
            presence (B, 4) probabilities; severity (B, 4) points 0..100 if present; interval (B, 4)
            half-widths in points; light (B, 3); transmission (B, 1, 32, 32); shake (B, 4): cos and
            sin of twice the direction, length / 15 px, energy; rain (B, 5): density / 0.01,
            slant / 30 deg, length / 60 px, width / 3 px, opacity; noise (B, 2): gain / 0.3,
            offset / 20; street (B, 1) probability that the scene is one of the known classes;
            classes (B, 11, 4, 4); colours (B, 3, 4, 4); detail (B, 1, 4, 4).
        """
        raw = self.raw(thumbnail, crops)
        known = len(scene.CLASSES)
        return (
            torch.sigmoid(raw["presence"] / self.temperature),
            100.0 * raw["severity"].clamp(0.01, 1.0),
            100.0 * self.quantile * raw["log_scale"].clamp(-7.0, 2.0).exp(),
            raw["light"].clamp(0.0, 1.0),
            torch.sigmoid(raw["map"]),
            raw["shake"],
            raw["rain"],
            raw["noise"],
            torch.sigmoid(raw["street"]),
            torch.softmax(raw["grid"][:, : known + 1], dim=1)[:, :known],
            raw["grid"][:, known + 1 : known + 4].clamp(0.0, 1.0),
            raw["grid"][:, known + 4 :].clamp(min=0.0),
        )
