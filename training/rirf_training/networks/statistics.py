"""Second-order statistics of crops: how strong image gradients are, how they repeat themselves.

A blur kernel leaves its own autocorrelation in that of the gradients; noise adds to lags 0 and 1
alone. Convolutions hardly found this by themselves (docs/experiments.md, 6), so
the reasoner is given it. Everything is matrix products and sums, so it exports as such and runs on
every engine; no transform is needed at run time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["REACH", "CropStatistics"]

# Longest lag in pixels, the radius of the largest blur kernel.
REACH = 16
# (down, right) in pixels: both axes and both diagonals. All lags in reach tell no more, and a
# network that has them learns their noise first.
_LAGS = (
    *((0, lag) for lag in range(1, REACH + 1)),
    *((lag, 0) for lag in range(1, REACH + 1)),
    *((lag, lag) for lag in range(1, 12)),
    *((lag, -lag) for lag in range(1, 12)),
)
_STEPS = (2, 4, 8, 16)  # of the absolute differences, in pixels


class CropStatistics(nn.Module):
    """Statistics of square crops; see the module's text.

    Args:
        crops: crops a frame.
        size: side of a crop in pixels.

    Autocorrelations come from power spectra (Wiener-Khinchin), padded so that no lag wraps round;
    the discrete Fourier transform is a product with constant matrices.
    """

    rows: Tensor
    columns: Tensor
    back_rows: Tensor
    back_columns: Tensor
    lags: Tensor

    def __init__(self, crops: int, size: int) -> None:
        super().__init__()
        self.crops = crops
        inner = size - 1
        self._area = inner * inner
        padded = inner + REACH + 1
        half = padded // 2 + 1
        place = torch.arange(inner, dtype=torch.float64)
        turn = 2.0 * math.pi / padded

        def waves(frequencies: int, at: Tensor) -> Tensor:
            angle = turn * torch.outer(torch.arange(frequencies, dtype=torch.float64), at)
            return torch.stack([angle.cos(), -angle.sin()])

        self._buffer("rows", waves(padded, place))  # (2, padded, inner)
        self._buffer("columns", waves(half, place).transpose(1, 2))  # (2, inner, half)
        reach = torch.arange(REACH + 1, dtype=torch.float64)
        # A real signal's spectrum is symmetric: every inner column frequency counts twice.
        twice = torch.full((half, 1), 2.0, dtype=torch.float64)
        twice[0] = 1.0
        if padded % 2 == 0:
            twice[-1] = 1.0
        self._buffer("back_rows", waves(padded, reach).transpose(1, 2) / padded)
        self._buffer("back_columns", waves(half, reach) * twice / (padded * self._area))
        flat = [down * (2 * REACH + 1) + REACH + right for down, right in _LAGS]
        self.register_buffer("lags", torch.tensor(flat), persistent=False)

    def _buffer(self, name: str, values: Tensor) -> None:
        # Constants: made anew, never stored.
        self.register_buffer(name, values.float(), persistent=False)

    @property
    def size(self) -> int:
        """Statistics a frame."""
        return 2 * (self.crops + 2 * len(_LAGS)) + 2 * len(_STEPS) * self.crops

    def correlate(self, images: Tensor) -> Tensor:
        """Autocorrelation (N, 17, 33) of images (N, S, S), their means removed.

        Lags go 0 to 16 pixels down and -16 to 16 right; sums over the overlap over the image area.
        """
        centred = images - images.mean(dim=(1, 2), keepdim=True)
        real, imaginary = centred @ self.columns[0], centred @ self.columns[1]
        rows_re, rows_im = self.rows[0], self.rows[1]
        power = (rows_re @ real - rows_im @ imaginary) ** 2
        power = power + (rows_re @ imaginary + rows_im @ real) ** 2
        cosines = self.back_rows[0] @ power @ self.back_columns[0]
        sines = self.back_rows[1] @ power @ self.back_columns[1]
        # cos(a + b) and cos(a - b): lags to the right and to the left.
        right, left = cosines - sines, cosines + sines
        return torch.cat([left[:, :, 1:].flip(2), right], dim=2)

    def forward(self, crops: Tensor) -> Tensor:
        """(B, N, 3, S, S) RGB in [0, 1] to (B, size).

        For the horizontal and then the vertical gradient: log mean square of each crop (N),
        autocorrelation over mean square averaged over the crops (54), and the same of the sums over
        the crops (54), in which the textured ones weigh most. Then log mean absolute differences at
        2, 4, 8 and 16 pixels, horizontal and vertical, of each crop.
        """
        batch, count = crops.shape[:2]
        grey = crops.mean(dim=2)
        found = []
        for gradient in (
            grey[:, :, 1:, 1:] - grey[:, :, 1:, :-1],
            grey[:, :, 1:, 1:] - grey[:, :, :-1, 1:],
        ):
            products = self.correlate(gradient.flatten(0, 1))
            energy = products[:, 0, REACH].reshape(batch, count, 1)
            lagged = products.flatten(1)[:, self.lags].reshape(batch, count, -1)
            found += [
                torch.log(energy[..., 0] + 1e-6),
                (lagged / (energy + 1e-6)).mean(dim=1),
                lagged.sum(dim=1) / (energy.sum(dim=1) + 1e-6),
            ]
        for step in _STEPS:
            for difference in (
                grey[..., step:] - grey[..., :-step],
                grey[..., step:, :] - grey[..., :-step, :],
            ):
                found.append(torch.log(difference.abs().mean(dim=(2, 3)) + 1e-3))
        return torch.cat(found, dim=1)
