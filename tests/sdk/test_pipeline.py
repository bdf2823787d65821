from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

import rirf
from rirf.bundle import MANIFEST
from rirf.consistency import assess
from rirf.degradation import degrade
from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.errors import BundleError, EngineError, ImageError, MissingExtraError
from rirf.images import to_float, to_uint8
from rirf.pipeline import Pipeline, Result
from rirf.policy import Mode
from rirf.reasoner import Reading
from tests.sdk.pictures import photo
from tests.sdk.test_diagnosis import example

pytestmark = pytest.mark.lean

DIAGNOSIS = Diagnosis.model_validate(example())


@pytest.fixture(scope="module")
def pipeline(shipped: Path) -> Iterator[Pipeline]:
    with rirf.load(shipped, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def frame() -> NDArray[np.uint8]:
    """A frame with fog, shake, rain and noise."""
    return to_uint8(degrade(to_float(photo(80, 112)), seed=6).image)


def same(one: Result, other: Result) -> None:
    np.testing.assert_array_equal(one.image, other.image)
    assert one.diagnosis == other.diagnosis
    assert one.steps == other.steps


def clean_bill() -> Diagnosis:
    """A diagnosis that finds nothing and is sure of it."""
    data = example()
    for name in EFFECTS:
        nothing = {"present": False, "probability": 0.01, "severity": 0.0, "interval": [0.0, 2.0]}
        data[name].update(nothing)
    return Diagnosis.model_validate(data)


def test_consistency_is_checked_on_request(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    assert pipeline(frame).consistency is None
    assert pipeline.restore(frame, Reading(DIAGNOSIS)).consistency is None
    result = pipeline(frame, steps="coarse", consistency=True)
    same(result, pipeline(frame, steps="coarse"))
    reading = Reading(result.diagnosis, result.transmission)
    assert result.consistency == assess(frame, result.image, reading)
    assert (
        result.consistency
        == pipeline.restore(frame, reading, steps="coarse", consistency=True).consistency
    )
    mirrored = pipeline(frame[..., ::-1], color="rgb", steps="coarse", consistency=True)
    assert mirrored.consistency == result.consistency
    assert set(result.timings) == {"views", "reasoner", "restorer", "consistency", "total"}
    total = result.timings["total"]
    assert sum(result.timings.values()) - total <= total
    again: Result = pickle.loads(pickle.dumps(result))
    same(again, result)
    assert again.consistency == result.consistency


def test_consistency_of_a_frame_left_alone(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    untouched = pipeline(frame, diagnosis=clean_bill(), steps="bypass", consistency=True)
    assert untouched.consistency is not None
    assert untouched.consistency.residual == pytest.approx(0.0, abs=1e-6)
    assert untouched.consistency.consistent
    # Left alone although the diagnosis says fog: fogged once more it is another frame.
    foggy = pipeline(frame, diagnosis=DIAGNOSIS, steps="bypass", consistency=True)
    assert foggy.consistency is not None and not foggy.consistency.consistent


def test_a_wrong_diagnosis_is_less_consistent(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    done = degrade(to_float(photo(80, 112)), seed=6)
    right = pipeline.restore(
        frame, Reading(done.diagnosis, done.transmission), steps="coarse", consistency=True
    )
    without = pipeline.restore(frame, Reading(), steps="coarse", consistency=True)
    assert right.consistency is not None and without.consistency is not None
    assert right.consistency.discrepancy < 0.3 * without.consistency.discrepancy


def test_the_bundle_that_ships_is_the_default(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    with rirf.load(threads=1) as default:
        assert default.bundle.folder == pipeline.bundle.folder
        same(default(frame), pipeline(frame))


def test_result(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    before = frame.copy()
    result = pipeline(frame, steps="coarse")
    assert result.image.shape == frame.shape
    assert result.image.dtype == np.uint8
    assert result.image.flags.c_contiguous
    assert np.abs(result.image.astype(int) - frame).mean() > 1  # something was done
    assert result.steps == "coarse"
    assert result.diagnosis is not None
    assert result.diagnosis.source == "edge"
    assert result.transmission is not None
    assert result.transmission.shape == frame.shape[:2]
    assert result.transmission.dtype == np.float32
    assert 0 < result.transmission.min() <= result.transmission.max() <= 1
    np.testing.assert_array_equal(frame, before)


def test_timings(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    timings = pipeline(frame).timings
    assert set(timings) == {"views", "reasoner", "restorer", "total"}
    assert all(seconds > 0 for seconds in timings.values())
    total = timings.pop("total")
    assert sum(timings.values()) <= total
    given = pipeline(frame, diagnosis=DIAGNOSIS).timings
    assert set(given) == {"restorer", "total"}


def test_the_same_frame_gives_the_same_result(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    same(pipeline(frame), pipeline(frame))


@pytest.mark.parametrize("steps", ["auto", "coarse", "bypass"])
def test_rgb_equals_bgr(pipeline: Pipeline, frame: NDArray[np.uint8], steps: Any) -> None:
    bgr = pipeline(frame, steps=steps)
    rgb = pipeline(np.ascontiguousarray(frame[..., ::-1]), color="rgb", steps=steps)
    np.testing.assert_array_equal(rgb.image[..., ::-1], bgr.image)
    assert rgb.diagnosis == bgr.diagnosis
    assert rgb.steps == bgr.steps


def test_color_counts(pipeline: Pipeline) -> None:
    frame = photo(64, 64)
    frame[..., 0] = 240
    assert pipeline.read(frame).diagnosis != pipeline.read(frame, color="rgb").diagnosis


def test_an_unknown_color(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError, match="color is 'grey'; expected 'bgr' or 'rgb'"):
        pipeline(frame, color="grey")  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 33), (95, 300), (31, 400)])
def test_any_size(pipeline: Pipeline, height: int, width: int) -> None:
    result = pipeline(photo(height, width), steps="coarse")
    assert result.image.shape == (height, width, 3)
    assert result.transmission is not None
    assert result.transmission.shape == (height, width)


def test_views_of_larger_arrays(pipeline: Pipeline) -> None:
    large = photo(128, 160)
    for view in (large[::2, 1::2], large[:, ::-1], large[20:90, 30:100]):
        same(pipeline(view, steps="coarse"), pipeline(view.copy(), steps="coarse"))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(None, id="nothing"),
        pytest.param([[0]], id="list"),
        pytest.param(np.zeros((64, 64), np.uint8), id="grey"),
        pytest.param(np.zeros((64, 64, 4), np.uint8), id="alpha"),
        pytest.param(np.zeros((64, 64, 3), np.float32), id="float"),
        pytest.param(np.zeros((64, 64, 3), np.uint16), id="16 bits"),
        pytest.param(np.zeros((15, 64, 3), np.uint8), id="small"),
        pytest.param(np.zeros((0, 64, 3), np.uint8), id="empty"),
        pytest.param(np.zeros((1, 64, 64, 3), np.uint8), id="batch"),
    ],
)
def test_bad_frames(pipeline: Pipeline, bad: Any) -> None:
    for call in (pipeline, pipeline.diagnose, pipeline.read):
        with pytest.raises(ImageError, match="expected a frame, uint8 BGR"):
            call(bad)
    with pytest.raises(ImageError, match="expected a frame"):
        pipeline.restore(bad, Reading())


def test_diagnose_and_read_agree_with_the_call(
    pipeline: Pipeline, frame: NDArray[np.uint8]
) -> None:
    result = pipeline(frame)
    assert pipeline.diagnose(frame) == result.diagnosis
    reading = pipeline.read(frame)
    assert reading.diagnosis == result.diagnosis
    same(pipeline.restore(frame, reading), result)


def test_a_given_diagnosis_is_used(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    result = pipeline(frame, diagnosis=DIAGNOSIS)
    assert result.diagnosis == DIAGNOSIS
    assert result.transmission is not None
    np.testing.assert_allclose(result.transmission, DIAGNOSIS.fog.transmission_mean, atol=1e-6)
    other = pipeline(frame, diagnosis=clean_bill(), steps=result.steps)
    assert not np.array_equal(result.image, other.image)


def test_a_given_transmission_is_used(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    coarse = np.linspace(0.2, 0.9, 12, dtype=np.float32).reshape(3, 4)
    result = pipeline(frame, diagnosis=DIAGNOSIS, transmission=coarse, steps="coarse")
    assert result.transmission is not None
    assert result.transmission.shape == frame.shape[:2]
    corners = result.transmission[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(corners, coarse[[0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-6)
    flat = pipeline(frame, diagnosis=DIAGNOSIS, steps="coarse")
    assert not np.array_equal(result.image, flat.image)
    full = pipeline(frame, diagnosis=DIAGNOSIS, transmission=result.transmission, steps="coarse")
    same(full, result)


def test_transmission_alone_is_refused(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError, match="comes with a diagnosis: give both or neither"):
        pipeline(frame, transmission=np.ones((4, 4), dtype=np.float32))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(np.ones((4, 4)), id="float64"),
        pytest.param(np.ones((4, 4, 1), np.float32), id="channels"),
        pytest.param(np.ones(4, np.float32), id="one axis"),
        pytest.param(np.ones((0, 4), np.float32), id="empty"),
        pytest.param(np.zeros((4, 4), np.float32), id="zero"),
        pytest.param(np.full((4, 4), -0.1, np.float32), id="negative"),
        pytest.param(np.full((4, 4), 1.01, np.float32), id="above one"),
        pytest.param(np.full((4, 4), np.nan, np.float32), id="not a number"),
        pytest.param(np.full((4, 4), 255, np.uint8), id="bytes"),
    ],
)
def test_bad_transmission(pipeline: Pipeline, frame: NDArray[np.uint8], bad: Any) -> None:
    with pytest.raises(ImageError, match=r"transmission is .*; expected float32 \(h, w\)"):
        pipeline(frame, diagnosis=DIAGNOSIS, transmission=bad)
    with pytest.raises(ImageError, match="transmission is"):
        pipeline.restore(frame, Reading(DIAGNOSIS, bad))


def test_without_any_diagnosis(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    result = pipeline.restore(frame, Reading())
    assert result.diagnosis is None
    np.testing.assert_array_equal(result.transmission, np.ones(frame.shape[:2], np.float32))
    assert result.steps == pipeline.bundle.manifest.policy.choose(None)
    assert not np.array_equal(result.image, pipeline(frame, steps="coarse").image)


@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_bypass_returns_an_identical_copy(
    pipeline: Pipeline, frame: NDArray[np.uint8], color: Any
) -> None:
    result = pipeline(frame, steps="bypass", color=color)
    assert result.steps == "bypass"
    assert result.diagnosis is not None
    np.testing.assert_array_equal(result.image, frame)
    assert not np.shares_memory(result.image, frame)


def test_a_clean_bill_bypasses(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    result = pipeline(frame, diagnosis=clean_bill())
    assert result.steps == "bypass"
    np.testing.assert_array_equal(result.image, frame)


def test_auto_follows_the_policy(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    policy = pipeline.bundle.manifest.policy
    assert pipeline(frame, diagnosis=DIAGNOSIS).steps == policy.choose(DIAGNOSIS)


def test_every_mode_of_the_bundle_runs(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    for mode in pipeline.bundle.manifest.restorer.schedules:
        assert pipeline(frame, steps=mode).steps == mode
        if mode.isdigit():
            number: Any = int(mode)
            same(pipeline(frame, steps=number), pipeline(frame, steps=mode))


def test_steps_the_bundle_lacks(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    offered = pipeline.bundle.manifest.restorer.schedules
    absent = [mode for mode in get_args(Mode) if mode != "bypass" and mode not in offered]
    for steps in (*absent, 3, "fine", "", None, 0):
        message = f"steps={steps!r} is not in this bundle; expected auto, bypass, .*coarse"
        with pytest.raises(EngineError, match=message):
            pipeline(frame, steps=steps)


def test_threads_share_a_pipeline(pipeline: Pipeline) -> None:
    frames = [
        to_uint8(degrade(to_float(photo(64 + 8 * n, 80, seed=n)), seed=n).image) for n in range(6)
    ]
    alone = [pipeline(each, steps="coarse") for each in frames]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda each: pipeline(each, steps="coarse"), frames))
    for one, other in zip(alone, together, strict=True):
        same(one, other)


def test_warm_up_changes_nothing(pipeline: Pipeline, frame: NDArray[np.uint8]) -> None:
    before = pipeline(frame)
    pipeline.warm_up(48, 64)
    same(pipeline(frame), before)


def test_closed(shipped: Path, frame: NDArray[np.uint8]) -> None:
    with rirf.load(shipped, threads=1) as pipeline:
        pipeline(frame)
    for call in (pipeline, pipeline.diagnose):
        with pytest.raises(EngineError, match="closed; load it again"):
            call(frame)
    with pytest.raises(EngineError, match="closed"):
        pipeline.restore(frame, Reading(DIAGNOSIS), steps="coarse")
    pipeline.close()


def test_a_failure_inside_the_context_closes_too(shipped: Path, frame: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError), rirf.load(shipped, threads=1) as pipeline:
        pipeline(frame[..., 0])
    with pytest.raises(EngineError, match="closed"):
        pipeline(frame)


def test_a_damaged_bundle_is_not_loaded(shipped: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shipped, tmp_path / "copy.rirf"))
    with (folder / "restorer.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"restorer\.onnx: SHA-256"):
        rirf.load(folder)


@pytest.mark.parametrize("key", ["dtype", "name", "shape"])
def test_tables_must_be_the_graphs(shipped: Path, tmp_path: Path, key: str) -> None:
    folder = Path(shutil.copytree(shipped, tmp_path / "copy.rirf"))
    manifest = json.loads((folder / MANIFEST).read_text())
    other = {"dtype": "float16", "name": "image", "shape": [1, 3]}
    manifest["restorer"]["inputs"][0][key] = other[key]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"restorer\.onnx: its tensors are .*, the manifest says"):
        rirf.load(folder)


def test_strict_refuses_a_provider_that_does_not_work(shipped: Path) -> None:
    with pytest.raises(EngineError, match="NowhereExecutionProvider does not work here"):
        rirf.load(shipped, providers=["NowhereExecutionProvider"], strict=True)


def test_a_backend_that_there_is_not(shipped: Path) -> None:
    with pytest.raises(EngineError, match="expected one of onnxruntime, tensorrt, tensorrt-rtx"):
        rirf.load(shipped, backend="openvino")  # type: ignore[arg-type]  # what is under test


@pytest.mark.parametrize("option", [{"threads": 1}, {"providers": ["CPUExecutionProvider"]}])
def test_options_of_another_backend_are_not_ignored(shipped: Path, option: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="ONNX Runtime's; leave them out"):
        rirf.load(shipped, backend="tensorrt-rtx", **option)


def test_tensorrt_without_what_it_needs_names_the_extra(shipped: Path) -> None:
    if find_spec("tensorrt") is not None and find_spec("pycuda") is not None:
        pytest.skip("TensorRT and pycuda are installed here")
    with pytest.raises(MissingExtraError, match=r"pip install 'rirf\[tensorrt\]'"):
        rirf.load(shipped, backend="tensorrt")
