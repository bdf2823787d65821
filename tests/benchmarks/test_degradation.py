"""The degradation benchmark: like is compared, ratios are of one run, missing things are said."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from rirf.degradation import degrade, fog, rain, shake
from rirf.degradation.philox import Stage, Stream, normals, uniforms

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SIZE = 48


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("degradation_peers")


@pytest.fixture
def timing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("degradation_timing")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("degradation")


def by_numpy(scene: Any) -> np.ndarray[Any, Any]:
    pairs = zip(scene.images, scene.seeds, strict=True)
    made = [degrade(each, seed, recipe=scene.recipe, backend="numpy") for each, seed in pairs]
    return np.stack([one.image for one in made])


def test_all_effects_are_present_and_none_is_extreme(peers: ModuleType) -> None:
    scene = peers.Scene.make(128, 1, 1)
    truth = degrade(scene.images[0], scene.seeds[0], recipe=scene.recipe).diagnosis
    scores = [truth.fog.severity, truth.shake.severity, truth.rain.severity, truth.noise.severity]
    assert all(25.0 < score < 75.0 for score in scores), scores


def test_chains_of_our_model_give_our_picture(peers: ModuleType) -> None:
    torch = pytest.importorskip("torch")
    scene = peers.Scene.make(SIZE, 2, 1)
    expected = by_numpy(scene)
    assert_allclose(peers.NumpyOps().prepare("chain", scene)(), expected, atol=1e-6)

    streak = rain.stamp(scene.recipe.rain)
    field = (1, SIZE + streak.shape[0] - 1, SIZE + streak.shape[1] - 1)
    uniform = [
        uniforms(seed, Stage.RAIN, Stream.FIELD, field[1] * field[2]) for seed in scene.seeds
    ]
    normal = [normals(seed, Stage.NOISE, Stream.FIELD, SIZE * SIZE * 3) for seed in scene.seeds]
    run = peers.TorchEager().chain(scene)
    planar = torch.from_numpy(scene.images).permute(0, 3, 1, 2).contiguous()
    made = run(
        planar,
        uniform=torch.from_numpy(np.stack(uniform).reshape(2, *field)),
        normal=torch.from_numpy(np.stack(normal).reshape(2, SIZE, SIZE, 3)).permute(0, 3, 1, 2),
    )
    assert_allclose(made.permute(0, 2, 3, 1).numpy(), expected, atol=2e-5)
    # Its own random numbers: another picture, as bright on the whole.
    torch.manual_seed(2026)
    drawn = run(planar).permute(0, 2, 3, 1).numpy()
    assert np.abs(drawn - expected).max() > 0.05
    assert_allclose(drawn.mean(), expected.mean(), atol=0.04)


def test_opencv_operations_follow_our_model(peers: ModuleType) -> None:
    scene = peers.Scene.make(SIZE, 1, 1)
    library, recipe, image = peers.OpenCV(), scene.recipe, scene.images[0]
    foggy = fog.apply(
        image, fog.transmission(scene.priors[0], recipe.fog), recipe.atmospheric_light
    )
    assert_allclose(library.prepare("fog, map given", scene)()[0], foggy, atol=1e-5)
    blurred = shake.apply(image, scene.psfs[0])
    assert_allclose(library.prepare("shake", scene)()[0], blurred, atol=1e-5)
    # Its own random numbers: only what they come to on average can be compared.
    cv2.setRNGSeed(2026)
    added = library.prepare("noise", scene)()[0] - image
    assert abs(added.std() / scene.deviation - 1.0) < 0.05
    assert all(abs(added[..., channel].mean()) < 0.02 for channel in range(3))
    streaks = library.prepare("rain", scene)()[0] - image
    assert streaks.min() >= 0.0 and streaks.max() <= recipe.rain.opacity + 1e-6
    assert streaks.max() > 0.1


@pytest.mark.filterwarnings("ignore::DeprecationWarning:imagecorruptions")
@pytest.mark.parametrize("name", ["Native", "Albumentations", "ImageCorruptions", "Kornia"])
def test_every_operation_of_a_library_runs(peers: ModuleType, name: str) -> None:
    try:
        library = getattr(peers, name)()
    except peers.Missing as error:
        pytest.skip(str(error))
    scene = peers.Scene.make(SIZE, 2, 1)
    before = scene.images.copy()
    for operation in library.lacks:
        assert library.prepare(operation, scene)() is not None, operation
    assert np.array_equal(scene.images, before)


def test_native_chain_gives_our_picture(peers: ModuleType) -> None:
    try:
        library = peers.Native()
    except peers.Missing as error:
        pytest.skip(str(error))
    scene = peers.Scene.make(SIZE, 2, 1)
    made, _ = library.prepare("chain", scene)()
    assert_allclose(made, by_numpy(scene), atol=1e-5)


@given(
    rounds=st.lists(
        st.tuples(*[st.floats(1e-4, 10.0)] * 2, st.floats(1e-3, 1e3)), min_size=1, max_size=9
    ),
    more=st.lists(st.floats(1e-4, 10.0), max_size=3),
)
def test_ratio_compares_times_of_one_round_only(
    rounds: list[tuple[float, float, float]], more: list[float]
) -> None:
    sys.path.insert(0, str(FOLDER))
    try:
        ratio = importlib.import_module("degradation_timing").ratio
    finally:
        sys.path.remove(str(FOLDER))
    theirs = [a for a, _, _ in rounds]
    ours = [b for _, b, _ in rounds]
    value = ratio(theirs, ours)
    singles = [a / b for a, b in zip(theirs, ours, strict=True)]
    assert min(singles) <= value <= max(singles)
    # A machine that is slow for a whole round changes nothing, nor do rounds of one side alone.
    loads = [load for _, _, load in rounds]
    slow = [[t * load for t, load in zip(side, loads, strict=True)] for side in (theirs, ours)]
    assert value == pytest.approx(ratio(*slow), rel=1e-9)
    assert value == ratio(theirs, ours + more)


def test_compare_takes_turns_and_says_what_failed(timing: ModuleType) -> None:
    order: list[str] = []

    def called(name: str) -> Any:
        return lambda: order.append(name)

    def fails() -> None:
        raise ValueError("no such argument")

    clock = {"ours": 2.0, "slow": 12.0, "fast": 1.0}

    def timer(call: Any, repeats: int) -> float:
        call()
        return clock[order[-1]]

    given_candidates = [
        timing.Candidate("ours", "a 1", "", called("ours"), 2),
        timing.Candidate("slow", "b 1", "lacks much", called("slow"), 2, 5.0),
        timing.Candidate("fast", "c 1", "", called("fast"), 2, 1.0),
        timing.Candidate("broken", "d 1", "", fails, 2, 1.0),
        timing.Candidate("absent", "", "", None, 2, 1.0, "pip install absent"),
    ]
    ticks: list[str] = []
    rows = timing.compare(given_candidates, 4, timer, ticks.append)
    found = {row["name"]: row for row in rows}
    assert [found[name]["ok"] for name in found] == [None, True, False, None, None]
    assert found["slow"]["ratio"] == 6.0 and found["slow"]["ms"] == 6000.0
    assert found["fast"]["ratio"] == 0.5 and found["ours"]["ratio"] is None
    assert "no such argument" in found["broken"]["note"] and not found["broken"]["measured"]
    assert found["absent"]["note"] == "not measured: pip install absent"
    # A slow peer is timed less often, in the rounds that ours has too.
    assert [found[name]["rounds"] for name in ("ours", "slow", "fast")] == [4, 3, 4]
    assert ticks[:3] == ["ours", "slow", "fast"] and ticks[3:6] == ["slow", "fast", "ours"]


def test_plot_and_table_of_rows_that_are_partly_missing(
    script: ModuleType, timing: ModuleType, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    candidates = [
        timing.Candidate("ours", "a 1", "", lambda: None, 1),
        timing.Candidate("theirs", "b 1", "less", lambda: None, 1, 1.0),
        timing.Candidate("absent", "", "", None, 1, 1.0, "pip install absent"),
    ]
    where = {"group": "fog", "size": "8x8", "threads": 1, "device": "cpu"}
    rows = [
        {**row, **where} for row in timing.compare(candidates, 1, timing.host_timer, lambda _: None)
    ]
    text = script.table(rows)
    assert "fog: theirs: less" in text
    assert text.splitlines()[-2:] == ["not measured: pip install absent", "  fog: absent"]
    script.plot(rows, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_rows_of_one_run(tmp_path: Path) -> None:
    files = tmp_path / "speed.json", tmp_path / "speed.png"
    command = [sys.executable, str(FOLDER / "degradation.py"), "--size", str(SIZE), "--batch", "2"]
    command += ["--rounds", "1", "--threads", "1", "--device", "cpu"]
    command += ["--json", str(files[0]), "--plot", str(files[1]), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode in (0, 1), done.stderr
    line = done.stdout.splitlines()[-1]
    record = json.loads(line)
    assert files[0].read_text(encoding="utf-8").strip() == line
    assert files[1].read_bytes().startswith(b"\x89PNG")

    rows = record["rows"]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    assert groups == [
        "chain, 1 image",
        "chain, batch of 2",
        "fog",
        "fog, map given",
        "shake",
        "rain",
        "noise",
        "degrade()",
        "fog, GPU",
        "noise, GPU",
        "chain, GPU",
    ]
    for group in groups:
        inside = [row for row in rows if row["group"] == group]
        ours = inside[0]["seconds"]
        for row in inside:
            assert row["size"] == f"{SIZE}x{SIZE}" and row["name"] in done.stdout
            assert row["measured"] or row["note"].startswith("not measured: ")
            if row["ratio"] is not None:
                # One round: its ratio is what this row's and our own time of that round come to.
                assert row["ratio"] == pytest.approx(row["seconds"][0] / ours[0])
            if row["target"] is not None and row["ratio"] is not None:
                assert row["ok"] == (row["ratio"] >= row["target"])
            else:
                assert row["ok"] is None
            if row["measured"]:
                assert row["ms"] > 0 and row["threads"] == 1 and row["provider"] != "-"
                assert row["device"] != "-"
    gpu = [row for row in rows if row["group"].endswith("GPU")]
    assert {row["note"] for row in gpu} == {"not measured: --device cpu"}
    by_name = {row["name"]: row for row in rows if row["group"] == groups[0]}
    assert by_name["rirf NumPy"]["target"] == 4.0 and by_name["albumentations"]["target"] == 8.0
    assert by_name["rirf NumPy"]["measured"]

    held = [row["ok"] for row in rows if row["ok"] is not None]
    assert record["targets_measured"] == len(held)
    assert record["ok"] == (bool(held) and all(held))
    assert done.returncode == (0 if record["ok"] else 1)
    if by_name["rirf_kernels"]["measured"]:
        assert held
    else:
        assert "no target was measured" in done.stderr
