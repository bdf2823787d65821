"""The parts of the GPU's side that need no GPU: what is said where there is none."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest

from rirf.engine.tensorrt import Gpu, find_gpu
from rirf.engine.tensorrt.device import Device
from rirf.errors import EngineError, MissingExtraError

pytestmark = pytest.mark.lean


class CudaError(Exception):
    pass


class Card:
    """A GPU as pycuda describes one; it cannot compute."""

    def __init__(self, index: int) -> None:
        self.index = index

    @staticmethod
    def count() -> int:
        return 1

    def name(self) -> str:
        return "Orin"

    def compute_capability(self) -> tuple[int, int]:
        return (8, 7)

    def retain_primary_context(self) -> Any:
        return Context()


class Context:
    current = 0

    def push(self) -> None:
        Context.current += 1

    @staticmethod
    def pop() -> None:
        Context.current -= 1


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What of pycuda is asked before anything is computed."""
    made = ModuleType("pycuda.driver")
    package = ModuleType("pycuda")
    made.__dict__.update(
        Error=CudaError,
        Device=Card,
        Context=Context,
        Stream=lambda flags: flags,
        init=lambda: None,
        get_driver_version=lambda: 12060,
        mem_alloc=lambda size: size,
    )
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", made)
    return made


def test_without_pycuda_the_extra_is_named() -> None:
    try:
        importlib.import_module("pycuda.driver")
    except (ImportError, OSError):
        pass
    else:
        pytest.skip("pycuda is installed here")
    with pytest.raises(MissingExtraError, match=r"pip install 'rirf\[tensorrt-rtx\]'"):
        find_gpu(extra="tensorrt-rtx")


def test_a_gpu_is_described_as_the_cache_needs_it(driver: ModuleType) -> None:
    assert find_gpu() == Gpu(name="Orin", architecture="sm87", cuda="12.6")


@pytest.mark.parametrize("index", [-1, 1])
def test_a_gpu_that_is_not_there_is_refused(driver: ModuleType, index: int) -> None:
    with pytest.raises(EngineError, match=f"GPU {index}: got 1 GPUs here"):
        find_gpu(index)


def test_without_a_driver_the_way_out_is_named(driver: ModuleType) -> None:
    def fail() -> None:
        raise CudaError("cuInit failed: no CUDA-capable device is detected")

    driver.__dict__["init"] = fail
    with pytest.raises(EngineError, match=r"no CUDA-capable device.*with ONNX Runtime"):
        find_gpu()


def test_the_context_is_current_for_a_call_alone(driver: ModuleType) -> None:
    device = Device()
    assert Context.current == 0
    with device.active():
        assert Context.current == 1
        assert device.allocate(16) == 16
    assert Context.current == 0


def test_cuda_errors_are_engine_errors_and_leave_the_context(driver: ModuleType) -> None:
    device = Device()
    with (
        pytest.raises(EngineError, match="Orin: out of memory; if memory is short"),
        device.active(),
    ):
        raise CudaError("out of memory")
    assert Context.current == 0


def test_a_closed_device_is_refused(driver: ModuleType) -> None:
    device = Device()
    device.close()
    device.close()
    assert Context.current == 0
    with pytest.raises(EngineError, match="was closed; load it again"), device.active():
        pass
