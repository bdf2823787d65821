"""The classical restoration sequence: denoise, derain, deblur, dehaze, one published method each.

The steps run in the inverse order of the degradation, which adds fog, shake, rain, noise. Denoising
and deblurring are library calls (OpenCV, scikit-image, the authors' ``bm3d``). No library here
offers the others, so they are written from their publications: the dark channel prior (He, Sun,
Tang, CVPR 2009), the guided filter that refines its transmission (He, Sun, Tang, ECCV 2010), and a
derainer that splits a frame into a base and a detail layer and takes oriented streaks out of the
detail, with a rank filter (a median where it knows nothing better) for the base.

What is known to a sequence is one of

``blind``     nothing: every step always runs, with fixed strengths and what the frame itself tells
              (noise level, slant of the rain, atmospheric light, transmission);
``told``      the true diagnosis: a step runs only where its effect is present, with the diagnosed
              noise, streaks, blur (direction, length, size), light and mean transmission;
``told-map``  the true diagnosis and the true transmission map of 32 x 32 area means, which is what
              protocol v1 hands to a pipeline under its condition ``true``.

Knows no protocol, no data set and no figure. ``bm3d`` is not among this project's dependencies: its
licence (Tampere University) allows informational, non-commercial use alone, and asks that its
authors are named with published results: Mäkinen, Azzari, Foi, IEEE TIP 29, 2020; Dabov, Foi,
Katkovnik, Egiazarian, IEEE TIP 16, 2007.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Final, Literal, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.restoration import estimate_sigma, wiener

from rirf.consistency import psf_of
from rirf.degradation import NoiseParameters, RainParameters, fog, noise, rain
from rirf.diagnosis import Diagnosis, RainDiagnosis
from rirf.images import to_float, to_uint8

__all__ = [
    "DENOISERS",
    "KNOWLEDGE",
    "Denoiser",
    "Image",
    "Knowledge",
    "Settings",
    "atmospheric_light",
    "bm3d_denoiser",
    "dark_channel",
    "deblur",
    "dehaze",
    "derain",
    "guided_filter",
    "noise_level",
    "non_local_means",
    "rain_slant",
    "restore",
    "transmission",
]

Image: TypeAlias = NDArray[np.float32]
"""float32 RGB (H, W, 3) in [0, 1]."""
Denoiser: TypeAlias = Callable[[Image, float], Image]
"""``denoiser(image, sigma)``, sigma in [0, 1] units; the result in [0, 1]."""
Knowledge: TypeAlias = Literal["blind", "told", "told-map"]

KNOWLEDGE: Final[tuple[Knowledge, ...]] = get_args(Knowledge)
DENOISERS = ("nlm", "bm3d")

_BORDER = cv2.BORDER_REFLECT_101
# Published sizes of non-local means (Buades, Coll, Morel, CVPR 2005), in pixels.
_NLM_TEMPLATE, _NLM_WINDOW = 7, 21
# Rain may lean this far in the degradation model; the blind search covers it in steps, in degrees.
_SLANTS: Final = range(-30, 31, 5)
_SEARCH_LENGTH_PX = 15.0
# Mirrored out before a Fourier transform, which takes the frame as periodic.
_PAD = 32
# Share of the pixels, those of the brightest dark channel, that the light is read off (He et al.).
_LIGHT_SHARE = 1e-3
# Below this transmission too little of the scene is left to amplify (He et al.).
_TRANSMISSION_FLOOR = 0.1


@dataclass(frozen=True)
class Settings:
    """Strengths that the publications leave open, or that are the publications'.

    Chosen by PSNR on ``--split train --limit 24`` and, step by step, on twelve training images with
    that step's effect alone; where two were equal, by time. On the protocol nothing was chosen.

    Attributes:
        nlm_strength: non-local means' filter strength h, over sigma.
        bm3d_strength: the sigma BM3D is given, over sigma.
        told_reach: half the length of the rank filter across the streaks, in streak widths ...
        told_reach_px: ... plus this many pixels.
        told_run: length of the mean along the streaks, in streak lengths.
        blind_reach_px, blind_run_px, blind_rank: the same where nothing is known of the streaks,
            and the rank that is taken for the base, as a share: 0.5 is the median.
        told_balance, blind_balance: regularisation of the Wiener filter.
        blind_blur_px: standard deviation of the Gaussian that stands in for an unknown blur.
        patch_px: radius of the dark channel's patch.
        guide_px, guide_epsilon: radius and regularisation of the guided filter.
        told_omega, blind_omega: share of the haze that is taken away (He et al. use 0.95).
    """

    nlm_strength: float = 0.5
    bm3d_strength: float = 1.0
    told_reach: float = 5.0
    told_reach_px: float = 2.0
    told_run: float = 0.25
    blind_reach_px: float = 6.0
    blind_run_px: float = 8.0
    blind_rank: float = 0.38
    told_balance: float = 1.5
    blind_balance: float = 0.05
    blind_blur_px: float = 0.5
    patch_px: int = 7
    guide_px: int = 20
    guide_epsilon: float = 1e-3
    told_omega: float = 0.95
    blind_omega: float = 0.4


def non_local_means(strength: float) -> Denoiser:
    """OpenCV's colour non-local means, h = ``strength`` times sigma; works on 8 bits."""

    def denoise(image: Image, sigma: float) -> Image:
        h = 255.0 * strength * sigma
        frame = cv2.fastNlMeansDenoisingColored(
            to_uint8(image), None, h, h, _NLM_TEMPLATE, _NLM_WINDOW
        )
        return to_float(np.asarray(frame, dtype=np.uint8))

    return denoise


