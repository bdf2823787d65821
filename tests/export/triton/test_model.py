"""The model that chains the graphs, as the repository holds it, in a stand-in for the server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rirf
from rirf.bundle import Bundle
from rirf.degradation import degrade
from rirf.errors import BundleError, EngineError
from rirf.images import to_float, to_uint8
from rirf.restorer import TILE
from rirf_export.triton import write_repository
from tests.export.triton.server import PythonModel, Server, ServerError, listening
from tests.sdk.pictures import load, photo, save

DOCS = Path(__file__).resolve().parents[3] / "docs" / "triton.md"


@pytest.fixture(scope="module")
def server(repository: Path) -> Server:
    return Server(repository)


@pytest.fixture(scope="module")
def served(server: Server) -> Iterator[PythonModel]:
    with server.started("rirf") as model:
        yield model


@pytest.fixture(scope="module")
def pipeline(shipped: Path) -> Iterator[rirf.Pipeline]:
    with rirf.load(shipped, threads=1) as loaded:
        yield loaded


def degraded(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    return to_uint8(degrade(to_float(photo(height, width, seed)), seed=seed).image)


def same(served: PythonModel, pipeline: rirf.Pipeline, frame: NDArray[np.uint8]) -> rirf.Result:
    """Compare the server's answer with the SDK's, bit for bit, and return the latter."""
    expected = pipeline(frame)
    answer = served(frame=frame)
    np.testing.assert_array_equal(answer["restored"], expected.image)
    (text,) = answer["diagnosis"]
    assert expected.diagnosis is not None
    assert rirf.Diagnosis.from_json(text.decode()) == expected.diagnosis
    assert text.decode() == expected.diagnosis.to_json()
    return expected


@pytest.mark.parametrize(
    ("height", "width", "seed"), [(96, 128, 6), (61, 93, 2), (16, 16, 3), (270, 300, 4)]
)
def test_answers_are_the_sdks(
    served: PythonModel, pipeline: rirf.Pipeline, height: int, width: int, seed: int
) -> None:
    frame = degraded(height, width, seed)
    result = same(served, pipeline, frame)
    assert result.steps == "coarse"
    assert np.abs(result.image.astype(int) - frame).mean() > 1


def test_a_frame_of_several_tiles(
    served: PythonModel, server: Server, pipeline: rirf.Pipeline
) -> None:
    server.requests.clear()
    same(served, pipeline, degraded(32, TILE + 100, 6))
    assert server.requests == ["rirf_reasoner", "rirf_restorer", "rirf_restorer"]


def test_the_policy_decides(shipped: Path, tmp_path: Path, pipeline: rirf.Pipeline) -> None:
    """A bypassed frame never reaches the restorer."""
    repository = write_repository(Bundle.open(shipped), tmp_path / "models")
    manifest = repository / "rirf/1/manifest.json"
    data = json.loads(manifest.read_text())
    data["policy"] = {"bypass_below": 1e6, "ladder": [{"above": 0.0, "mode": "coarse"}]}
    manifest.write_text(json.dumps(data))
    server, frame = Server(repository), degraded(64, 96, 6)
    with server.started("rirf") as model:
        answer = model(frame=frame)
    np.testing.assert_array_equal(answer["restored"], frame)
    assert server.requests == ["rirf_reasoner"]
    assert pipeline(frame).steps == "coarse"


def test_a_schedule_of_several_steps(tiny_bundle: Path, tmp_path: Path) -> None:
    """Updates are added up in place, which the server's own memory would not allow."""
    steps = Path(shutil.copytree(tiny_bundle, tmp_path / "steps.rirf"))
    data = json.loads((steps / "manifest.json").read_text())
    data["restorer"]["schedules"]["2"] = [[-1.0, 1.0], [0.0, 0.5], [0.5, 0.5]]
    data["policy"] = {"bypass_below": 0.0, "ladder": [{"above": 0.0, "mode": "2"}]}
    (steps / "manifest.json").write_text(json.dumps(data))
    server = Server(write_repository(Bundle.open(steps), tmp_path / "models"))
    with rirf.load(steps, threads=1) as pipeline, server.started("rirf") as model:
        assert same(model, pipeline, degraded(48, 64, 6)).steps == "2"
    assert server.requests == ["rirf_reasoner", *["rirf_restorer"] * 3]


