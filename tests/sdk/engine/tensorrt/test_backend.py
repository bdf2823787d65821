"""The engine: shapes and buffers, its order of calls on a stand-in GPU, and a real GPU's results.

The stand-in does what the documented interface promises and no more: queued work happens when the
stream is waited for, a captured graph repeats what was queued while it was captured, and shapes
outside the profile are refused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rirf import conditioning, views
from rirf.bundle import Bundle
from rirf.engine import OnnxEngine, TensorSpec
from rirf.engine.tensorrt import (
    Gpu,
    Library,
    Profile,
    TensorRTEngine,
    backend,
    find_gpu,
    find_library,
    profiles_for,
)
from rirf.engine.tensorrt.backend import SHAPES_KEPT, buffer_sizes, check_profiled
from rirf.errors import EngineError, RirfError

pytestmark = pytest.mark.lean

Tensors = dict[str, NDArray[Any]]
LIMITS = Profile((1, 2, 4, 4), (1, 2, 8, 8), (1, 2, 16, 16))


class Graph:
    def __init__(self, gpu: StandIn, work: list[Callable[[], None]]) -> None:
        self._gpu = gpu
        self._work = work
        self.closed = False

    def launch(self) -> None:
        assert not self.closed
        self._gpu.launches += 1
        self._gpu.queue += self._work

    def close(self) -> None:
        self.closed = True


class StandIn:
    """In the place of ``Device``: memory is NumPy's, and the stream a list."""

    stream = 7

    def __init__(self) -> None:
        self.gpu = Gpu("Stand-in", "sm87", "12.6")
        self.queue: list[Callable[[], None]] = []
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.graphs: list[Graph] = []
        self.launches = 0
        self.capturable = True
        self.current = False
        self.closed = False

    @contextmanager
    def active(self) -> Iterator[None]:
        if self.closed:
            raise EngineError("the engine was closed; load it again")
        assert not self.current
        self.current = True
        try:
            yield
        finally:
            self.current = False

    def allocate(self, size: int) -> int:
        address = 256 * (len(self.memory) + 1)
        self.memory[address] = np.zeros(size, np.uint8)
        return address

    def allocate_host(self, size: int) -> NDArray[np.uint8]:
        assert self.current
        return np.zeros(size, np.uint8)

    def upload(self, memory: int, host: NDArray[Any]) -> None:
        flat = host.reshape(-1).view(np.uint8)
        self.queue.append(lambda: np.copyto(self.memory[memory][: flat.size], flat))

    def download(self, host: NDArray[Any], memory: int) -> None:
        flat = host.reshape(-1).view(np.uint8)
        self.queue.append(lambda: np.copyto(flat, self.memory[memory][: flat.size]))

    def wait(self) -> None:
        assert self.current
        time.sleep(1e-4)  # lets other threads in, as waiting for a GPU does
        while self.queue:
            self.queue.pop(0)()

    def capture(self, queue: Callable[[], None]) -> Graph:
        if not self.capturable:
            raise EngineError("operation not permitted when stream is capturing")
        before, self.queue = self.queue, []
        queue()
        self.graphs.append(Graph(self, self.queue))
        self.queue = before
        return self.graphs[-1]

    def close(self) -> None:
        self.closed = True


class Context:
    """An execution context of y = x * scale."""

    def __init__(self, gpu: StandIn) -> None:
        self._gpu = gpu
        self._shape: tuple[int, ...] | None = None
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        fits = zip(LIMITS.minimum, shape, LIMITS.maximum, strict=True)
        self._shape = shape if all(low <= n <= high for low, n, high in fits) else None
        return self._shape is not None

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self._shape is not None
        return self._shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return address in self._gpu.memory

    def execute_async_v3(self, stream: int) -> bool:
        shape = self._shape
        if shape is None or stream != self._gpu.stream or set(self._addresses) != set("xsy"):
            return False
        x, scale, y = (self._gpu.memory[self._addresses[name]].view(np.float32) for name in "xsy")
        size = int(np.prod(shape))
        self._gpu.queue.append(lambda: np.multiply(x[:size], scale[:1], out=y[:size]))
        return True


