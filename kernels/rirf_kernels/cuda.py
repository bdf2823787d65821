"""The kernels on CUDA: the functions of ``rirf_kernels`` for arrays in device memory.

Arrays come by DLPack (torch, CuPy) or ``__cuda_array_interface__`` (PyCUDA, Numba) and lie on the
current device. Nothing waits, allocates or copies behind the caller's back: outputs, the workspace
and the stream are given, seeds, recipes and truths lie on the device, and a call can be captured in
a CUDA graph that draws anew whenever it is replayed. Recipes and truths are bytes there: uint8
(N * 112,) and (N * 88,), see :func:`to_device`; seeds are uint8 (N * 8,).

:func:`degrade_host` is the exception for those without an array library: it takes and gives NumPy
arrays, and therefore allocates, copies and waits. Importable without CUDA; :func:`available` says
what is missing.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rirf_kernels._api import RECIPE, TRUTH

__all__ = [
    "DeviceArray",
    "available",
    "blend_tile",
    "check_recipes",
    "coverage",
    "degrade",
    "degrade_host",
    "device_count",
    "fog",
    "fog_invert",
    "frame_to_planes",
    "means",
    "noise",
    "noise_variances",
    "normals",
    "planes_to_frame",
    "prior",
    "rain",
    "rain_mask",
    "residual",
    "sample",
    "severities",
    "shake",
    "shake_kernels",
    "to_device",
    "words",
    "workspace_bytes",
]


def _half() -> ModuleType:
    try:
        import rirf_kernels._cuda as _cuda
    except ImportError as error:
        raise RuntimeError(
            "rirf_kernels was built without its CUDA half; install the CUDA toolkit (nvcc on the "
            f"PATH) and build it again: make kernels, or pip install ./kernels ({error})"
        ) from error
    return _cuda


def available() -> tuple[bool, str]:
    """Whether kernels can run on a device here, and if not, why."""
    try:
        half = _half()
    except RuntimeError as error:
        return False, str(error)
    return (True, "") if half.device_count() > 0 else (False, half.last_error())


def device_count() -> int:
    """How many CUDA devices there are, 0 without the CUDA half."""
    try:
        return int(_half().device_count())
    except RuntimeError:
        return 0


def _stream(stream: Any) -> int:
    """A stream's address: of a number, torch's, CuPy's or PyCUDA's stream; None is the default."""
    if stream is None:
        return 0
    for name in ("cuda_stream", "ptr", "handle"):
        stream = getattr(stream, name, stream)
    try:
        return int(stream)
    except (TypeError, ValueError):
        raise TypeError(
            f"stream: got {type(stream).__name__}, expected an address or a stream of torch, CuPy "
            "or PyCUDA"
        ) from None


class DeviceArray:
    """A C-contiguous array in memory of the current device, for those without an array library.

    Args:
        shape: its shape.
        dtype: any NumPy number type.

    Exports ``__cuda_array_interface__``; the memory is freed with the object.

    Raises:
        MemoryError: the device has not that much left.
        RuntimeError: there is no CUDA half or no device.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> None:
        self._address = 0
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self._half = _half()
        self._address = self._half.allocate(max(1, self.nbytes))

    def __del__(self) -> None:
        if self._address:
            self._half.release(self._address)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * int(self.dtype.itemsize)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._address, False),
            "strides": None,
            "version": 3,
        }

    def fill(self, values: NDArray[Any], stream: Any = None) -> DeviceArray:
        """Copy a NumPy array of the same shape and type here; returns self.

        Raises:
            ValueError: another shape or type.
        """
        if values.shape != self.shape or values.dtype != self.dtype:
            raise ValueError(
                f"values: got {values.dtype} {values.shape}, expected {self.dtype} {self.shape}"
            )
        source = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._half.upload(self._address, source, _stream(stream))
        # The copy reads the caller's memory, which must not change before it is through.
        self._half.wait(_stream(stream))
        return self

    def numpy(self, stream: Any = None) -> NDArray[Any]:
        """A copy in host memory, once the stream's work is done."""
        values = np.empty(self.shape, dtype=self.dtype)
        self._half.download(values.reshape(-1).view(np.uint8), self._address, _stream(stream))
        self._half.wait(_stream(stream))
        return values


def to_device(values: NDArray[Any], stream: Any = None) -> DeviceArray:
    """A NumPy array in device memory; recipes, truths and 64-bit seeds become their bytes.

    Raises:
        ValueError: a recipe is out of range, or its streaks reach further than CUDA offers.
    """
    if values.dtype == RECIPE:
        check_recipes(values)
    if values.dtype in (RECIPE, TRUTH) or values.dtype == np.uint64:
        values = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return DeviceArray(values.shape, values.dtype).fill(values, stream)


