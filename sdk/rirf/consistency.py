"""Re-degradation residual: does a diagnosis, applied to what was restored with it, give the input?

A self-check without ground truth. The restored frame is degraded again with the diagnosed fog,
shake, rain and noise (R&R, arXiv 2604.09511, Eq. 1), and compared with the frame that came in.
Knows the degradation model and a diagnosis; knows no network, and not whether the restored frame is
right: a restorer that faithfully undoes a wrong fog is consistent with it (docs/consistency.md).

Seeds of rain and noise are unknown, so what they do is known only as a mean and a variance. Both
are functions of the level a pixel has before them, which makes them tables of 256 entries: see
:class:`Model` for the tables and :func:`measure` for every formula of the numeric core.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf.degradation import noise, rain, shake
from rirf.degradation.noise import NoiseParameters
from rirf.degradation.rain import RainParameters
from rirf.diagnosis import Diagnosis, RainDiagnosis, ShakeDiagnosis
from rirf.errors import ImageError
from rirf.native import kernels
from rirf.reasoner import Reading
from rirf.restorer import full_transmission

__all__ = [
    "BLOCK",
    "DISCREPANCY_MAX",
    "Consistency",
    "Model",
    "Moments",
    "assess",
    "measure",
    "model_of",
    "psf_of",
    "streak_levels",
]

# Side in pixels of the blocks whose means are the coarse scale.
BLOCK = 8
# Above this a diagnosis is more likely wrong than right; how it was found: docs/experiments.md, 5.
DISCREPANCY_MAX = 0.03
_LEVELS = 256
_LEVEL = np.float32(1.0 / 255.0)
# A value rounded to 8 bits is off by a uniform error of one grey level.
_ROUNDING = 1.0 / (12.0 * 255.0**2)

# Sums of streaks are laid on a lattice of 1/64 that ends at 16. What covers 99.9 % of a frame adds
# up to 7 on average.
_LATTICE, _LATTICE_END, _COVERAGE_MAX = 64, 16, 0.999
# Longer and wider streaks than these are the same to a pixel and its block; shorter ones too.
_STREAK_MAX_PX = (128.0, 32.0)
_STREAK_MIN_PX = 1e-3

# Noise beyond these throws every pixel to black or white already.
_GAIN_MAX, _OFFSET_MAX = 1e3, 1e5

# A kernel is averaged over this many points a pixel and axis; narrower ones would fall between.
_SUBPIXELS = 5
_NARROWEST_VARIANCE = 0.05
_SHARP_RMS_PX = 0.25
# Tails below this share of the peak are dropped: a smaller kernel is a cheaper one.
_TAIL = 5e-3
# Kernels of more taps than this are faster by OpenCV's Fourier transforms than tap by tap.
_NATIVE_TAPS_MAX = 600


@dataclass(frozen=True)
class Consistency:
    """How far the input is from the restored frame, degraded again with the diagnosis.

    All in [0, 1] units: 0.03 is about 8 grey levels of 255.

    Attributes:
        residual: root mean square difference over pixels and channels.
        expected: what it would be if restored frame and diagnosis were right: the diagnosed noise
            and rain, whose random numbers nobody knows, and the rounding to 8 bits.
        coarse_residual, coarse_expected: the same for the means of 8 x 8 blocks, in which noise
            nearly vanishes and a wrong fog or light stays.
    """

    residual: float
    expected: float
    coarse_residual: float
    coarse_expected: float

    @property
    def unexplained(self) -> float:
        """Root mean square of what noise and rain leave over; 0 when they explain everything."""
        return math.sqrt(max(0.0, self.residual**2 - self.expected**2))

    @property
    def coarse_unexplained(self) -> float:
        """The same for the block means."""
        return math.sqrt(max(0.0, self.coarse_residual**2 - self.coarse_expected**2))

    @property
    def discrepancy(self) -> float:
        """The larger of |residual - expected| at both scales: the figure to judge by.

        Two-sided, for a diagnosis of too much noise or rain is as wrong as one of too little.
        """
        return max(
            abs(self.residual - self.expected), abs(self.coarse_residual - self.coarse_expected)
        )

    @property
    def consistent(self) -> bool:
        """Whether the discrepancy is at most ``DISCREPANCY_MAX``."""
        return self.discrepancy <= DISCREPANCY_MAX

    def to_dict(self) -> dict[str, float | bool]:
        """Every figure and the verdict, for JSON records; rounded to 1e-6."""
        figures = {
            name: round(float(getattr(self, name)), 6)
            for name in (
                "residual",
                "expected",
                "unexplained",
                "coarse_residual",
                "coarse_expected",
                "coarse_unexplained",
                "discrepancy",
            )
        }
        return {**figures, "consistent": self.consistent}

    def to_text(self) -> str:
        """A few words for a person: ``consistent to 1.2 grey levels``."""
        levels = f"{255.0 * self.discrepancy:.1f} grey levels"
        return f"consistent to {levels}" if self.consistent else f"INCONSISTENT by {levels}"


@dataclass(frozen=True, eq=False)
class Model:
    """A diagnosis as the numbers that :func:`measure` takes.

    Channels are R, G, B. Tables are indexed by the level (0 to 255) a pixel has after fog and
    shake, before rain and noise.

    Attributes:
        light: atmospheric light, each in [0, 1].
        psf: float32 (31, 31), sum 1, or None without shake.
        shift: float32 (256, 3), E[y] - x: what rain and noise add to a level x in the mean, both
            clipped at 0 and 1, in [0, 1] units.
        variance: float32 (256, 3), Var[y] of one pixel, with the rounding to 8 bits.
        block_variance: float32 (256, 3), Var[y] of the mean of a block of 8 x 8 such pixels.
    """

    light: tuple[float, float, float]
    psf: NDArray[np.float32] | None
    shift: NDArray[np.float32]
    variance: NDArray[np.float32]
    block_variance: NDArray[np.float32]


@dataclass(frozen=True)
class Moments:
    """What :func:`measure` finds, as means over pixels (or blocks) and channels.

    In squares of [0, 1] units.

    Attributes:
        square: mean squared residual of a pixel.
        variance: what the model expects of it.
        block_square: mean squared residual of the block means.
        block_variance: what the model expects of it.
    """

    square: float
    variance: float
    block_square: float
    block_variance: float


def measure(
    frame: NDArray[np.uint8],
    restored: NDArray[np.uint8],
    transmission: NDArray[np.float32],
    model: Model,
) -> Moments:
    """Degrade the restored frame again and compare it with the frame that came in.

    With y the frame and J the restored one, both over 255, t the transmission, A the light, k the
    kernel, channel by channel::

        x = k * (t (J - A) + A)         convolution; borders mirrored, edge pixel not repeated
        i = 255 x to the nearest whole  the level; which way a tie goes matters to nothing
        r = y - x - shift[i]            the residual
        b = mean of r over each 8 x 8 block; rows and columns beyond the last whole block are left
            out

        square = mean(r^2)              variance = mean(variance[i])
        block_square = mean(b^2)        block_variance = mean(block_variance[i])

    Images and tables are float32, sums float64. ``rirf_kernels.residual`` does the same in one pass
    and without pictures in between; it is used where it is installed.

    Args:
        frame: uint8 BGR (H, W, 3), what came in; H and W at least 8.
        restored: uint8 BGR (H, W, 3).
        transmission: float32 (H, W) in [0, 1].
        model: from :func:`model_of`.

    Raises:
        ImageError: sizes or types differ from these.
    """
    _check(frame, restored, transmission)
    native = kernels()
    taps = 0 if model.psf is None else np.count_nonzero(model.psf)
    if native is None or taps > _NATIVE_TAPS_MAX:
        return _measure_numpy(frame, restored, transmission, model)
    moments = native.residual(
        frame,
        restored,
        transmission,
        model.light,
        model.psf,
        model.shift,
        model.variance,
        model.block_variance,
    )
    return Moments(*map(float, moments))


def _measure_numpy(
    frame: NDArray[np.uint8],
    restored: NDArray[np.uint8],
    transmission: NDArray[np.float32],
    model: Model,
) -> Moments:
    """The twin of ``rirf_kernels.residual``; see :func:`measure`."""
    height, width = frame.shape[:2]
    rows, columns = height // BLOCK, width // BLOCK
    pixels = height * width
    totals = np.zeros(4, dtype=np.float64)
    # Plane by plane, and in the same memory: new pages cost more than the arithmetic.
    y, x = (np.empty((height, width), dtype=np.float32) for _ in range(2))
    for channel, light in enumerate(np.asarray(model.light, dtype=np.float32)):
        np.multiply(cv2.extractChannel(restored, 2 - channel), _LEVEL, out=x)
        x -= light
        x *= transmission
        x += light
        again = x if model.psf is None else shake.apply(x, model.psf)
        level = cv2.convertScaleAbs(again, alpha=255.0)
        np.multiply(cv2.extractChannel(frame, 2 - channel), _LEVEL, out=y)
        y -= again
        y -= cv2.LUT(level, np.ascontiguousarray(model.shift[:, channel]))
        inside = y[: rows * BLOCK, : columns * BLOCK]
        blocks = np.asarray(cv2.resize(inside, (columns, rows), interpolation=cv2.INTER_AREA))
        counts = cv2.calcHist([level], [0], None, [_LEVELS], [0, _LEVELS]).ravel()
        shares = np.asarray(counts, dtype=np.float64) / pixels
        totals += np.array(
            [
                cv2.norm(y, cv2.NORM_L2SQR) / pixels,
                shares @ model.variance[:, channel],
                cv2.norm(blocks, cv2.NORM_L2SQR) / blocks.size,
                shares @ model.block_variance[:, channel],
            ]
        )
    return Moments(*(float(total) / 3.0 for total in totals))


def _check(frame: object, restored: object, transmission: object) -> None:
    def told(array: object) -> str:
        if isinstance(array, np.ndarray):
            return f"{array.dtype} {array.shape}"
        return type(array).__name__

    if (
        not isinstance(frame, np.ndarray)
        or frame.dtype != np.uint8
        or frame.ndim != 3
        or frame.shape[2] != 3
        or min(frame.shape[:2]) < BLOCK
    ):
        raise ImageError(
            f"frame is {told(frame)}; expected uint8 BGR (H, W, 3), H and W >= {BLOCK}"
        )
    if (
        not isinstance(restored, np.ndarray)
        or restored.dtype != np.uint8
        or restored.shape != frame.shape
    ):
        raise ImageError(
            f"restored is {told(restored)}; expected uint8 BGR of the frame's size {frame.shape}"
        )
    if (
        not isinstance(transmission, np.ndarray)
        or transmission.dtype != np.float32
        or transmission.shape != frame.shape[:2]
    ):
        raise ImageError(
            f"transmission is {told(transmission)}; expected float32 of the frame's size "
            f"{frame.shape[:2]}: rirf.restorer.full_transmission(reading, H, W)"
        )
    low, high = float(transmission.min()), float(transmission.max())
    if not (low >= 0.0 and high <= 1.0 + 1e-5):  # also true of NaN; enlarging a map rounds
        raise ImageError(f"transmission is {low} to {high}; expected finite values in [0, 1]")


def psf_of(diagnosed: ShakeDiagnosis) -> NDArray[np.float32] | None:
    """A kernel with the diagnosed second moments, float32 (31, 31), sum 1; None without blur.

    The path itself is not part of a diagnosis, so a Gaussian stands in for it: variance
    lambda_1 = length_px^2 along the direction, lambda_2 = r_rms^2 - lambda_1 across, limited to
    [0, lambda_1], where r_rms comes from the severity, by the inverse of
    :func:`rirf.degradation.shake.severity`. Averaged over each pixel, cut off at the kernel's
    border and at 1/200 of its peak.
    """
    if not diagnosed.present:
        return None
    radius = shake.RADIUS_MAX
    rms = max(0.0, diagnosed.severity - 1.0) / 99.0 * radius
    along = min(diagnosed.length_px, radius) ** 2
    across = min(max(0.0, rms**2 - along), along)
    if along + across < _SHARP_RMS_PX**2:
        return None
    # Averaging over a pixel adds the variance of a pixel.
    along, across = (max(_NARROWEST_VARIANCE, each - 1.0 / 12.0) for each in (along, across))
    angle = math.radians(diagnosed.direction_deg)
    count = shake.KERNEL_SIZE * _SUBPIXELS
    place = (np.arange(count) + 0.5) / _SUBPIXELS - shake.KERNEL_SIZE / 2
    # Rows grow downwards, angles upwards.
    u = place[None, :] * math.cos(angle) - place[:, None] * math.sin(angle)
    v = place[None, :] * math.sin(angle) + place[:, None] * math.cos(angle)
    fine = np.exp(-0.5 * (u * u / along + v * v / across))
    size = (shake.KERNEL_SIZE, _SUBPIXELS)
    whole = fine.reshape(*size, *size).sum(axis=(1, 3))
    whole[whole < _TAIL * whole.max()] = 0.0
    psf: NDArray[np.float32] = (whole / whole.sum()).astype(np.float32)
    return psf


def streak_levels(
    diagnosed: RainDiagnosis,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """How a pixel of the streak mask M is distributed, and how its blocks are.

    Streaks fall independently, so the sum of those over a pixel is compound Poisson: its
    characteristic function is exp(d sum(exp(i w s) - 1)) over the pixels s of one stamp
    (:func:`rirf.degradation.rain.stamp`), turned back by a discrete Fourier transform on a lattice
    of 1/64. M is the sum, limited to 1. The seeds a pixel, d, follow from the diagnosed coverage,
    the share of pixels that some streak reaches with more than 0.1: d = -ln(1 - coverage) / n with
    n such pixels in a stamp. A coverage is read more surely than a density, and is the outcome of
    this very frame.

    Returns:
        ``(values, shares, ratio)``: M's possible values (65,) in [0, 1], their probabilities
        (65,), and the variance of the mean of M over an 8 x 8 block over that of one pixel.
    """
    values = np.arange(_LATTICE + 1) / _LATTICE
    shares = np.zeros(_LATTICE + 1)
    if not diagnosed.present or diagnosed.coverage <= 0.0 or diagnosed.length_px <= 0.0:
        shares[0] = 1.0
        return values, shares, 1.0
    longest, widest = _STREAK_MAX_PX
    length = min(max(diagnosed.length_px, _STREAK_MIN_PX), longest)
    width = min(diagnosed.width_px, widest)
    stamp = rain.stamp(RainParameters(0.0, diagnosed.slant_deg, length, width, 1.0)).astype(float)
    reached = int((stamp > rain.COVERAGE_THRESHOLD).sum())
    density = -math.log(1.0 - min(diagnosed.coverage, _COVERAGE_MAX)) / reached
    edge = np.pad(stamp, BLOCK)
    box = np.ones((BLOCK, BLOCK)) / BLOCK**2
    ratio = float(np.square(cv2.filter2D(edge, -1, box)).sum() / np.square(stamp).sum())
    size = _LATTICE * _LATTICE_END
    scaled = stamp[stamp > 0.0] * _LATTICE
    low = np.floor(scaled).astype(np.int64)
    # Each value is shared between its two neighbours on the lattice, which keeps the mean.
    hits = np.bincount(low, low + 1.0 - scaled, size) + np.bincount(low + 1, scaled - low, size)
    transform = np.fft.rfft(hits)
    total = np.fft.irfft(np.exp(density * (transform - transform[0].real)), size)
    total = np.maximum(total, 0.0)
    shares[:-1] = total[:_LATTICE]
    shares[-1] = total[_LATTICE:].sum()
    return values, shares / shares.sum(), ratio


def _clipped_normal(
    mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of clip(N(mean, deviation^2), 0, 1)."""
    spread = np.maximum(deviation, 1e-6)
    low, high = -mean / spread, (1.0 - mean) / spread
    root = math.sqrt(0.5)
    below, under = (
        np.array([0.5 * math.erfc(-root * value) for value in bound]) for bound in (low, high)
    )
    above = np.array([0.5 * math.erfc(root * value) for value in high])
    inside = under - below
    at_low, at_high = (
        np.exp(-0.5 * np.minimum(bound * bound, 1400.0)) / math.sqrt(2.0 * math.pi)
        for bound in (low, high)
    )
    first = mean * inside + spread * (at_low - at_high) + above
    second = (
        (mean * mean + spread * spread) * inside
        + spread * (mean * at_low - (mean + 1.0) * at_high)
        + above
    )
    return first, np.maximum(second - first * first, 0.0)


