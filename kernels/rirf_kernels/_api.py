"""The public functions: shapes and outputs are settled here, the work is done in ``_cpu``."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

import rirf_kernels._cpu as _cpu

FOG, SHAKE, RAIN, NOISE = 1, 2, 4, 8
"""Bits of a recipe's ``present``."""

PSF_SIZE = 31

RECIPE = np.dtype(
    [
        ("seed", "<u8"),
        ("present", "<u4"),
        ("steps", "<i4"),
        ("light", "<f8", (3,)),
        ("beta", "<f8"),
        ("step_px", "<f8"),
        ("density", "<f8"),
        ("slant_deg", "<f8"),
        ("length_px", "<f8"),
        ("width_px", "<f8"),
        ("opacity", "<f8"),
        ("gain", "<f8"),
        ("offset", "<f8"),
    ]
)
"""What is done to one image: ``rirf_recipe`` of rirf_kernels.h, 112 bytes."""

TRUTH = np.dtype(
    [
        ("transmission_mean", "<f8"),
        ("direction_deg", "<f8"),
        ("blur_length_px", "<f8"),
        ("energy", "<f8"),
        ("rms_px", "<f8"),
        ("coverage", "<f8"),
        ("variance", "<f8"),
        ("severity", "<f8", (4,)),
    ]
)
"""What came of it: ``rirf_truth`` of rirf_kernels.h, 88 bytes."""


class BuildInfo(TypedDict):
    """What :func:`build_info` tells."""

    abi: int
    isa: str
    cuda: bool
    cuda_architectures: str


def build_info() -> BuildInfo:
    """ABI number, instruction set in use, and whether (and for what) the CUDA half was built."""
    try:
        import rirf_kernels._cuda as _cuda
    except ImportError:
        architectures = ""
    else:
        architectures = str(_cuda.architectures())
    return {
        "abi": _cpu.abi(),
        "isa": _cpu.isa(),
        "cuda": bool(architectures),
        "cuda_architectures": architectures,
    }


def release_scratch() -> None:
    """Free the scratch memory that the calling thread keeps between calls."""
    _cpu.release_scratch()


def recipes(count: int, **fields: Any) -> NDArray[np.void]:
    """``count`` recipes with nothing present and neutral parameters, fields set by name.

    ``recipes(2, seed=[1, 2], present=FOG, beta=1.5)``: each value is one for all or one an image.

    Raises:
        ValueError: an unknown field, or a value that does not fit.
    """
    made = np.zeros(_size("count", count), dtype=RECIPE)
    made["light"] = 1.0
    made["beta"] = 1.0
    made["steps"] = 8
    made["length_px"] = made["width_px"] = 1.0
    for name, value in fields.items():
        if name not in (RECIPE.names or ()):
            raise ValueError(
                f"{name}: no such field; expected one of {', '.join(RECIPE.names or ())}"
            )
        made[name] = value
    return made


def sample(seeds: int | Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.void]:
    """Draw presence (each effect with probability 0.5) and every parameter from 64-bit seeds."""
    one = isinstance(seeds, int | np.integer) or not hasattr(seeds, "__iter__")
    flat: Any = [seeds] if one else seeds
    keys = np.array([_key("seeds", seed) for seed in flat], dtype=np.uint64)
    made = np.empty(keys.size, dtype=RECIPE)
    _cpu.sample(keys, made.view(np.uint8))
    return made


def words(seed: int, stage: int, stream: int, count: int, first: int = 0) -> NDArray[np.uint32]:
    """Philox 4x32-10 words ``first .. first + count - 1`` of a stage and stream, uint32."""
    out = np.empty(_size("count", count), dtype=np.uint32)
    _cpu.words(_key("seed", seed), stage, stream, first, out)
    return out


