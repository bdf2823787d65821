"""The chain's arithmetic on each backend: NumPy here, native CPU and CUDA in ``rirf_kernels``.

A backend turns a frame, a seed and a recipe into an :class:`Outcome`; they agree to float32
rounding (docs/degradation.md, "Backends"). Knows nothing of diagnoses.
"""

from __future__ import annotations

import functools
import logging
import operator
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from rirf.degradation import fog, noise, rain, shake
from rirf.degradation.depth import DepthPrior, geometric
from rirf.degradation.recipe import Recipe
from rirf.diagnosis import EFFECTS
from rirf.errors import ImageError, RirfError
from rirf.native import cuda_kernels, kernels, require_kernels

__all__ = ["VARIABLE", "Backend", "Outcome", "run", "select_backend"]

Backend: TypeAlias = Literal["auto", "numpy", "native", "cuda"]
Chosen: TypeAlias = Literal["numpy", "native", "cuda"]

VARIABLE = "RIRF_DEGRADATION_BACKEND"
"""Environment variable that decides for ``auto``."""

_LOG = logging.getLogger("rirf.degradation")
_SEED_MASK = 0xFFFFFFFFFFFFFFFF
_logged: set[str] = set()


@dataclass(frozen=True)
class Outcome:
    """What the arithmetic gives; see :class:`rirf.degradation.Degraded` for the arrays.

    Attributes:
        transmission_mean: 1 without fog.
        moments: of the kernel; the neutral ones without shake.
        coverage: share of pixels with M > 0.1, 0 without rain.
        variance: mean normalised noise variance, 0 without noise.
    """

    image: NDArray[np.float32]
    stages: dict[str, NDArray[np.float32]]
    transmission: NDArray[np.float32]
    psf: NDArray[np.float32] | None
    streaks: NDArray[np.float32] | None
    transmission_mean: float
    moments: shake.KernelMoments
    coverage: float
    variance: float


def select_backend(backend: Backend = "auto") -> Chosen:
    """The backend that a call with this argument runs on; what it is, is logged once.

    ``auto`` follows the environment variable RIRF_DEGRADATION_BACKEND, and without it takes
    ``native`` where ``rirf_kernels`` is installed and fits, else ``numpy``.

    Raises:
        RirfError: no such backend.
        MissingExtraError: it was asked for and is not there.
    """
    asked, where = backend, "backend"
    if backend == "auto" and os.environ.get(VARIABLE):
        asked, where = os.environ[VARIABLE], VARIABLE  # type: ignore[assignment]  # checked below
    if asked not in get_args(Backend):
        raise RirfError(f"{where} is {asked!r}; expected one of {', '.join(get_args(Backend))}")
    chosen: Chosen
    if asked == "auto":
        chosen = "numpy" if kernels() is None else "native"
    else:
        chosen = asked
        if chosen == "native":
            require_kernels("degrade with the native backend")
        elif chosen == "cuda":
            cuda_kernels("degrade with the cuda backend")
    if chosen not in _logged:
        _logged.add(chosen)
        _LOG.info("degradation runs on %s (%s=%s)", chosen, where, asked)
    return chosen


def run(
    image: NDArray[np.float32],
    seed: int,
    recipe: Recipe,
    prior: DepthPrior,
    *,
    backend: Chosen,
    keep_stages: bool,
    threads: int,
) -> Outcome:
    """Degrade a checked frame with a checked recipe.

    Raises:
        ImageError: the prior's map has another size, or values outside [0, 1].
    """
    if backend == "numpy":
        return _run_numpy(image, seed, recipe, prior, keep_stages)
    module = require_kernels(f"degrade with the {backend} backend")
    if backend == "native":
        degrade = functools.partial(module.degrade, threads=threads)
    else:
        degrade = cuda_kernels("degrade with the cuda backend").degrade_host
    return _run_kernels(module, degrade, image, seed, recipe, prior, keep_stages)


def _near(prior: DepthPrior, seed: int, height: int, width: int) -> NDArray[np.float32]:
    near = np.asarray(prior(seed, height, width), dtype=np.float32)
    if near.shape != (height, width):
        raise ImageError(
            f"expected a prior map of the frame's size ({height}, {width}), got {near.shape}"
        )
    low, high = float(near.min()), float(near.max())
    if not (low >= 0.0 and high <= 1.0):  # also true of NaN
        raise ImageError(
            f"expected a prior map with values in [0, 1], got {low} to {high}; near is 1, far is "
            "small, see rirf.degradation.prior_from_depth"
        )
    return near