def model_of(diagnosis: Diagnosis | None) -> Model:
    """The numbers of a diagnosis; without one, of a frame that nothing happened to.

    Given a level x after fog and shake and the mask M there, rain makes it z = x + opacity M A, and
    noise and the camera make y = clip(z + n sigma(z), 0, 1): a clipped normal with mean e(z) and
    variance v(z). Over M's distribution (:func:`streak_levels`)::

        shift = E[e] - x,   variance = E[v] + Var[e] + rounding,
        block_variance = E[v] / 64 + ratio Var[e] + rounding / 64

    where rounding = (1/255)^2 / 12, and ratio says how much of the rain's variance is left in a
    block's mean. An absent effect counts as not there, whatever its parameters.
    """
    levels = np.arange(_LEVELS) / 255.0
    light = (1.0, 1.0, 1.0) if diagnosis is None else diagnosis.fog.atmospheric_light
    psf = None if diagnosis is None else psf_of(diagnosis.shake)
    # z lies in [0, 2]: a level and a streak over it.
    z = np.arange(2 * _LEVELS - 1) / 255.0
    mean, spread = np.clip(z, 0.0, 1.0), np.zeros_like(z)
    if diagnosis is not None and diagnosis.noise.present:
        offset = min(max(diagnosis.noise.offset, -_OFFSET_MAX), _OFFSET_MAX)
        grain = NoiseParameters(min(diagnosis.noise.gain, _GAIN_MAX), offset)
        deviation = noise.sigma(z.astype(np.float32), grain).astype(np.float64)
        mean, spread = _clipped_normal(z, deviation)
    first = np.empty((_LEVELS, 3))
    within, between = np.empty_like(first), np.zeros_like(first)
    ratio = 1.0
    if diagnosis is None or not diagnosis.rain.present:
        first[:], within[:] = mean[:_LEVELS, None], spread[:_LEVELS, None]
    else:
        values, shares, ratio = streak_levels(diagnosis.rain)
        for channel, colour in enumerate(light):
            wet = levels[:, None] + diagnosis.rain.opacity * colour * values
            expected = np.interp(wet, z, mean)
            first[:, channel] = expected @ shares
            within[:, channel] = np.interp(wet, z, spread) @ shares
            between[:, channel] = np.square(expected - first[:, channel, None]) @ shares
    cells = BLOCK**2
    return Model(
        light=light,
        psf=psf,
        shift=(first - levels[:, None]).astype(np.float32),
        variance=(within + between + _ROUNDING).astype(np.float32),
        block_variance=((within + _ROUNDING) / cells + ratio * between).astype(np.float32),
    )