class Plan:
    """A loaded engine of y = x * scale."""

    names = ("x", "s", "y")
    num_io_tensors = 3

    def __init__(self, gpu: StandIn) -> None:
        self._gpu = gpu
        self.contexts: list[Context] = []

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "out" if name == "y" else "in"

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (1,) if name == "s" else (1, 2, -1, -1)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [list(shape) for shape in LIMITS]  # type: ignore[misc]  # a sequence, like Dims

    def create_runtime_config(self) -> Any:
        return SimpleNamespace()

    def create_execution_context(self, config: Any = None) -> Context:
        self.contexts.append(Context(self._gpu))
        return self.contexts[-1]


class Listener:
    ERROR, INTERNAL_ERROR, WARNING = "error", "internal", "warning"

    def log(self, severity: str, text: str) -> None:
        raise AssertionError(f"rirf's logger did not take over: {severity}: {text}")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setattr(backend, "Device", lambda index, extra: made)
    return made


def library(gpu: StandIn, flavour: Any = "tensorrt") -> Library:
    def load(listener: Any, plan: bytes) -> Plan | None:
        if plan == b"plan":
            return Plan(gpu)
        listener.log("error", "Engine was built for another device")
        return None

    def runtime(listener: Any) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=lambda plan: load(listener, plan))

    module = ModuleType("stand_in")
    module.__dict__.update(
        ILogger=Listener,
        Runtime=runtime,
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole"),
    )
    return Library(flavour, "10.3.0", module)


@pytest.fixture
def engine(gpu: StandIn) -> TensorRTEngine:
    return TensorRTEngine(b"plan", library(gpu), name="tiny.onnx")


def tensors(height: int = 8, width: int = 8, scale: float = 2.0, seed: int = 0) -> Tensors:
    x = np.random.default_rng(seed).random((1, 2, height, width), dtype=np.float32)
    return {"x": x, "s": np.array([scale], np.float32)}


def expected(inputs: Tensors) -> NDArray[Any]:
    result: NDArray[Any] = inputs["x"] * inputs["s"]
    return result


# Shapes and buffers

SPECS = (
    TensorSpec(name="x", shape=(1, 2, "?", "?"), dtype="float32"),
    TensorSpec(name="s", shape=(1,), dtype="float16"),
)


def fitting() -> Tensors:
    return {"x": np.zeros((1, 2, 4, 16), np.float32), "s": np.zeros(1, np.float16)}


def test_fitting_tensors_pass() -> None:
    check_profiled("tiny", fitting(), SPECS, {"x": LIMITS})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x": np.zeros((1, 2, 4, 17), np.float32)},
            r"built for \(1, 2, 4, 4\) to .*smaller tiles",
        ),
        ({"x": np.zeros((1, 2, 3, 4), np.float32)}, r"x is \(1, 2, 3, 4\), the engine was built"),
        ({"x": np.zeros((2, 2, 4, 4), np.float32)}, r"x is float32 \(2, 2, 4, 4\), expected"),
        ({"x": np.zeros((2, 4, 4), np.float32)}, r"x is float32 \(2, 4, 4\), expected float32"),
        ({"x": np.zeros((1, 2, 4, 4))}, "x is float64 .* expected float32"),
        ({"s": np.zeros(1, np.float32)}, "s is float32 .* expected float16"),
        ({"z": np.zeros(1)}, r"got tensors \['s', 'x', 'z'\], expected \['s', 'x'\]"),
    ],
)
def test_unfit_tensors_are_refused(change: Tensors, message: str) -> None:
    with pytest.raises(EngineError, match=f"tiny: .*{message}"):
        check_profiled("tiny", fitting() | change, SPECS, {"x": LIMITS})


def test_buffers_count_bytes() -> None:
    assert buffer_sizes(SPECS, {"x": (1, 2, 16, 8), "s": (1,)}) == {"x": 1024, "s": 2}
    assert buffer_sizes(SPECS, {"x": (1, 0, 16, 8), "s": ()}) == {"x": 0, "s": 2}


def test_shapes_that_depend_on_data_are_refused() -> None:
    with pytest.raises(EngineError, match=r"x has shape .*depends on data"):
        buffer_sizes(SPECS, {"x": (1, 2, -1, 8), "s": (1,)})