def uniforms(seed: int, stage: int, stream: int, count: int, first: int = 0) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1), float32 (count,); equal to the bit on every machine."""
    out = np.empty(_size("count", count), dtype=np.float32)
    _cpu.uniforms(_key("seed", seed), stage, stream, first, out)
    return out


def normals(seed: int, stage: int, stream: int, count: int, first: int = 0) -> NDArray[np.float32]:
    """Standard normal numbers by Box-Muller, float32 (count,)."""
    out = np.empty(_size("count", count), dtype=np.float32)
    _cpu.normals(_key("seed", seed), stage, stream, first, out)
    return out


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        got = type(value).__name__
        raise TypeError(f"{name}: got {got}, expected a whole number") from None


def _key(name: str, seed: Any) -> int:
    """A seed modulo 2^64."""
    return _whole(name, seed) & 0xFFFFFFFFFFFFFFFF


def _size(name: str, value: Any) -> int:
    size = _whole(name, value)
    if size < 0:
        raise ValueError(f"{name}: got {size}, expected 0 or more")
    return size


def _shape(name: str, array: Any) -> tuple[int, ...]:
    try:
        return tuple(array.shape)
    except (AttributeError, TypeError):
        got = type(array).__name__
        raise TypeError(f"{name}: got {got}, expected an array") from None


def _colour(light: Any) -> NDArray[np.float64]:
    try:
        return np.ascontiguousarray(light, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"light: expected three numbers (R, G, B) an image, but {error}") from None


def _batch(image: Any) -> int:
    """How many images an argument holds; anything odd is left to the compiled part's checks."""
    shape = tuple(getattr(image, "shape", ()))
    return int(shape[0]) if len(shape) == 4 else 1


def _bytes(structures: NDArray[np.void], dtype: np.dtype[np.void], name: str) -> NDArray[np.uint8]:
    """Structures as the bytes that the compiled part takes."""
    if not isinstance(structures, np.ndarray) or structures.dtype != dtype:
        got = getattr(structures, "dtype", type(structures).__name__)
        raise TypeError(f"{name}: got {got}, expected an array of rirf_kernels.{dtype_name(dtype)}")
    if not structures.flags.c_contiguous:
        raise ValueError(f"{name}: is not contiguous, expected C order")
    return structures.reshape(-1).view(np.uint8)


def dtype_name(dtype: np.dtype[np.void]) -> str:
    """RECIPE or TRUTH, for messages."""
    return "RECIPE" if dtype == RECIPE else "TRUTH"


def _like(image: Any, out: Any) -> Any:
    return np.empty(_shape("image", image), dtype=np.float32) if out is None else out


def _maps(recipes: NDArray[np.void], height: int, width: int, out: Any) -> Any:
    """A map for each recipe: ``out`` if it fits, or a new array."""
    shape = (recipes.size, _size("height", height), _size("width", width))
    if out is None:
        return np.empty(shape, dtype=np.float32)
    if (got := _shape("out", out)) not in (shape, shape[1:] if shape[0] == 1 else shape):
        raise ValueError(f"out: got the shape {got}, expected {shape}")
    return out


def prior(
    recipes: NDArray[np.void], height: int, width: int, *, out: Any = None, threads: int = 0
) -> Any:
    """The sampled street-like depth prior t0 of each recipe's seed, float32 (N, height, width)."""
    raw = _bytes(recipes, RECIPE, "recipes")
    made = _maps(recipes, height, width, out)
    _cpu.prior(raw, made, threads)
    return made


