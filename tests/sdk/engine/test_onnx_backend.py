from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rirf import conditioning
from rirf.bundle import Bundle
from rirf.engine import OnnxEngine, available_providers, probe_provider
from rirf.engine.onnx_backend import CPU
from rirf.errors import EngineError

pytestmark = pytest.mark.lean

NOWHERE = "NowhereExecutionProvider"
Tensors = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def file(shipped: Path) -> Path:
    bundle = Bundle.open(shipped)
    return bundle.path(bundle.manifest.restorer)


@pytest.fixture(scope="module")
def engine(file: Path) -> Iterator[OnnxEngine]:
    loaded = OnnxEngine(file, threads=1)
    yield loaded
    loaded.close()


def tensors(height: int = 32, width: int = 48, seed: int = 0) -> Tensors:
    """Inputs of the restorer's graph."""
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


def test_the_cpu_works() -> None:
    assert probe_provider(CPU) is None
    assert CPU in available_providers()


def test_every_available_provider_was_probed() -> None:
    assert all(probe_provider(name) is None for name in available_providers())


def test_an_unknown_provider_says_what_there_is() -> None:
    reason = probe_provider(NOWHERE)
    assert reason is not None
    assert CPU in reason


def test_fallback_is_logged_with_its_reason(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="rirf"):
        engine = OnnxEngine(file, providers=[NOWHERE], threads=1)
    assert engine.device == CPU
    (record,) = caplog.records
    assert f"{NOWHERE} does not work here" in record.getMessage()
    assert "built without it" in record.getMessage()
    assert engine.run(tensors())["update"].shape == (1, 3, 32, 48)


def test_strict_makes_fallback_an_error(file: Path) -> None:
    with pytest.raises(EngineError, match=f"{NOWHERE} does not work here: .*drop strict"):
        OnnxEngine(file, providers=[NOWHERE], strict=True)


def test_strict_with_a_working_provider(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = OnnxEngine(file, providers=[CPU], threads=1, strict=True)
    assert engine.device == CPU
    assert not caplog.records


def test_the_tables_describe_the_graph(engine: OnnxEngine, shipped: Path) -> None:
    graph = Bundle.open(shipped, verify=False).manifest.restorer
    assert engine.inputs == graph.inputs
    assert engine.outputs == graph.outputs
    sizes = {spec.name: (spec.shape, spec.dtype) for spec in engine.inputs}
    assert sizes["degraded"] == ((1, 3, "height", "width"), "float32")
    assert sizes["condition"] == ((1, conditioning.SIZE), "float32")


def test_run_gives_new_finite_arrays(engine: OnnxEngine) -> None:
    first, second = engine.run(tensors())["update"], engine.run(tensors())["update"]
    assert not np.shares_memory(first, second)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 48), (112, 64)])
def test_run_into_equals_run(engine: OnnxEngine, height: int, width: int) -> None:
    inputs = tensors(height, width)
    output = np.full((1, 3, height, width), np.nan, dtype=np.float32)
    engine.run_into(inputs, {"update": output})
    np.testing.assert_array_equal(output, engine.run(inputs)["update"])


def test_arrays_need_not_be_contiguous(engine: OnnxEngine) -> None:
    whole = tensors(64, 96)
    strided = {
        name: value[..., ::2, ::2] if value.ndim == 4 else value for name, value in whole.items()
    }
    packed = {name: np.ascontiguousarray(value) for name, value in strided.items()}
    expected = engine.run(packed)["update"]
    np.testing.assert_array_equal(engine.run(strided)["update"], expected)
    output = np.empty_like(expected)
    engine.run_into(strided, {"update": output})
    np.testing.assert_array_equal(output, expected)


def test_run_leaves_its_inputs_alone(engine: OnnxEngine) -> None:
    inputs = tensors()
    engine.run(inputs)
    for name, value in tensors().items():
        np.testing.assert_array_equal(inputs[name], value)