def assess(frame: NDArray[np.uint8], restored: NDArray[np.uint8], reading: Reading) -> Consistency:
    """Check a restored frame and what it was restored with against the frame that came in.

    A frame that was left alone (``bypass``) is checked in the same way: then the residual is what
    the diagnosed effects would do to it once more. Without a diagnosis nothing is expected to
    differ, so that the residual is all that the restorer changed.

    Args:
        frame: uint8 BGR (H, W, 3), what came in.
        restored: uint8 BGR (H, W, 3).
        reading: what it was restored with; a transmission map of any resolution.

    Raises:
        ImageError: frames or map break the contract above.
    """
    coarse = reading.transmission
    if coarse is not None and (coarse.ndim != 2 or coarse.size == 0):
        raise ImageError(
            f"transmission is {coarse.dtype} {coarse.shape}; expected float32 (h, w) in [0, 1]"
        )
    height, width = np.shape(frame)[:2] if np.ndim(frame) == 3 else (BLOCK, BLOCK)
    transmission = full_transmission(reading, height, width)
    moments = measure(frame, restored, transmission, model_of(reading.diagnosis))
    return Consistency(
        residual=math.sqrt(moments.square),
        expected=math.sqrt(moments.variance),
        coarse_residual=math.sqrt(moments.block_square),
        coarse_expected=math.sqrt(moments.block_variance),
    )