def check_recipes(recipes: NDArray[np.void]) -> None:
    """Check recipes in host memory before they are copied to the device.

    Raises:
        ValueError: one is out of range, or its streaks reach further than 64 px from their middle.
    """
    _half().check_recipes(np.ascontiguousarray(recipes).reshape(-1).view(np.uint8))


def workspace_bytes(batch: int, height: int, width: int) -> int:
    """Bytes of workspace (uint8) that any call on a batch of this size needs at most."""
    return int(_half().workspace_bytes(batch, height, width))


def words(
    seed: int, stage: int, stream_number: int, out: Any, *, first: int = 0, stream: Any = None
) -> None:
    """Philox words ``first ...`` of a stage and stream into ``out``, uint32."""
    key = seed & 0xFFFFFFFFFFFFFFFF
    _half().words(key, stage, stream_number, first, out, _stream(stream))


def normals(
    seed: int, stage: int, stream_number: int, out: Any, *, first: int = 0, stream: Any = None
) -> None:
    """Standard normals ``first ...`` of a stage and stream into ``out``, float32."""
    key = seed & 0xFFFFFFFFFFFFFFFF
    _half().normals(key, stage, stream_number, first, out, _stream(stream))


def sample(seeds: Any, recipes: Any, *, stream: Any = None) -> None:
    """Draw recipes, uint8 (N * 112,), from seeds, uint8 (N * 8,), when the stream gets there."""
    _half().sample(seeds, recipes, _stream(stream))


def prior(recipes: Any, out: Any, workspace: Any, *, stream: Any = None) -> None:
    """The sampled depth prior of each recipe's seed into ``out``, float32 (N, H, W)."""
    _half().prior(recipes, out, workspace, _stream(stream))


def fog(
    image: Any,
    prior: Any,
    recipes: Any,
    out: Any,
    *,
    transmission: Any = None,
    means: Any = None,
    stream: Any = None,
) -> None:
    """As :func:`rirf_kernels.fog`; ``means`` is float64 (N,)."""
    _half().fog(image, prior, recipes, out, transmission, means, _stream(stream))


def fog_invert(
    image: Any,
    transmission: Any,
    light: Any,
    out: Any,
    *,
    floor: float = 0.1,
    stream: Any = None,
) -> None:
    """As :func:`rirf_kernels.fog_invert`; ``light`` is float64 (N, 3)."""
    _half().fog_invert(image, transmission, light, floor, out, _stream(stream))


def shake_kernels(recipes: Any, psf: Any, *, truth: Any = None, stream: Any = None) -> None:
    """Point-spread functions into ``psf``, float32 (N, 31, 31); moments into ``truth``."""
    _half().shake_kernels(recipes, psf, truth, _stream(stream))


def shake(image: Any, psf: Any, out: Any, workspace: Any, *, stream: Any = None) -> None:
    """As :func:`rirf_kernels.shake`."""
    _half().shake(image, psf, out, workspace, _stream(stream))


def rain_mask(
    recipes: Any, mask: Any, workspace: Any, *, coverage: Any = None, stream: Any = None
) -> None:
    """As :func:`rirf_kernels.rain_mask`; ``coverage`` is float64 (N,)."""
    _half().rain_mask(recipes, mask, coverage, workspace, _stream(stream))


def rain(
    image: Any,
    recipes: Any,
    out: Any,
    workspace: Any,
    *,
    mask: Any = None,
    coverage: Any = None,
    stream: Any = None,
) -> None:
    """As :func:`rirf_kernels.rain`; ``coverage`` is float64 (N,)."""
    _half().rain(image, recipes, out, mask, coverage, workspace, _stream(stream))


def noise(image: Any, recipes: Any, out: Any, *, variances: Any = None, stream: Any = None) -> None:
    """As :func:`rirf_kernels.noise`; ``variances`` is float64 (N,)."""
    _half().noise(image, recipes, out, variances, _stream(stream))


def noise_variances(image: Any, recipes: Any, variances: Any, *, stream: Any = None) -> None:
    """As :func:`rirf_kernels.noise_variances`, into ``variances``, float64 (N,)."""
    _half().noise_variances(image, recipes, variances, _stream(stream))


def degrade(
    image: Any,
    recipes: Any,
    out: Any,
    workspace: Any,
    *,
    prior: Any = None,
    stages: dict[str, Any] | None = None,
    transmission: Any = None,
    mask: Any = None,
    psf: Any = None,
    truth: Any = None,
    stream: Any = None,
) -> None:
    """The chain, as :func:`rirf_kernels.degrade`.

    Args:
        image: float32 (N, H, W, 3) or (H, W, 3), in [0, 1]; any strides.
        recipes: uint8 (N * 112,).
        out: like ``image``, in memory of its own.
        workspace: uint8, at least :func:`workspace_bytes`.
        prior: float32 (N, H, W) or (H, W); sampled when None.
        stages, transmission, mask, psf: receive intermediate results, as on the CPU.
        truth: uint8 (N * 88,).
        stream: a stream of torch, CuPy or PyCUDA, or an address; the default stream when None.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
        RuntimeError: CUDA refused a launch.
    """
    _half().degrade(
        image,
        recipes,
        prior,
        out,
        stages or {},
        transmission,
        mask,
        psf,
        truth,
        workspace,
        _stream(stream),
    )


