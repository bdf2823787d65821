"""Real builds with TensorRT-RTX, and what is refused before one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rirf.bundle import Bundle
from rirf.engine import TensorSpec
from rirf.engine.tensorrt import Library, Profile, build_engine, profiles_for
from rirf.engine.tensorrt.build import _monitor, check_profiles
from rirf.errors import EngineError, OutputError
from tests.sdk.engine.tensorrt import graphs

TINY = {"x": Profile((1, 64, 16, 16), (1, 64, 32, 32), (1, 64, 64, 64))}
AXES = {"height": (64, 512, 1024), "width": (64, 512, 1024)}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return graphs.fp32(tmp_path / "tiny.onnx")


@pytest.mark.parametrize("kind", ["reasoner", "restorer"])
def test_the_shipped_bundle_builds(rtx: Library, shipped: Path, kind: str) -> None:
    bundle = Bundle.open(shipped, verify=False)
    graph = getattr(bundle.manifest, kind)
    file = bundle.path(graph)
    profiles = profiles_for(graph.inputs, AXES)
    multiple = bundle.manifest.restorer.multiple
    plan = build_engine(file, rtx, profiles, multiple=multiple)
    # An engine holds the weights: 4 bytes each in fp32.
    assert len(plan) > 4 * graph.parameters
    assert len(profiles) == (3 if kind == "restorer" else 0)


def test_precision_is_the_graphs(rtx: Library, tmp_path: Path, tiny: Path) -> None:
    sizes = {
        make.__name__: len(build_engine(make(tmp_path / "x.onnx"), rtx, TINY))
        for make in (graphs.fp32, graphs.fp16)
    }
    weights = graphs.CHANNELS**2 * 9
    assert sizes["fp32"] - sizes["fp16"] >= 2 * weights


def test_symmetric_int8_builds(rtx: Library, tmp_path: Path) -> None:
    assert build_engine(graphs.int8(tmp_path / "x.onnx"), rtx, TINY)


def test_turing_must_be_asked_for(rtx: Library, tiny: Path) -> None:
    assert build_engine(tiny, rtx, TINY, architecture="sm75")
    with pytest.raises(EngineError, match=r"'sm87'; .* expects sm80\+ or sm75"):
        build_engine(tiny, rtx, TINY, architecture="sm87")


# What the parser refuses


def node(kind: str, **options: Any) -> Any:
    return helper.make_node(kind, ["x"], ["y"], **options)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("Det", name="det0")], r"node det0 \(Det\): UNSUPPORTED_NODE.*export the graph with"),
        ([node("Det")], r"node number 0 \(Det\)"),
        (
            [node("Fancy", name="f0", domain="ai.rirf")],
            r"node f0 \(Fancy\).*no such operator.*ONNX Runtime",
        ),
        (
            [
                helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
                helper.make_node("Add", ["x", "h"], ["y"], name="sum0"),
            ],
            r"node sum0 \(Add\).*same input types.*Float and Half.*a Cast makes them so",
        ),
    ],
)
def test_refused_nodes_are_named(
    rtx: Library, tmp_path: Path, nodes: list[Any], expected: str
) -> None:
    frame = graphs.FRAME
    made = helper.make_graph(
        nodes,
        "broken",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, frame)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, frame)],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    file = tmp_path / "broken.onnx"
    onnx.save(model, file)
    with pytest.raises(EngineError, match=expected):
        build_engine(file, rtx, TINY)


def test_zero_points_are_refused_by_node(rtx: Library, tmp_path: Path) -> None:
    model = onnx.load(graphs.int8(tmp_path / "x.onnx"))
    for tensor in model.graph.initializer:
        if tensor.name == "xz":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(3, np.int8), "xz"))
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(EngineError, match=r"\(QuantizeLinear\).*zero"):
        build_engine(tmp_path / "x.onnx", rtx, TINY)


@pytest.mark.parametrize("keep", [0, 1, 200, 20_000])
def test_torn_graphs_are_refused(rtx: Library, tiny: Path, keep: int) -> None:
    tiny.write_bytes(tiny.read_bytes()[:keep])
    with pytest.raises(EngineError, match="not a whole ONNX graph; copy the file or export"):
        build_engine(tiny, rtx, TINY)


def test_a_missing_graph_is_refused(rtx: Library, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such file"):
        build_engine(tmp_path / "nothing.onnx", rtx, TINY)


# Profiles


def spec(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype="float32")


INPUTS = (spec("image", 1, 3, "height", "width"), spec("map", 1, 1, "height", "width"))


def square(channels: int, *sides: int) -> Profile:
    return Profile(*((1, channels, side, side) for side in sides))


def test_profiles_follow_named_axes() -> None:
    profiles = profiles_for(
        (*INPUTS, spec("time", 1)), {"height": (16, 32, 64), "width": (8, 8, 8)}
    )
    assert profiles == {
        "image": ((1, 3, 16, 8), (1, 3, 32, 8), (1, 3, 64, 8)),
        "map": ((1, 1, 16, 8), (1, 1, 32, 8), (1, 1, 64, 8)),
    }
    check_profiles((*INPUTS, spec("time", 1)), profiles, 8)
    with pytest.raises(EngineError, match=r"image .* axes width, got sizes of height"):
        profiles_for(INPUTS, {"height": (16, 32, 64)})


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        ({"image": square(3, 64, 32, 128)}, "image, axis 2: got min 64, opt 32, max 128"),
        ({"image": square(3, 32, 128, 64)}, "got min 32, opt 128, max 64; expected 1 <= min"),
        ({"image": square(3, 0, 32, 64)}, "got min 0"),
        ({"image": square(3, 32, 40, 64)}, "got 40, expected a multiple of 16; 48 is the next"),
        ({"image": square(4, 32, 48, 64)}, "axis 1: got .* expected 3, which the graph fixes"),
        ({"image": square(3, 32, 48, 64)}, r"map \(1, 1, .* is dynamic and has no profile"),
        (
            {"image": square(3, 32, 48, 64), "map": square(1, 16, 48, 64)},
            "map, axis 2: .* input image has .* on the same axis 'height'",
        ),
        ({"photo": square(3, 32, 48, 64)}, "got profiles of photo, the graph has .* image, map"),
        ({"image": Profile((3, 32), (3, 48), (3, 64))}, "expected 4 axes like"),
    ],
)
def test_contradictory_profiles_are_refused(profiles: dict[str, Profile], expected: str) -> None:
    with pytest.raises(EngineError, match=expected):
        check_profiles(INPUTS, profiles, 16)


def test_refused_before_the_build(rtx: Library, tiny: Path) -> None:
    told: list[str] = []
    wrong = {"x": Profile((1, 64, 16, 16), (1, 64, 8, 8), (1, 64, 64, 64))}
    for profiles, multiple in ((wrong, 1), ({}, 1), (TINY, 32), (TINY, 0)):
        with pytest.raises(EngineError):
            build_engine(
                tiny, rtx, profiles, multiple=multiple, progress=lambda *step: told.append(step[0])
            )
    assert told == []


# Progress


def test_progress_tells_every_phase_from_start_to_end(rtx: Library, tiny: Path) -> None:
    told: list[tuple[str, int, int]] = []
    build_engine(tiny, rtx, TINY, progress=lambda *step: told.append(step))
    first, last = told[0], told[-1]
    assert first[0] == last[0]
    assert (first[1], last[1]) == (0, last[2])
    running: dict[str, int] = {}
    for phase, done, steps in told:
        assert done == 0 if phase not in running else done > running[phase]
        running[phase] = done
        if done == steps:
            del running[phase]
    assert running == {}


@pytest.mark.parametrize("failure", [ValueError("enough"), KeyboardInterrupt()])
def test_a_failing_progress_stops_the_build(
    rtx: Library, tiny: Path, failure: BaseException
) -> None:
    told: list[str] = []

    def stop(phase: str, done: int, steps: int) -> None:
        told.append(phase)
        raise failure

    with pytest.raises(type(failure)):
        build_engine(tiny, rtx, TINY, progress=stop)
    assert len(told) == 1
    assert build_engine(tiny, rtx, TINY)


def test_the_library_is_asked_to_stop(rtx: Library) -> None:
    def stop(phase: str, done: int, steps: int) -> None:
        if done == 2:
            raise ValueError("enough")

    monitor = _monitor(rtx, stop)
    monitor.phase_start("phase", None, 4)
    assert [monitor.step_complete("phase", step) for step in range(3)] == [True, False, False]


def test_bars_are_shown_on_a_terminal_alone(
    rtx: Library,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build_engine(tiny, rtx, TINY)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    build_engine(tiny, rtx, TINY)
    shown = capsys.readouterr().err
    assert "Building engine:   0%" in shown
    assert "Building engine: 100%" in shown


# Workspace and timing cache


def test_too_small_a_workspace_is_said(rtx: Library, tiny: Path) -> None:
    assert build_engine(tiny, rtx, TINY, workspace=1 << 26)
    with pytest.raises(EngineError, match=r"cannot build it: .*; raise the workspace limit"):
        build_engine(tiny, rtx, TINY, workspace=1)
    with pytest.raises(EngineError, match="workspace is 0 bytes"):
        build_engine(tiny, rtx, TINY, workspace=0)


def test_the_timing_cache_is_written_and_read(
    as_tensorrt: Library, tiny: Path, tmp_path: Path
) -> None:
    times = tmp_path / "times.bin"
    build_engine(tiny, as_tensorrt, TINY, timing_cache=times)
    first = times.read_bytes()
    assert first
    build_engine(tiny, as_tensorrt, TINY, timing_cache=times)
    assert times.read_bytes()[:8] == first[:8]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system nobody can write")
def test_a_timing_cache_that_cannot_be_kept_is_refused_before_the_build(
    as_tensorrt: Library, tiny: Path, tmp_path: Path
) -> None:
    def refuse(*step: object) -> None:
        raise AssertionError("a build was started")

    with pytest.raises(OutputError, match="cannot be used"):
        build_engine(
            tiny, as_tensorrt, TINY, timing_cache=Path("/proc/self/times.bin"), progress=refuse
        )
    with pytest.raises(EngineError, match="timing cache cannot be read"):
        build_engine(tiny, as_tensorrt, TINY, timing_cache=tmp_path, progress=refuse)


def test_options_of_the_other_flavour_are_refused(
    rtx: Library, as_tensorrt: Library, tiny: Path, tmp_path: Path
) -> None:
    refused: list[Callable[[], bytes]] = [
        lambda: build_engine(tiny, rtx, TINY, timing_cache=tmp_path / "times.bin"),
        lambda: build_engine(tiny, as_tensorrt, TINY, architecture="sm75"),
    ]
    for build in refused:
        with pytest.raises(EngineError, match=r"leave it out|builds for the GPU it finds"):
            build()
    assert not (tmp_path / "times.bin").exists()


def test_the_librarys_words_go_to_logging_not_to_the_screen(
    rtx: Library,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = graphs.save(tmp_path / "x.onnx", [node("Det")])
    with caplog.at_level(logging.INFO, "rirf.engine.tensorrt"), pytest.raises(EngineError):
        build_engine(file, rtx, TINY)
    assert any("Det" in record.getMessage() for record in caplog.records)
    assert capfd.readouterr() == ("", "")