def bm3d_denoiser(bm3d: ModuleType, strength: float, threads: int) -> Denoiser:
    """Colour BM3D of the imported package, given ``strength`` times sigma.

    In its low-complexity profile: the normal one gains 0.2 dB on noise alone and takes three times
    as long. With more than one thread the package may give slightly different values each time.
    """
    profile = bm3d.BM3DProfileLC()
    profile.num_threads = threads

    def denoise(image: Image, sigma: float) -> Image:
        # A sigma of zero divides by it.
        given = max(strength * sigma, 1e-4)
        clean = bm3d.bm3d_rgb(image.astype(np.float64), given, profile)
        return np.asarray(np.clip(clean, 0.0, 1.0), dtype=np.float32)

    return denoise


def noise_level(image: Image) -> float:
    """Sigma of the frame alone, mean over channels: the median of its finest wavelet details.

    scikit-image's estimate (Donoho, Johnstone, Biometrika 1994); needs PyWavelets. A channel
    without any detail has no noise.
    """
    with warnings.catch_warnings():
        # Details that are zero are left out of the median; where all are, that is one of nothing.
        warnings.simplefilter("ignore", RuntimeWarning)
        sigmas = estimate_sigma(image, channel_axis=2)
    return float(np.mean(np.nan_to_num(sigmas)))


def _told_sigma(image: Image, diagnosis: Diagnosis) -> float:
    """The root mean square of the diagnosed noise, whose sigma depends on the level."""
    grain = NoiseParameters(diagnosis.noise.gain, diagnosis.noise.offset)
    level = np.asarray(cv2.GaussianBlur(image, (0, 0), 3.0), dtype=np.float32)
    return math.sqrt(noise.variance(noise.sigma(level, grain)))


def _box(plane: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    side = 2 * radius + 1
    return np.asarray(cv2.blur(plane, (side, side), borderType=_BORDER), dtype=np.float32)


def guided_filter(
    guide: NDArray[np.float32], source: NDArray[np.float32], radius: int, epsilon: float
) -> NDArray[np.float32]:
    """Edge-preserving smoothing: in every window the result is a linear function of the guide.

    He, Sun, Tang, "Guided Image Filtering", ECCV 2010, with box means. Guide and source are float32
    (H, W); the radius is in pixels, epsilon in squares of the guide's unit.
    """
    mean_guide, mean_source = _box(guide, radius), _box(source, radius)
    covariance = _box(guide * source, radius) - mean_guide * mean_source
    variance = _box(guide * guide, radius) - mean_guide * mean_guide + np.float32(epsilon)
    slope = np.asarray(covariance / variance, dtype=np.float32)
    offset = mean_source - slope * mean_guide
    return _box(slope, radius) * guide + _box(offset, radius)


def _along(slant_deg: float, length_px: float) -> NDArray[np.float32]:
    """A mean along streaks of this slant: one thin streak of the degradation model, sum 1."""
    line = rain.stamp(RainParameters(0.0, slant_deg, max(1.0, length_px), 1.0, 1.0))
    return np.asarray(line / line.sum(), dtype=np.float32)


def rain_slant(image: Image) -> float:
    """Slant in degrees from the vertical along which the fine detail keeps most energy."""
    grey = np.asarray(image.mean(axis=2), dtype=np.float32)
    detail = grey - cv2.GaussianBlur(grey, (0, 0), 4.0)

    def energy(slant: int) -> float:
        kernel = _along(slant, _SEARCH_LENGTH_PX)
        return float(np.var(cv2.filter2D(detail, -1, kernel, borderType=_BORDER)))

    return float(max(_SLANTS, key=energy))


def _ranked(image: Image, slant_deg: float, reach: int, rank: float) -> Image:
    """Rank filter over the ``2 reach + 1`` pixels of a line across the streaks."""
    angle = math.radians(slant_deg)
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, reach, reach, reach, reach, _BORDER)
    views = []
    for place in range(-reach, reach + 1):
        left = reach + round(place * math.cos(angle))
        top = reach - round(place * math.sin(angle))
        views.append(padded[top : top + height, left : left + width])
    ordered = np.sort(np.stack(views), axis=0)
    return np.asarray(ordered[round(rank * 2 * reach)], dtype=np.float32)


