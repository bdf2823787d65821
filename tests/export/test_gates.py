from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rirf
from rirf.bundle import MANIFEST, SHIPPED, Bundle, file_digest
from rirf.errors import EngineError, RirfError
from rirf.evaluation import Figures, evaluate, load_protocol
from rirf.images import read_image
from rirf.pipeline import Pipeline
from rirf_export.gates import (
    FP16_MAX_LOSS_DB,
    FP16_MIN_AGREEMENT,
    FP16_PARITY_MIN_DB,
    GATE_IMAGES,
    INT8_MAX_LOSS_DB,
    INT8_MIN_AGREEMENT,
    LIMITS,
    GateError,
    GateReport,
    GateRow,
    Lowered,
    emulated,
    parity_gate,
    quality_gate,
)
from rirf_export.graphs import export_onnx
from rirf_export.precision import (
    Feeds,
    calibrate,
    degraded_frames,
    record,
    sensitivity,
    to_fp16,
    to_int8,
)
from rirf_training.networks import Reasoner, Restorer, load_network
from tests.networks import tiny_reasoner, tiny_restorer
from tests.sdk.evaluation.synthetic import data_root

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("reasoner", "restorer")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_root(tmp_path_factory.mktemp("data"), photographs=2, streets=2)


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Iterator[Pipeline]:
    with rirf.load(tiny_bundle, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def samples(pipeline: Pipeline, data: Path) -> dict[str, list[Feeds]]:
    recordings = list(record(pipeline, degraded_frames(data / "bsds500/test", 2)))
    return {kind: [feeds for each in recordings for feeds in each.of(kind)] for kind in KINDS}


def rebuilt(source: Path, target: Path, graphs: dict[str, Path], precision: str) -> Path:
    """A copy of a bundle with some of its graphs replaced."""
    shutil.copytree(source, target)
    manifest = json.loads((target / MANIFEST).read_text())
    for kind, file in graphs.items():
        name = manifest[kind]["file"]
        shutil.copyfile(file, target / name)
        manifest[kind]["precision"] = precision
        manifest["files"][name] = file_digest(file)
    (target / MANIFEST).write_text(json.dumps(manifest))
    return Bundle.open(target).folder


@pytest.fixture(scope="module")
def fp16_bundle(
    tiny_bundle: Path,
    samples: dict[str, list[Feeds]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("fp16")
    for kind in KINDS:
        to_fp16(tiny_bundle / f"{kind}.onnx", folder / f"{kind}.onnx", samples[kind], threads=1)
    graphs = {kind: folder / f"{kind}.onnx" for kind in KINDS}
    return rebuilt(tiny_bundle, folder / "tiny.rirf", graphs, "fp16")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Graphs of networks with other weights."""
    folder = tmp_path_factory.mktemp("strangers")
    restorer = tiny_restorer(seed=3)
    with torch.no_grad():
        restorer.head.weight.mul_(3.0)
    networks = {"reasoner": tiny_reasoner(seed=3), "restorer": restorer}
    for kind, network in networks.items():
        export_onnx(network, folder / f"{kind}.onnx", {})
    return {kind: folder / f"{kind}.onnx" for kind in networks}


def network_of(checkpoints: Path, kind: str) -> Reasoner | Restorer:
    return load_network(checkpoints / kind)[0]


def test_the_limits_are_the_ones_promised() -> None:
    assert (FP16_MAX_LOSS_DB, INT8_MAX_LOSS_DB) == (0.05, 0.25)
    assert (FP16_MIN_AGREEMENT, INT8_MIN_AGREEMENT) == (0.99, 0.97)
    assert GATE_IMAGES == 60


@pytest.mark.parametrize("kind", KINDS)
def test_fp16_is_held_against_torch(
    fp16_bundle: Path, tiny_checkpoints: Path, samples: dict[str, list[Feeds]], kind: str
) -> None:
    network = network_of(tiny_checkpoints, kind)
    with emulated(fp16_bundle, threads=1) as candidate:
        engine = candidate.reasoner if kind == "reasoner" else candidate.restorer
        found = parity_gate(network, engine, samples[kind], "fp16")
        assert set(found) == {spec.name for spec in engine.outputs}
        # Fp16 it is: fp32 graphs lie beyond 100 dB.
        assert FP16_PARITY_MIN_DB <= min(found.values()) < 85.0
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.02)
        message = rf"the fp16 {kind} differs from torch: .* dB; expected at least 45 dB"
        with pytest.raises(GateError, match=message):
            parity_gate(network, engine, samples[kind], "fp16")


def test_parity_needs_a_sample(pipeline: Pipeline, tiny_checkpoints: Path) -> None:
    with pytest.raises(EngineError, match="got no sample"):
        parity_gate(network_of(tiny_checkpoints, "restorer"), pipeline.restorer, [], "int8")


def test_emulated_fp16_rounds(
    tiny_bundle: Path, fp16_bundle: Path, samples: dict[str, list[Feeds]]
) -> None:
    (feeds, *_) = samples["restorer"]
    with rirf.load(tiny_bundle, threads=1) as fp32, emulated(fp16_bundle, threads=1) as fp16:
        exact, rounded = fp32.restorer.run(feeds)["update"], fp16.restorer.run(feeds)["update"]
    np.testing.assert_array_equal(rounded, rounded.astype(np.float16))
    assert 1e-5 < np.abs(rounded - exact).max() < 1e-2


def test_a_pair_that_is_as_good_passes(
    pipeline: Pipeline, fp16_bundle: Path, data: Path, tmp_path: Path
) -> None:
    rejects = tmp_path / "rejects"
    with emulated(fp16_bundle, threads=1) as candidate:
        report = quality_gate(
            pipeline, candidate, data, precision="fp16", rejects=rejects, images=4
        )
    assert report.passed
    assert not rejects.exists()
    assert abs(report.loss_db) <= FP16_MAX_LOSS_DB
    assert report.agreement == 1.0
    # Four effects, in the degraded and in the clean frame.
    assert [row.flags for row in report.rows] == [8, 8, 8, 8]
    assert report.to_dict()["images"] == 4
    assert any(row.reference != row.candidate for row in report.rows), "it is another network"


def test_the_reference_is_what_evaluate_calls_predicted(
    pipeline: Pipeline, data: Path, tmp_path: Path
) -> None:
    report = quality_gate(
        pipeline, pipeline, data, precision="int8", rejects=tmp_path / "rejects", images=4
    )
    evaluation = evaluate(pipeline, load_protocol(data, limit=4))
    assert [row.name for row in report.rows] == [row.case.name for row in evaluation.rows]
    assert [row.reference for row in report.rows] == [
        row.figures["predicted"] for row in evaluation.rows
    ]
    assert (report.loss_db, report.agreement) == (0.0, 1.0)
    assert all(row.same_mode for row in report.rows)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("restorer", r"loses \d+\.\d+ dB on 4 images \(at most 0.25"), ("reasoner", "agrees on")],
)
def test_a_worse_pair_is_refused_and_shown(
    pipeline: Pipeline,
    tiny_bundle: Path,
    strangers: dict[str, Path],
    data: Path,
    tmp_path: Path,
    kind: str,
    message: str,
) -> None:
    graphs = {kind: strangers[kind]}
    other = rebuilt(tiny_bundle, tmp_path / "other.rirf", graphs, "int8")
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    rejects = tmp_path / "deep" / "rejects"
    with rirf.load(other, threads=1) as candidate, pytest.raises(GateError, match=message) as error:
        quality_gate(pipeline, candidate, data, precision="int8", rejects=rejects, images=4)
    report = error.value.report
    assert report is not None
    assert not report.passed
    assert error.value.folder == rejects
    if kind == "restorer":
        assert report.loss_db > INT8_MAX_LOSS_DB
        assert report.agreement == 1.0
    else:
        assert report.agreement < INT8_MIN_AGREEMENT
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before
    record = json.loads((rejects / "report.json").read_text())
    assert record["passed"] is False
    assert len(record["rows"]) == 4
    worst = max(report.rows, key=lambda row: row.loss_db)
    picture = read_image(rejects / f"{worst.name.replace('/', '-')}.png")
    frame = read_image(data / worst.name.replace("/", "/test/"))
    height, width = frame.shape[:2]
    # Two lines of text, and three frames side by side.
    assert picture.shape[1] == 3 * width
    assert picture.shape[0] - height == 60
    panels = np.split(picture[60:], 3, axis=1)
    if kind == "restorer":
        assert np.abs(panels[1].astype(int) - panels[2]).mean() > 0.1
    assert (picture[:60] < 128).any(), "there is text above"


def test_data_that_is_not_there_is_an_error(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(RirfError, match="does not exist"):
        quality_gate(
            pipeline, pipeline, tmp_path / "no", precision="fp16", rejects=tmp_path / "rejects"
        )
    assert not (tmp_path / "rejects").exists()


@settings(deadline=None)  # a busy machine may take its time
@given(
    st.lists(
        st.tuples(st.floats(5, 60), st.floats(-3, 3), st.integers(0, 8)), min_size=1, max_size=9
    ),
    st.sampled_from(["fp16", "int8"]),
)
def test_a_report_passes_within_both_limits_alone(
    found: list[tuple[float, float, int]], precision: Lowered
) -> None:
    rows = tuple(
        GateRow(str(number), Figures(psnr, 0.5), Figures(psnr - loss, 0.5), agreeing, 8, True)
        for number, (psnr, loss, agreeing) in enumerate(found)
    )
    report = GateReport(precision, LIMITS[precision], rows)
    assert report.loss_db == pytest.approx(np.mean([loss for _, loss, _ in found]), abs=1e-9)
    assert report.agreement == sum(agreeing for *_, agreeing in found) / (8 * len(found))
    limits = LIMITS[precision]
    good = report.loss_db <= limits.loss_db and report.agreement >= limits.agreement
    assert report.passed == good


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_figures_that_are_no_numbers_do_not_pass(broken: float) -> None:
    rows = (GateRow("a", Figures(20.0, 0.5), Figures(-broken, 0.5), 8, 8, True),)
    assert not GateReport("int8", LIMITS["int8"], rows).passed


def test_the_shipped_pair_in_int8_on_the_real_sets(tmp_path: Path) -> None:
    root = Path(os.environ.get("RIRF_DATA", ROOT.parent / "shared" / "data"))
    if not (root / "camvid").is_dir():
        pytest.skip("needs the real test sets: set RIRF_DATA to their folder")
    with rirf.load(SHIPPED, threads=1) as pipeline:
        frames = list(degraded_frames(root / "bsds500" / "train", 6, side=192))
        ranges = calibrate(pipeline, frames, threads=1)["restorer"]
        seen = [feeds for each in record(pipeline, frames[:1]) for feeds in each.restorer]
        source, target = SHIPPED / "restorer.onnx", tmp_path / "restorer.onnx"
        keep = sensitivity(source, ranges, seen, threads=1)[:3]
        to_int8(source, target, ranges, seen, keep=keep, threads=1)
        bundle = rebuilt(SHIPPED, tmp_path / "edge.rirf", {"restorer": target}, "int8")
        with emulated(bundle, threads=1) as candidate:
            report = quality_gate(
                pipeline,
                candidate,
                root,
                precision="int8",
                rejects=tmp_path / "rejects",
                images=2,
            )
    assert report.agreement == 1.0, "the reasoner is the same"
    assert 0.0 < abs(report.loss_db) <= INT8_MAX_LOSS_DB