def fog(
    image: Any,
    prior: Any,
    recipes: NDArray[np.void],
    *,
    out: Any = None,
    transmission: Any = None,
    means: NDArray[np.float64] | None = None,
    threads: int = 0,
) -> tuple[Any, NDArray[np.float64]]:
    """I = J t + A (1 - t) with t = clamp(prior ** beta, 0.05, 1).

    Args:
        image: float32 (N, H, W, 3) or (H, W, 3), in [0, 1].
        prior: float32 (N, H, W) or (H, W), in (0, 1].
        recipes: RECIPE (N,); ``light`` and ``beta`` are read.
        out: like ``image``, may be ``image`` itself; a new NumPy array when None.
        transmission: float32 like ``prior``, receives t when given.
        means: float64 (N,), receives the mean of t.
        threads: 0 for as many as the process may use.

    Returns:
        ``out`` and the mean transmission of each image.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    made = _like(image, out)
    averages = np.empty(_batch(image)) if means is None else means
    _cpu.fog(
        image, prior, _bytes(recipes, RECIPE, "recipes"), made, transmission, averages, threads
    )
    return made, averages


def fog_invert(
    image: Any,
    transmission: Any,
    light: Any,
    *,
    floor: float = 0.1,
    out: Any = None,
    threads: int = 0,
) -> Any:
    """Clean estimate clip((I - A (1 - t)) / max(t, floor), 0, 1).

    Args:
        image: float32 (N, H, W, 3) or (H, W, 3).
        transmission: float32 (N, H, W) or (H, W).
        light: A, (N, 3) or (3,).
        floor: what thick fog's t is raised to, in (0, 1].
        out: like ``image``, may be ``image`` itself; a new NumPy array when None.
        threads: 0 for as many as the process may use.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    made = _like(image, out)
    colour = _colour(light)
    _cpu.fog_invert(image, transmission, colour, floor, made, threads)
    return made


def shake_kernels(recipes: NDArray[np.void]) -> tuple[NDArray[np.float32], NDArray[np.void]]:
    """Point-spread functions float32 (N, 31, 31), sum 1, and TRUTH (N,) with their moments."""
    raw = _bytes(recipes, RECIPE, "recipes")
    psf = np.empty((recipes.size, PSF_SIZE, PSF_SIZE), dtype=np.float32)
    truth = np.zeros(recipes.size, dtype=TRUTH)
    _cpu.shake_kernels(raw, psf, truth.view(np.uint8))
    return psf, truth


def shake(image: Any, psf: Any, *, out: Any = None, threads: int = 0) -> Any:
    """Convolve each image with its kernel, mirrored borders; zero taps cost nothing.

    Args:
        image: float32 (N, H, W, 3) or (H, W, 3).
        psf: float32 (N, 31, 31) or (31, 31), contiguous.
        out: like ``image``, in memory of its own; a new NumPy array when None.
        threads: 0 for as many as the process may use.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    made = _like(image, out)
    _cpu.shake(image, psf, made, threads)
    return made


def rain_mask(
    recipes: NDArray[np.void],
    height: int,
    width: int,
    *,
    out: Any = None,
    coverage: NDArray[np.float64] | None = None,
    threads: int = 0,
) -> tuple[Any, NDArray[np.float64]]:
    """Streak masks in [0, 1], float32 (N, height, width), and the coverage of each."""
    raw = _bytes(recipes, RECIPE, "recipes")
    made = _maps(recipes, height, width, out)
    covered = np.empty(recipes.size) if coverage is None else coverage
    _cpu.rain_mask(raw, made, covered, threads)
    return made, covered


def rain(
    image: Any,
    recipes: NDArray[np.void],
    *,
    out: Any = None,
    mask: Any = None,
    coverage: NDArray[np.float64] | None = None,
    threads: int = 0,
) -> tuple[Any, NDArray[np.float64]]:
    """I + opacity M A, not clipped, and the coverage of each image.

    Args:
        image: float32 (N, H, W, 3) or (H, W, 3).
        recipes: RECIPE (N,); the seed, ``light`` and the rain fields are read.
        out: like ``image``, may be ``image`` itself; a new NumPy array when None.
        mask: float32 (N, H, W) or (H, W), receives M when given.
        coverage: float64 (N,), receives the share of pixels with M > 0.1.
        threads: 0 for as many as the process may use.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    made = _like(image, out)
    covered = np.empty(_batch(image)) if coverage is None else coverage
    _cpu.rain(image, _bytes(recipes, RECIPE, "recipes"), made, mask, covered, threads)
    return made, covered