def derain(
    image: Image,
    *,
    slant_deg: float,
    reach_px: int,
    run_px: float,
    rank: float,
    ceiling: NDArray[np.float32] | None = None,
) -> Image:
    """Take bright streaks out of the detail layer.

    The base is a rank filter across the streaks, narrow structures being detail. What of the detail
    stays bright in a mean along the streaks is rain, and is subtracted; other detail stays.

    Args:
        image: the frame.
        slant_deg: slant of the streaks from the vertical, positive leaning right going down.
        reach_px: half the length of the rank filter, at least 1; several streak widths.
        run_px: length of the mean along the streaks.
        rank: which of the sorted values is the base, from 0 (darkest) to 1; 0.5 is the median.
        ceiling: most that rain can add, (3,); None for no limit.
    """
    detail = image - _ranked(image, slant_deg, reach_px, rank)
    streaks = cv2.filter2D(detail, -1, _along(slant_deg, run_px), borderType=_BORDER)
    streaks = np.maximum(streaks, np.float32(0.0))
    if ceiling is not None:
        streaks = np.minimum(streaks, ceiling)
    return np.asarray(np.clip(image - streaks, 0.0, 1.0), dtype=np.float32)


def _told_derain(image: Image, diagnosis: Diagnosis, settings: Settings) -> Image:
    told: RainDiagnosis = diagnosis.rain
    light = np.asarray(diagnosis.fog.atmospheric_light, dtype=np.float32)
    reach = settings.told_reach * told.width_px + settings.told_reach_px
    return derain(
        image,
        slant_deg=told.slant_deg,
        reach_px=max(1, round(reach)),
        run_px=settings.told_run * told.length_px,
        # The median of those pixels that no streak covers: streaks only brighten.
        rank=(1.0 - told.coverage) / 2.0,
        ceiling=np.float32(told.opacity) * light,
    )


def deblur(image: Image, psf: NDArray[np.float32], balance: float) -> Image:
    """scikit-image's Wiener filter (regularised by a Laplacian), channel by channel.

    Args:
        image: the frame, mirrored out for it.
        psf: the kernel (h, w), odd sides, sum 1.
        balance: weight of the regularisation.
    """
    padded = cv2.copyMakeBorder(image, _PAD, _PAD, _PAD, _PAD, _BORDER)
    kernel = psf.astype(np.float64)
    planes = [
        wiener(np.ascontiguousarray(padded[..., channel], np.float64), kernel, balance, clip=False)
        for channel in range(3)
    ]
    whole = np.stack(planes, axis=2)[_PAD:-_PAD, _PAD:-_PAD]
    return np.asarray(np.clip(whole, 0.0, 1.0), dtype=np.float32)


def _gaussian(sigma: float) -> NDArray[np.float32]:
    side = 2 * math.ceil(4.0 * sigma) + 1
    row = np.asarray(cv2.getGaussianKernel(side, sigma, cv2.CV_32F), dtype=np.float32)
    return np.asarray(row @ row.T, dtype=np.float32)


def dark_channel(image: Image, radius: int) -> NDArray[np.float32]:
    """Least value of any channel within a square patch of that radius, (H, W)."""
    side = 2 * radius + 1
    window = np.ones((side, side), dtype=np.uint8)
    return np.asarray(cv2.erode(image.min(axis=2), window), dtype=np.float32)