def _run_numpy(
    image: NDArray[np.float32], seed: int, recipe: Recipe, prior: DepthPrior, keep_stages: bool
) -> Outcome:
    height, width = image.shape[:2]
    light = recipe.atmospheric_light
    current = image
    stages: dict[str, NDArray[np.float32]] = {}
    transmission = np.ones((height, width), dtype=np.float32)
    psf = streaks = None
    mean, moments, covered, variance = 1.0, shake.NEUTRAL, 0.0, 0.0
    if recipe.fog is not None:
        transmission = fog.transmission(_near(prior, seed, height, width), recipe.fog)
        current = stages["fog"] = fog.apply(current, transmission, light)
        # float64: summed in float32, the mean of a large frame is off in its sixth digit.
        mean = float(transmission.mean(dtype=np.float64))
    if recipe.shake is not None:
        psf = shake.kernel(seed, recipe.shake)
        current = stages["shake"] = shake.apply(current, psf)
        moments = shake.moments(psf)
    if recipe.rain is not None:
        streaks = rain.mask(seed, recipe.rain, height, width)
        current = stages["rain"] = rain.apply(current, streaks, recipe.rain, light)
        covered = rain.coverage(streaks)
    if recipe.noise is not None:
        deviation = noise.sigma(current, recipe.noise)
        current = stages["noise"] = noise.apply(current, seed, deviation)
        variance = noise.variance(deviation)
    return Outcome(
        image=np.clip(current, np.float32(0.0), np.float32(1.0)),
        stages=stages if keep_stages else {},
        transmission=transmission,
        psf=psf,
        streaks=streaks,
        transmission_mean=mean,
        moments=moments,
        coverage=covered,
        variance=variance,
    )


def _row(module: ModuleType, seed: int, recipe: Recipe) -> NDArray[Any]:
    """The recipe as the one entry of an array of the kernels' layout."""
    bits = {"fog": module.FOG, "shake": module.SHAKE, "rain": module.RAIN, "noise": module.NOISE}
    fields: dict[str, Any] = {
        "seed": operator.index(seed) & _SEED_MASK,
        "light": recipe.atmospheric_light,
        "present": sum(bits[name] for name in EFFECTS if getattr(recipe, name) is not None),
    }
    for name in EFFECTS:
        if (parameters := getattr(recipe, name)) is not None:
            fields |= asdict(parameters)
    row: NDArray[Any] = module.recipes(1, **fields)
    return row


def _run_kernels(
    module: ModuleType,
    degrade: Callable[..., tuple[NDArray[np.float32], NDArray[Any]]],
    image: NDArray[np.float32],
    seed: int,
    recipe: Recipe,
    prior: DepthPrior,
    keep_stages: bool,
) -> Outcome:
    height, width = image.shape[:2]
    present = [name for name in EFFECTS if getattr(recipe, name) is not None]
    near = None
    # The kernels sample the geometric prior themselves, without a map in between.
    if recipe.fog is not None and prior is not geometric:
        near = np.ascontiguousarray(_near(prior, seed, height, width))[None]
    wanted = present if keep_stages else []
    stages = {name: np.empty((1, *image.shape), dtype=np.float32) for name in wanted}
    transmission = np.ones((1, height, width), dtype=np.float32)
    psf = streaks = None
    if recipe.shake is not None:
        psf = np.empty((1, shake.KERNEL_SIZE, shake.KERNEL_SIZE), dtype=np.float32)
    if recipe.rain is not None:
        streaks = np.empty((1, height, width), dtype=np.float32)
    out, truths = degrade(
        image[None],
        _row(module, seed, recipe),
        prior=near,
        transmission=transmission if recipe.fog is not None else None,
        mask=streaks,
        psf=psf,
        stages=stages or None,
    )
    truth = truths[0]
    return Outcome(
        image=out[0],
        stages={name: stage[0] for name, stage in stages.items()},
        transmission=transmission[0],
        psf=None if psf is None else psf[0],
        streaks=None if streaks is None else streaks[0],
        transmission_mean=min(1.0, float(truth["transmission_mean"])),
        moments=shake.KernelMoments(
            direction_deg=float(truth["direction_deg"]),
            length_px=float(truth["blur_length_px"]),
            energy=float(truth["energy"]),
            rms_px=float(truth["rms_px"]),
        ),
        coverage=float(truth["coverage"]),
        variance=float(truth["variance"]),
    )