# On the stand-in


def test_the_tables_describe_the_engine(engine: TensorRTEngine) -> None:
    table = [(spec.name, spec.shape, spec.dtype) for spec in (*engine.inputs, *engine.outputs)]
    assert table == [
        ("x", (1, 2, "?", "?"), "float32"),
        ("s", (1,), "float32"),
        ("y", (1, 2, "?", "?"), "float32"),
    ]
    assert engine.device == "TensorRT 10.3.0 on Stand-in (sm87)"


def test_sizes_may_alternate_and_each_keeps_its_graph(engine: TensorRTEngine, gpu: StandIn) -> None:
    for turn in range(3):
        for size in ((4, 4), (16, 16), (8, 12)):
            inputs = tensors(*size, scale=turn + 1.0, seed=turn)
            np.testing.assert_array_equal(engine.run(inputs)["y"], expected(inputs))
    assert len(gpu.graphs) == 3
    assert gpu.launches == 9
    # For the largest shapes, once: two inputs and an output.
    assert sorted(memory.size for memory in gpu.memory.values()) == [4, 2048, 2048]


def test_run_gives_new_arrays(engine: TensorRTEngine) -> None:
    first = engine.run(tensors(seed=1))["y"]
    kept = first.copy()
    second = engine.run(tensors(seed=2))["y"]
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)


def test_run_into_writes_the_callers_array(engine: TensorRTEngine) -> None:
    inputs = tensors(4, 12)
    target = np.full((1, 2, 4, 12), np.nan, np.float32)
    engine.run_into(inputs, {"y": target})
    np.testing.assert_array_equal(target, expected(inputs))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            np.zeros((1, 2, 4, 8), np.float32),
            r"output y is \(1, 2, 4, 8\), expected \(1, 2, 8, 8\)",
        ),
        (np.zeros((1, 2, 8, 8), np.float64), "y is float64"),
        (np.zeros((1, 2, 8, 16), np.float32)[..., ::2], "C-contiguous"),
        (np.broadcast_to(np.float32(0), (1, 2, 8, 8)), "C-contiguous"),
    ],
)
def test_unfit_targets_are_refused(
    engine: TensorRTEngine, target: NDArray[Any], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        engine.run_into(tensors(), {"y": target})
    assert expected(tensors()).tolist() == engine.run(tensors())["y"].tolist()


def test_inputs_need_not_be_contiguous(engine: TensorRTEngine) -> None:
    inputs = tensors(16, 16)
    inputs["x"] = inputs["x"][..., ::2, ::2]
    np.testing.assert_array_equal(engine.run(inputs)["y"], expected(inputs))


def test_shapes_used_longest_ago_are_forgotten(engine: TensorRTEngine, gpu: StandIn) -> None:
    for height in range(4, 4 + SHAPES_KEPT):
        engine.run(tensors(height))
    engine.run(tensors(4))  # used again, so that 5 is now the oldest
    engine.run(tensors(16))
    assert [graph.closed for graph in gpu.graphs] == [False, True, *[False] * (SHAPES_KEPT - 1)]
    np.testing.assert_array_equal(engine.run(tensors(5))["y"], expected(tensors(5)))


def test_without_a_graph_it_runs_and_says_so(
    engine: TensorRTEngine, gpu: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.capturable = False
    with caplog.at_level(logging.WARNING, "rirf.engine.tensorrt"):
        results = [engine.run(tensors(seed=seed))["y"] for seed in range(3)]
    assert gpu.launches == 0
    for seed, result in enumerate(results):
        np.testing.assert_array_equal(result, expected(tensors(seed=seed)))
    (record,) = caplog.records
    assert "without a CUDA graph: operation not permitted" in record.getMessage()


def test_tensorrt_rtx_captures_by_itself(gpu: StandIn) -> None:
    engine = TensorRTEngine(b"plan", library(gpu, "tensorrt-rtx"), name="tiny.onnx")
    np.testing.assert_array_equal(engine.run(tensors())["y"], expected(tensors()))
    assert gpu.graphs == []


def test_threads_take_turns(engine: TensorRTEngine) -> None:
    def one(seed: int) -> bool:
        inputs = tensors(4 + seed % 6, 8, scale=seed, seed=seed)
        return np.array_equal(engine.run(inputs)["y"], expected(inputs))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(200)))