def noise(
    image: Any,
    recipes: NDArray[np.void],
    *,
    out: Any = None,
    variances: NDArray[np.float64] | None = None,
    threads: int = 0,
) -> tuple[Any, NDArray[np.float64]]:
    """I + n sigma(I), not clipped, and the mean variance of each image.

    Args:
        image: float32 (N, H, W, 3) or (H, W, 3).
        recipes: RECIPE (N,); the seed, ``gain`` and ``offset`` are read.
        out: like ``image``, may be ``image`` itself; a new NumPy array when None.
        variances: float64 (N,), receives the mean of sigma squared, in units of [0, 1] squared.
        threads: 0 for as many as the process may use.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    made = _like(image, out)
    found = np.empty(_batch(image)) if variances is None else variances
    _cpu.noise(image, _bytes(recipes, RECIPE, "recipes"), made, found, threads)
    return made, found


def noise_variances(
    image: Any, recipes: NDArray[np.void], *, threads: int = 0
) -> NDArray[np.float64]:
    """Mean of sigma(x) squared over each image, float64 (N,), without making any noise."""
    found = np.empty(_batch(image))
    _cpu.noise_variances(image, _bytes(recipes, RECIPE, "recipes"), found, threads)
    return found


def degrade(
    image: Any,
    recipes: NDArray[np.void],
    *,
    prior: Any = None,
    out: Any = None,
    stages: dict[str, Any] | None = None,
    transmission: Any = None,
    mask: Any = None,
    psf: Any = None,
    truth: NDArray[np.void] | None = None,
    threads: int = 0,
) -> tuple[Any, NDArray[np.void]]:
    """The chain: fog, shake, rain, noise, clip to [0, 1]; each as far as a recipe has it.

    Args:
        image: float32 (N, H, W, 3) or (H, W, 3), in [0, 1].
        recipes: RECIPE (N,).
        prior: depth prior t0 of the fog, float32 (N, H, W) or (H, W); sampled when None.
        out: like ``image``, in memory of its own; a new NumPy array when None.
        stages: ``fog``, ``shake``, ``rain``, ``noise``: arrays like ``image`` that receive the
            frame after that stage, not clipped, where the stage is present.
        transmission: float32 (N, H, W) or (H, W), receives t (1 without fog).
        mask: float32 (N, H, W) or (H, W), receives the streaks (0 without rain).
        psf: float32 (N, 31, 31) or (31, 31), receives the kernels (zeros without shake).
        truth: TRUTH (N,), receives severities and measured parameters.
        threads: 0 for as many as the process may use.

    Returns:
        ``out`` and ``truth``.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    made = _like(image, out)
    found = np.empty(_batch(image), dtype=TRUTH) if truth is None else truth
    _cpu.degrade(
        image,
        _bytes(recipes, RECIPE, "recipes"),
        prior,
        made,
        stages or {},
        transmission,
        mask,
        psf,
        _bytes(found, TRUTH, "truth"),
        threads,
    )
    return made, found


def means(map: Any, *, threads: int = 0) -> NDArray[np.float64]:
    """Mean of each map (N, H, W) or (H, W), float64 (N,): the t_mean of a transmission."""
    shape = _shape("map", map)
    found = np.empty(shape[0] if len(shape) == 3 else 1)
    _cpu.map_means(map, found, threads)
    return found


def coverage(map: Any, *, threshold: float = 0.1, threads: int = 0) -> NDArray[np.float64]:
    """Share of each map (N, H, W) or (H, W) above a threshold, float64 (N,)."""
    shape = _shape("map", map)
    found = np.empty(shape[0] if len(shape) == 3 else 1)
    _cpu.map_coverage(map, threshold, found, threads)
    return found


def severities(recipes: NDArray[np.void], truth: NDArray[np.void]) -> NDArray[np.void]:
    """Fill ``truth["severity"]`` from its other fields and the recipes' presence; returns it."""
    _cpu.severities(_bytes(recipes, RECIPE, "recipes"), _bytes(truth, TRUTH, "truth"))
    return truth