def test_a_frame_that_is_too_small_is_the_clients_error(served: PythonModel) -> None:
    with pytest.raises(ServerError, match="16"):
        served(frame=photo(15, 40))
    with pytest.raises(ServerError, match="inputs of rirf: 'frame' is float32"):
        served(frame=to_float(photo(32, 32)))


def test_a_graph_that_is_gone_is_an_error_of_this_frame(repository: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(repository, tmp_path / "models"))
    shutil.rmtree(copy / "rirf_restorer")
    with (
        Server(copy).started("rirf") as model,
        pytest.raises(ServerError, match="rirf_restorer: unknown model 'rirf_restorer'"),
    ):
        model(frame=degraded(64, 96, 6))


def test_a_manifest_of_another_rirf_does_not_start(repository: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(repository, tmp_path / "models"))
    (copy / "rirf/1/manifest.json").write_text('{"schema_version": 99}')
    with (
        pytest.raises(BundleError, match="schema_version 99, this rirf reads 1"),
        Server(copy).started("rirf"),
    ):
        pass


@pytest.fixture
def engine(served: PythonModel) -> Any:
    """The restorer's engine, as the served pipeline has it."""
    return served.model._pipeline.restorer


def tensors(height: int = 32, width: int = 48) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    shapes = {
        "degraded": (1, 3, height, width),
        "state": (1, 3, height, width),
        "transmission": (1, 1, height, width),
        "condition": (1, 40),
        "time": (1,),
        "step": (1,),
    }
    return {name: random.random(shape, dtype=np.float32) for name, shape in shapes.items()}


def test_the_engine_is_an_engine(engine: Any, pipeline: rirf.Pipeline) -> None:
    assert engine.inputs == pipeline.restorer.inputs
    assert engine.outputs == pipeline.restorer.outputs
    assert engine.device == "Triton model rirf_restorer"
    inputs = tensors()
    inputs["degraded"] = inputs["degraded"][..., ::-1]  # not contiguous
    expected = pipeline.restorer.run(inputs)["update"]
    got = engine.run(inputs)["update"]
    np.testing.assert_array_equal(got, expected)
    assert got.flags.writeable
    into = np.zeros_like(expected)
    engine.run_into(inputs, {"update": into})
    np.testing.assert_array_equal(into, expected)
    engine.warm_up(inputs)


def test_tensors_that_do_not_fit(engine: Any) -> None:
    inputs = tensors()
    with pytest.raises(EngineError, match=r"rirf_restorer: inputs of .*: got \['condition'"):
        engine.run({name: inputs[name] for name in inputs if name != "time"})
    with pytest.raises(EngineError, match="'time' is float64"):
        engine.run(inputs | {"time": np.zeros(1)})
    with pytest.raises(EngineError, match=r"output update is none, expected float32 \(1, 3, 32"):
        engine.run_into(inputs, {})
    with pytest.raises(EngineError, match="output other is float32"):
        engine.run_into(
            inputs, {"update": np.zeros_like(inputs["state"]), "other": np.zeros(1, "f")}
        )
    with pytest.raises(EngineError, match=r"output update is float32 \(1, 1, 32, 48\), expected"):
        engine.run_into(inputs, {"update": np.zeros_like(inputs["transmission"])})


def test_a_closed_engine_does_not_run(server: Server) -> None:
    with server.started("rirf") as model:
        engine = model.model._pipeline.restorer
    with pytest.raises(EngineError, match="rirf_restorer: the engine was closed"):
        engine.run(tensors())


def test_the_documented_client(
    served: PythonModel,
    pipeline: rirf.Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The client in docs/triton.md, word for word but for the address, over gRPC."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert code.count("localhost:8001") == 1
    monkeypatch.chdir(tmp_path)
    frame = load(save(tmp_path / "foggy.jpg", degraded(96, 128, 6)))
    with listening("rirf", served) as address:
        exec(code.replace("localhost:8001", address), {})
    expected = pipeline(frame)
    assert expected.diagnosis is not None
    np.testing.assert_array_equal(load(tmp_path / "restored.png"), expected.image)
    shown = capsys.readouterr().out
    assert shown == f"{expected.diagnosis.scene} {expected.diagnosis.fog.severity}\n"


def test_what_the_server_imports_needs_no_onnxruntime(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not here')\n")
    code = "from rirf import Bundle, Pipeline; from rirf.engine import TensorSpec; print('fine')"
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "fine\n"
