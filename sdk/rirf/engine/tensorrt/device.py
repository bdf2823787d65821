"""One GPU for one engine: its primary context, one stream, memory, CUDA graphs.

The primary context is the one that all CUDA libraries of a process share; it is made current for
the length of a call, so any thread may call. pycuda has no CUDA graphs: those few functions are
called in the driver itself. Knows no engine. Written against pycuda 2026.1 and the CUDA 13 driver
API; it has not run on a GPU yet.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rirf.errors import EngineError, require

__all__ = ["CudaGraph", "Device", "Gpu", "find_gpu"]

# CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile does not spoil the capture.
_THREAD_LOCAL = 1
# CU_STREAM_NON_BLOCKING: the stream does not wait for the default stream, where others work.
_NON_BLOCKING = 1


@dataclass(frozen=True)
class Gpu:
    """A GPU: ``name``, ``architecture`` (``"sm87"``), ``cuda`` (its driver's, ``"12.6"``)."""

    name: str
    architecture: str
    cuda: str


def _pycuda(extra: str) -> Any:
    driver = require("pycuda.driver", extra, "run TensorRT engines")
    try:
        driver.init()
    except driver.Error as error:
        raise EngineError(
            f"CUDA does not start: {error}; TensorRT engines run on an NVIDIA GPU with its driver, "
            "elsewhere run the bundle with ONNX Runtime"
        ) from error
    return driver


def _select(driver: Any, index: int) -> Any:
    count = driver.Device.count()
    if not 0 <= index < count:
        raise EngineError(f"GPU {index}: got {count} GPUs here, expected an index below that")
    return driver.Device(index)


def _describe(driver: Any, device: Any) -> Gpu:
    major, minor = device.compute_capability()
    version = driver.get_driver_version()
    # The driver gives 12060 for 12.6.
    cuda = f"{version // 1000}.{version % 1000 // 10}"
    return Gpu(name=device.name(), architecture=f"sm{major}{minor}", cuda=cuda)


def find_gpu(index: int = 0, *, extra: str = "tensorrt") -> Gpu:
    """Describe a GPU; takes none of its memory.

    Args:
        index: of the GPU.
        extra: the extra that a message names where pycuda is missing.

    Raises:
        MissingExtraError: pycuda is not installed.
        EngineError: no driver, or no such GPU.
    """
    driver = _pycuda(extra)
    return _describe(driver, _select(driver, index))


class Device:
    """See the module's text. Everything but the constructor runs inside :meth:`active`.

    Args:
        index, extra: see :func:`find_gpu`.

    Raises:
        MissingExtraError: pycuda is not installed.
        EngineError: no driver, or no such GPU.
    """

    def __init__(self, index: int = 0, *, extra: str = "tensorrt") -> None:
        self._driver = _pycuda(extra)
        device = _select(self._driver, index)
        self.gpu = _describe(self._driver, device)
        self._context = device.retain_primary_context()
        with self.active():
            self._stream = self._driver.Stream(_NON_BLOCKING)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the context current on this thread; CUDA's errors become EngineErrors."""
        if self._context is None:
            raise EngineError("the engine was closed; load it again")
        self._context.push()
        try:
            yield
        except self._driver.Error as error:
            raise EngineError(
                f"{self.gpu.name}: {error}; if memory is short, close other engines or narrow the "
                "shapes, and after a launch failure start the process again"
            ) from error
        finally:
            self._driver.Context.pop()

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream.handle)

    def allocate(self, size: int) -> Any:
        """GPU memory of ``size`` bytes; ``int()`` of it is its address, dropping it frees it."""
        return self._driver.mem_alloc(size)

    def allocate_host(self, size: int) -> NDArray[np.uint8]:
        """Page-locked host memory, which the GPU copies from and to by itself."""
        memory: NDArray[np.uint8] = self._driver.pagelocked_empty(size, np.uint8)
        return memory

    def upload(self, memory: Any, host: NDArray[np.uint8]) -> None:
        """Queue a copy of page-locked ``host`` to the start of ``memory``."""
        self._driver.memcpy_htod_async(memory, host, self._stream)

    def download(self, host: NDArray[np.uint8], memory: Any) -> None:
        """Queue a copy of the start of ``memory`` to page-locked ``host``."""
        self._driver.memcpy_dtoh_async(host, memory, self._stream)

    def wait(self) -> None:
        """Wait until the stream has done all that was queued."""
        self._stream.synchronize()

    def capture(self, queue: Callable[[], None]) -> CudaGraph:
        """Record what ``queue`` puts on the stream, without running it.

        Raises:
            EngineError: something in it cannot be captured.
        """
        return CudaGraph(self.stream, queue)

    def close(self) -> None:
        """Give the context back; everything allocated must have been dropped."""
        if self._context is not None:
            with self.active():
                del self._stream
            self._context = None


class CudaGraph:
    """Work recorded from a stream, launched again as a whole."""

    def __init__(self, stream: int, queue: Callable[[], None]) -> None:
        self._stream = ctypes.c_void_p(stream)
        self._cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        self._exec = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_THREAD_LOCAL))
        try:
            queue()
        finally:
            # Also after a failure: until then the stream takes no other work.
            ended = self._cuda.cuStreamEndCapture(self._stream, ctypes.byref(graph))
        self._check("cuStreamEndCapture", ended)
        try:
            self._call(
                "cuGraphInstantiateWithFlags",
                ctypes.byref(self._exec),
                graph,
                ctypes.c_ulonglong(0),
            )
        finally:
            self._call("cuGraphDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> None:
        self._check(name, getattr(self._cuda, name)(*arguments))

    def _check(self, name: str, status: int) -> None:
        if status != 0:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(ctypes.c_int(status), ctypes.byref(text))
            reason = text.value.decode() if text.value else f"error {status}"
            raise EngineError(f"{name}: {reason}; the engine can run without a CUDA graph")

    def launch(self) -> None:
        """Queue the recorded work on its stream."""
        self._call("cuGraphLaunch", self._exec, self._stream)

    def close(self) -> None:
        """Free the graph; must not be running."""
        self._call("cuGraphExecDestroy", self._exec)