def frame_to_planes(
    frame: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    dtype: Any = np.float32,
    out: Any = None,
    threads: int = 0,
) -> Any:
    """Levels over 255 as the planes of a network.

    Args:
        frame: uint8 BGR (H, W, 3), any strides.
        height, width: of the planes, at least the frame's; what is larger is filled by mirroring
            the frame at its bottom and right edges, edge pixels not repeated. The frame's size when
            None. Not read when ``out`` is given.
        dtype: float32 or float16 (nearest, ties to even). Not read when ``out`` is given.
        out: float32 or float16 RGB (3, H', W') or (1, 3, H', W'), any strides, in memory of its
            own; a new NumPy array (1, 3, height, width) when None.
        threads: 0 for as many as the process may use.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    made = out
    if made is None:
        shape = tuple(getattr(frame, "shape", ()))
        rows, columns = shape[:2] if len(shape) == 3 else (1, 1)
        size = (rows if height is None else height, columns if width is None else width)
        made = np.empty((1, 3, *size), dtype=dtype)
    _cpu.frame_to_planes(frame, made, threads)
    return made


def planes_to_frame(
    planes: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    out: Any = None,
    threads: int = 0,
) -> Any:
    """Planes, clipped to [0, 1] and rounded to the nearest of 256 levels, as a frame.

    Args:
        planes: float32 or float16 RGB (3, H', W') or (1, 3, H', W'), any range and strides; NaN is
            black.
        height, width: of the frame; what the planes have more at the bottom and right is left out.
            The planes' size when None. Not read when ``out`` is given.
        out: uint8 BGR (H, W, 3), any strides, in memory of its own; a new NumPy array when None.
        threads: 0 for as many as the process may use.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    made = out
    if made is None:
        shape = tuple(getattr(planes, "shape", ()))
        rows, columns = shape[-2:] if len(shape) >= 2 else (1, 1)
        size = (rows if height is None else height, columns if width is None else width)
        made = np.empty((*size, 3), dtype=np.uint8)
    _cpu.planes_to_frame(planes, made, threads)
    return made


def blend_tile(
    tile: Any, row_weights: Any, column_weights: Any, sums: Any, *, threads: int = 0
) -> None:
    """``sums += clip(tile, 0, 1) * row_weights[:, None] * column_weights``.

    Args:
        tile: float32 or float16 (3, H', W') or (1, 3, H', W'), any strides; what it has more than
            ``sums`` at the bottom and right is left out.
        row_weights: float32 (H,).
        column_weights: float32 (W,).
        sums: float32 (3, H, W), mostly a window of a frame's planes; added to in place.
        threads: 0 for as many as the process may use.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    _cpu.blend_tile(tile, row_weights, column_weights, sums, threads)


def residual(
    frame: Any,
    restored: Any,
    transmission: Any,
    light: Any,
    psf: Any,
    shift: Any,
    variance: Any,
    block_variance: Any,
    *,
    threads: int = 0,
) -> NDArray[np.float64]:
    """Degrade a restored frame again with a model and compare it with the frame that came in.

    With y and J the two frames over 255, t the transmission, A the light, k the kernel, for each
    channel: x = k * (t (J - A) + A), borders mirrored; i = 255 x to the nearest level;
    r = y - x - shift[i]. No picture is stored on the way.

    Args:
        frame: uint8 BGR (H, W, 3), what came in; H and W at least 8.
        restored: uint8 BGR (H, W, 3).
        transmission: float32 (H, W) in [0, 1].
        light: A, three numbers R, G, B in [0, 1].
        psf: float32 (31, 31), or None without shake.
        shift: float32 (256, 3), what rain and noise add in the mean to each level and channel.
        variance: float32 (256, 3), variance of a pixel.
        block_variance: float32 (256, 3), variance of the mean of 8 x 8 pixels.
        threads: 0 for as many as the process may use.

    Returns:
        float64 (4,): mean of r^2, of variance[i], of the squared means of r over whole blocks of
        8 x 8, and of block_variance[i].

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    found = np.empty(4)
    colour = _colour(light)
    _cpu.residual(
        frame, restored, transmission, colour, psf, shift, variance, block_variance, found, threads
    )
    return found