def means(map: Any, out: Any, *, stream: Any = None) -> None:
    """Mean of each map (N, H, W) or (H, W), into ``out``, float64 (N,)."""
    _half().map_means(map, out, _stream(stream))


def coverage(map: Any, out: Any, *, threshold: float = 0.1, stream: Any = None) -> None:
    """Share of each map (N, H, W) or (H, W) above a threshold, into ``out``, float64 (N,)."""
    _half().map_coverage(map, threshold, out, _stream(stream))


def severities(recipes: Any, truth: Any, *, stream: Any = None) -> None:
    """Fill the severities of ``truth`` from its other fields and the recipes' presence."""
    _half().severities(recipes, truth, _stream(stream))


def frame_to_planes(frame: Any, out: Any, *, stream: Any = None) -> None:
    """As :func:`rirf_kernels.frame_to_planes`."""
    _half().frame_to_planes(frame, out, _stream(stream))


def planes_to_frame(planes: Any, out: Any, *, stream: Any = None) -> None:
    """As :func:`rirf_kernels.planes_to_frame`."""
    _half().planes_to_frame(planes, out, _stream(stream))


def blend_tile(
    tile: Any, row_weights: Any, column_weights: Any, sums: Any, *, stream: Any = None
) -> None:
    """As :func:`rirf_kernels.blend_tile`."""
    _half().blend_tile(tile, row_weights, column_weights, sums, _stream(stream))


def residual(
    frame: Any,
    restored: Any,
    transmission: Any,
    light: tuple[float, float, float],
    psf: Any,
    shift: Any,
    variance: Any,
    block_variance: Any,
    out: Any,
    *,
    stream: Any = None,
) -> None:
    """As :func:`rirf_kernels.residual`, into ``out``, float64 (4,); ``light`` is three numbers."""
    red, green, blue = (float(value) for value in light)
    _half().residual(
        frame,
        restored,
        transmission,
        red,
        green,
        blue,
        psf,
        shift,
        variance,
        block_variance,
        out,
        _stream(stream),
    )


def degrade_host(
    image: NDArray[np.float32],
    recipes: NDArray[np.void],
    *,
    prior: NDArray[np.float32] | None = None,
    stages: dict[str, NDArray[np.float32]] | None = None,
    transmission: NDArray[np.float32] | None = None,
    mask: NDArray[np.float32] | None = None,
    psf: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.void]]:
    """The chain for NumPy arrays: copies them to the device, runs, copies the results back.

    Args:
        image: float32 (N, H, W, 3) or (H, W, 3), in [0, 1].
        recipes: RECIPE (N,).
        prior, stages, transmission, mask, psf: as for :func:`rirf_kernels.degrade`; what is given
            to be written is overwritten.

    Returns:
        The degraded images and TRUTH (N,).

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
        RuntimeError: there is no CUDA half or no device.
    """
    working, reason = available()
    if not working:
        raise RuntimeError(reason)
    source = np.ascontiguousarray(image, dtype=np.float32)
    if source.ndim not in (3, 4):
        raise ValueError(f"image: got the shape {source.shape}, expected (H, W, 3) or (N, H, W, 3)")
    batch = source.shape[0] if source.ndim == 4 else 1
    height, width = source.shape[-3:-1]
    out = DeviceArray(source.shape)
    truth = DeviceArray((batch * TRUTH.itemsize,), np.uint8)
    results: dict[str, tuple[NDArray[np.float32], DeviceArray]] = {}
    for name, array in {
        **{f"stages.{key}": stage for key, stage in (stages or {}).items()},
        "transmission": transmission,
        "mask": mask,
        "psf": psf,
    }.items():
        if array is not None:
            # What is there already stays where the chain writes nothing: a stage that is absent.
            results[name] = (array, to_device(np.ascontiguousarray(array, dtype=np.float32)))

    def device(name: str) -> DeviceArray | None:
        return results[name][1] if name in results else None

    degrade(
        to_device(source),
        to_device(recipes),
        out,
        DeviceArray((workspace_bytes(batch, height, width),), np.uint8),
        prior=None if prior is None else to_device(np.ascontiguousarray(prior, dtype=np.float32)),
        stages={key: results[f"stages.{key}"][1] for key in stages or {}},
        transmission=device("transmission"),
        mask=device("mask"),
        psf=device("psf"),
        truth=truth,
    )
    for array, found in results.values():
        array[...] = found.numpy()
    return out.numpy(), truth.numpy().view(TRUTH)