def test_an_engine_of_another_device_is_refused_with_the_reason(gpu: StandIn) -> None:
    with pytest.raises(
        EngineError, match=r"cannot load the engine on Stand-in \(sm87\): Engine was"
    ):
        TensorRTEngine(b"other", library(gpu), name="tiny.onnx")
    assert not gpu.current


def test_failed_inference_is_an_error(
    engine: TensorRTEngine, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Context, "execute_async_v3", lambda self, stream: False)
        with pytest.raises(EngineError, match="inference failed: no reason given; load the engine"):
            engine.run(tensors())
    assert not gpu.current
    np.testing.assert_array_equal(engine.run(tensors())["y"], expected(tensors()))


def test_a_closed_engine_is_refused(engine: TensorRTEngine, gpu: StandIn) -> None:
    engine.warm_up(tensors())
    engine.close()
    engine.close()
    assert gpu.closed
    assert all(graph.closed for graph in gpu.graphs)
    with pytest.raises(EngineError, match="was closed; load it again"):
        engine.run(tensors())


# On a GPU

# Convolutions may run in TF32, whose relative error is about 1e-3.
TOLERANCE = 5e-3


@pytest.fixture(scope="module")
def real() -> Library:
    try:
        find_gpu()
        return find_library()
    except RirfError as error:
        pytest.skip(f"needs an NVIDIA GPU, pycuda and TensorRT: {error}")


def frames(height: int, width: int, seed: int) -> Tensors:
    """Inputs of the restorer."""
    rng = np.random.default_rng(seed)
    frame = rng.random((1, 3, height, width), dtype=np.float32)
    return {
        "degraded": frame,
        "state": frame.copy(),
        "transmission": rng.uniform(0.2, 1.0, (1, 1, height, width)).astype(np.float32),
        "condition": rng.random((1, conditioning.SIZE), dtype=np.float32),
        "time": np.array([-1.0], dtype=np.float32),
        "step": np.array([1.0], dtype=np.float32),
    }


def looks(seed: int) -> Tensors:
    """Inputs of the reasoner."""
    rng = np.random.default_rng(seed)
    side, crop = views.THUMBNAIL_SIZE, views.CROP_SIZE
    return {
        "thumbnail": rng.random((1, 3, side, side), dtype=np.float32),
        "crops": rng.random((1, views.CROPS, 3, crop, crop), dtype=np.float32),
    }


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reasoner", "restorer"])
def test_a_gpu_computes_what_onnx_runtime_does(
    real: Library, shipped: Path, tmp_path: Path, kind: str
) -> None:
    bundle = Bundle.open(shipped)
    graph = getattr(bundle.manifest, kind)
    file = bundle.path(graph)
    profiles = profiles_for(graph.inputs, {"height": (64, 256, 512), "width": (64, 256, 512)})
    slow = OnnxEngine(file)
    fast = TensorRTEngine.from_onnx(
        file, profiles, precision="fp32", library=real, cache=tmp_path, multiple=16
    )
    sizes = ((128, 192), (256, 256), (128, 192), (512, 512), (64, 64), (128, 64), (128, 192))
    for seed, size in enumerate(sizes):
        inputs = looks(seed) if kind == "reasoner" else frames(*size, seed)
        want, got = slow.run(inputs), fast.run(inputs)
        into = {name: np.full_like(value, np.nan) for name, value in want.items()}
        fast.run_into(inputs, into)
        for name, value in want.items():
            np.testing.assert_allclose(got[name], value, atol=TOLERANCE, rtol=TOLERANCE)
            np.testing.assert_array_equal(into[name], got[name])
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: fast.run(inputs), range(8)))
    assert all(np.array_equal(result[name], got[name]) for result in results for name in want)
    fast.close()
    again = TensorRTEngine.from_onnx(
        file, profiles, precision="fp32", library=real, cache=tmp_path, rebuild=False
    )
    again.warm_up(inputs)
    again.close()