def test_threads_share_an_engine(engine: OnnxEngine) -> None:
    batches = [tensors(seed=seed) for seed in range(8)]
    alone = [engine.run(inputs)["update"] for inputs in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda inputs: engine.run(inputs)["update"], batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def changed(**changes: NDArray[Any] | None) -> Tensors:
    merged = {**tensors(), **changes}
    return {name: value for name, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param(changed(step=None), r"got tensors \[.*\], expected \[.*'step'", id="missing"),
        pytest.param(changed(colour=np.zeros(1)), "got tensors .*'colour'", id="unknown"),
        pytest.param(
            changed(time=np.array([-1.0])), "time is float64 .* expected float32", id="dtype"
        ),
        pytest.param(
            changed(condition=np.zeros((1, 3), np.float32)),
            r"condition is float32 \(1, 3\), expected float32 \(1, 40\)",
            id="fixed axis",
        ),
        pytest.param(
            changed(degraded=np.zeros((3, 32, 48), np.float32)),
            r"degraded is float32 \(3, 32, 48\)",
            id="rank",
        ),
        pytest.param(
            changed(state=np.zeros((2, 3, 32, 48), np.float32)), "state is float32", id="batch"
        ),
        pytest.param(
            changed(state=np.zeros((1, 3, 64, 48), np.float32)), "inference failed", id="sizes"
        ),
        pytest.param(tensors(33, 48), "inference failed", id="no multiple"),
    ],
)
def test_tensors_that_do_not_fit(engine: OnnxEngine, inputs: Tensors, message: str) -> None:
    outputs = {"update": np.empty((1, 3, 32, 48), np.float32)}
    with pytest.raises(EngineError, match=message):
        engine.run(inputs)
    with pytest.raises(EngineError, match=message):
        engine.run_into(inputs, outputs)


def read_only() -> NDArray[np.float32]:
    array = np.empty((1, 3, 32, 48), np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        pytest.param({}, r"got tensors \[\], expected \['update'\]", id="missing"),
        pytest.param({"update": np.empty((1, 3, 32, 48))}, "update is float64", id="dtype"),
        pytest.param(
            {"update": np.empty((1, 3, 32, 96), np.float32)[..., ::2]}, "contiguous", id="strided"
        ),
        pytest.param({"update": read_only()}, "writeable", id="read only"),
        pytest.param(
            {"update": np.empty((1, 3, 16, 48), np.float32)}, "inference failed", id="too small"
        ),
    ],
)
def test_outputs_that_do_not_fit(engine: OnnxEngine, outputs: Tensors, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        engine.run_into(tensors(), outputs)


def test_a_failed_run_leaves_the_engine_usable(engine: OnnxEngine) -> None:
    with pytest.raises(EngineError):
        engine.run(tensors(33, 48))
    assert np.isfinite(engine.run(tensors())["update"]).all()


def test_warm_up(engine: OnnxEngine) -> None:
    engine.warm_up(tensors())
    with pytest.raises(EngineError, match="got tensors"):
        engine.warm_up({})


def test_closed(file: Path) -> None:
    engine = OnnxEngine(file, threads=1)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match=r"restorer\.onnx: the engine was closed; load it again"):
        engine.run(tensors())
    with pytest.raises(EngineError, match="closed"):
        engine.run_into(tensors(), {"update": np.empty((1, 3, 32, 48), np.float32)})


@pytest.mark.parametrize("data", [b"", b"not a graph", None])
def test_a_corrupt_graph(file: Path, tmp_path: Path, data: bytes | None) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(file.read_bytes()[:5000] if data is None else data)
    with pytest.raises(EngineError, match=r"broken\.onnx: cannot be loaded by ONNX Runtime"):
        OnnxEngine(broken)


def test_no_such_graph(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"none\.onnx: cannot be loaded"):
        OnnxEngine(tmp_path / "none.onnx")


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_start_at_one(file: Path, threads: int) -> None:
    with pytest.raises(EngineError, match=f"threads is {threads}; expected 1 or more"):
        OnnxEngine(file, threads=threads)