def atmospheric_light(image: Image, radius: int) -> NDArray[np.float32]:
    """Mean colour (3,) of the pixels with the brightest dark channel, one in a thousand."""
    dark = dark_channel(image, radius).ravel()
    count = max(1, round(_LIGHT_SHARE * dark.size))
    brightest = np.argpartition(dark, -count)[-count:]
    light = image.reshape(-1, 3)[brightest].mean(axis=0)
    # A black frame has no haze to read a light off; what is divided by must not be zero.
    return np.asarray(np.maximum(light, 1.0 / 255.0), dtype=np.float32)


def transmission(
    image: Image, light: NDArray[np.float32], omega: float, settings: Settings
) -> NDArray[np.float32]:
    """The prior's t = 1 - omega dark(I / A), refined with the frame's grey as the guide, (H, W)."""
    coarse = np.float32(1.0) - np.float32(omega) * dark_channel(image / light, settings.patch_px)
    refined = guided_filter(image.mean(axis=2), coarse, settings.guide_px, settings.guide_epsilon)
    return np.clip(refined, np.float32(fog.TRANSMISSION_FLOOR), np.float32(1.0))


def _with_mean(t: NDArray[np.float32], mean: float) -> NDArray[np.float32]:
    """The power t ** gamma, not below the model's floor, whose mean is ``mean``.

    A thicker or thinner fog of the same depths is a power of the transmission.
    """

    def powered(gamma: float) -> NDArray[np.float32]:
        power = np.maximum(t ** np.float32(gamma), np.float32(fog.TRANSMISSION_FLOOR))
        return np.asarray(power, dtype=np.float32)

    low, high = 0.05, 20.0
    for _ in range(30):
        gamma = math.sqrt(low * high)
        if float(powered(gamma).mean()) > mean:
            low = gamma
        else:
            high = gamma
    return powered(math.sqrt(low * high))


def dehaze(
    image: Image,
    light: NDArray[np.float32],
    t: NDArray[np.float32],
) -> Image:
    """J = (I - A (1 - t)) / max(t, 0.1), clipped; light (3,), transmission (H, W)."""
    red, green, blue = map(float, light)
    return fog.invert(image, t, (red, green, blue), _TRANSMISSION_FLOOR)


def _blind(image: Image, denoiser: Denoiser, settings: Settings) -> Image:
    image = denoiser(image, noise_level(image))
    image = derain(
        image,
        slant_deg=rain_slant(image),
        reach_px=max(1, round(settings.blind_reach_px)),
        run_px=settings.blind_run_px,
        rank=settings.blind_rank,
    )
    image = deblur(image, _gaussian(settings.blind_blur_px), settings.blind_balance)
    light = atmospheric_light(image, settings.patch_px)
    return dehaze(image, light, transmission(image, light, settings.blind_omega, settings))


def _told(
    image: Image,
    denoiser: Denoiser,
    settings: Settings,
    diagnosis: Diagnosis,
    coarse: NDArray[np.float32] | None,
) -> Image:
    if diagnosis.noise.present:
        image = denoiser(image, _told_sigma(image, diagnosis))
    if diagnosis.rain.present:
        image = _told_derain(image, diagnosis, settings)
    psf = psf_of(diagnosis.shake)
    if psf is not None:
        image = deblur(image, psf, settings.told_balance)
    if diagnosis.fog.present:
        light = np.asarray(diagnosis.fog.atmospheric_light, dtype=np.float32)
        if coarse is None:
            t = transmission(image, light, settings.told_omega, settings)
            t = _with_mean(t, diagnosis.fog.transmission_mean)
        else:
            size = (image.shape[1], image.shape[0])
            t = np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR), np.float32)
        image = dehaze(image, light, t)
    return image


def restore(
    frame: NDArray[np.uint8],
    knowledge: Knowledge,
    denoiser: Denoiser,
    diagnosis: Diagnosis,
    coarse: NDArray[np.float32],
    settings: Settings,
) -> NDArray[np.uint8]:
    """Run the sequence on a frame.

    Args:
        frame: uint8 BGR (H, W, 3), H and W at least 16.
        knowledge: ``blind`` looks at neither diagnosis nor map, ``told`` not at the map.
        denoiser: of :func:`non_local_means` or :func:`bm3d_denoiser`.
        diagnosis: the true one.
        coarse: the true transmission as float32 area means, of any resolution.
        settings: strengths.

    Returns:
        uint8 BGR (H, W, 3).
    """
    image = to_float(frame)
    if knowledge == "blind":
        return to_uint8(_blind(image, denoiser, settings))
    told = coarse if knowledge == "told-map" else None
    return to_uint8(_told(image, denoiser, settings, diagnosis, told))
