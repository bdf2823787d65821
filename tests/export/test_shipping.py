from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import rirf
from rirf.bundle import Bundle
from rirf.cli import main
from rirf.errors import EngineError, OutputError
from rirf.shapes import parse_shapes
from rirf.signing import generate_keys
from rirf_export import gates
from rirf_export.gates import GateError, Limits
from rirf_export.plan import Plan, PlanError
from rirf_export.shipping import Product, Request, ranges_file, ship
from tests.sdk.evaluation.synthetic import data_root
from tests.sdk.pictures import files_below, photo

SHAPES = "32x32:64x64:128x96"


def request(
    checkpoints: Path, out: Path, precisions: str = "fp32", targets: str = "onnx"
) -> Request:
    plan = Plan.of(out, precisions, targets, SHAPES)
    return Request(checkpoints / "reasoner", checkpoints / "restorer", plan, gate_images=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test pictures of both sets, and the same ones to calibrate on."""
    root = data_root(tmp_path_factory.mktemp("data"), photographs=1, streets=1)
    for test in root.glob("*/test"):
        shutil.copytree(test, test.with_name("val"))
    return root


@pytest.fixture(scope="module")
def lowered(
    tiny_checkpoints: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Product]]:
    """A folder with the tiny pair in every precision, and what was said of them."""
    folder = tmp_path_factory.mktemp("lowered")
    asked = request(tiny_checkpoints, folder / "tiny.rirf", "fp32,fp16,int8", "tensorrt-rtx")
    asked = dataclasses.replace(asked, data=data, sensitivity=folder / "layers.json")
    return folder, ship(asked, progress=False)


def test_every_precision_is_a_bundle_of_its_own(lowered: tuple[Path, list[Product]]) -> None:
    folder, _ = lowered
    frame = photo(64, 80)
    with rirf.load(folder / "tiny.rirf", threads=1) as pipeline:
        expected = pipeline(frame, steps="coarse").image.astype(float)
    for precision in ("fp16", "int8"):
        bundle = Bundle.open(folder / f"tiny-{precision}.rirf")
        assert bundle.manifest.name == f"tiny-{precision}"
        for graph in (bundle.manifest.reasoner, bundle.manifest.restorer):
            assert graph.precision == precision
        with rirf.load(bundle.folder, threads=1) as pipeline:
            got = pipeline(frame, steps="coarse").image.astype(float)
        assert np.abs(got - expected).mean() < 4.0


def test_the_graphs_hold_their_precision(lowered: tuple[Path, list[Product]]) -> None:
    folder, _ = lowered
    half, integer = (
        onnx.load(folder / f"tiny-{precision}.rirf" / "restorer.onnx")
        for precision in ("fp16", "int8")
    )
    kinds = {tensor.data_type for tensor in half.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert any(node.op_type == "QuantizeLinear" for node in integer.graph.node)


def test_what_was_measured_is_in_manifest_card_and_table(
    lowered: tuple[Path, list[Product]],
) -> None:
    folder, products = lowered
    manifest = Bundle.open(folder / "tiny-int8.rirf").manifest
    told = manifest.provenance["precision"]["int8"]
    assert told["gate"]["passed"] and told["gate"]["images"] == 2
    assert told["restorer"]["layers"] > 0
    assert min(told["parity_db"]["restorer"].values()) >= gates.INT8_PARITY_MIN_DB
    card = (folder / "tiny-int8.rirf" / "MODEL_CARD.md").read_text()
    assert "This pair computes in int8" in card
    assert f"loses {told['gate']['loss_db']:.3f} dB" in card
    graphs = [each for each in products if each.target == "onnx"]
    assert [(each.precision, each.graph) for each in graphs] == [
        (precision, kind)
        for precision in ("fp32", "fp16", "int8")
        for kind in ("reasoner", "restorer")
    ]
    for each in graphs:
        assert each.size == (each.bundle / f"{each.graph}.onnx").stat().st_size
        assert each.latency_ms is not None and each.latency_ms > 0
        assert (each.loss_db is None) == (each.precision == "fp32")


def test_engines_of_every_precision_are_built(lowered: tuple[Path, list[Product]]) -> None:
    folder, products = lowered
    built = [each for each in products if each.target == "tensorrt-rtx"]
    assert len(built) == 6
    for each in built:
        found = list((each.bundle / "cache").glob(f"{each.graph}-{each.precision}-*.engine"))
        assert [engine.stat().st_size for engine in found] == [each.size]
        key = json.loads(found[0].with_name(found[0].name + ".json").read_text())["key"]
        if each.graph == "restorer":
            (low, best, high) = key["profiles"]["degraded"]
            assert [low[2:], best[2:], high[2:]] == [[32, 32], [64, 64], [96, 128]]
    Bundle.open(folder / "tiny-fp16.rirf")  # a cache is no part of a bundle


def test_layers_are_reported_the_most_sensitive_first(lowered: tuple[Path, list[Product]]) -> None:
    folder, _ = lowered
    report = json.loads((folder / "layers.json").read_text())
    assert set(report) == {"reasoner", "restorer"}
    for rows in report.values():
        costs = [row["decibels"] for row in rows]
        assert costs == sorted(costs)


def test_calibration_is_used_again_and_fallback_spares_the_worst_layers(
    lowered: tuple[Path, list[Product]], tiny_checkpoints: Path, data: Path, tmp_path: Path
) -> None:
    before, after = lowered[0] / "tiny-int8.rirf", tmp_path / "tiny-int8.rirf"
    asked = request(tiny_checkpoints, tmp_path / "tiny.rirf", "int8")
    asked = dataclasses.replace(asked, data=data, ranges=before, fallback=2)
    ship(asked, progress=False)
    told = Bundle.open(after).manifest.provenance["precision"]["int8"]
    report = json.loads((lowered[0] / "layers.json").read_text())
    for kind, rows in report.items():
        assert ranges_file(after, kind).read_bytes() == ranges_file(before, kind).read_bytes()
        assert set(told[kind]["kept_fp32"]) == {row["layer"] for row in rows[:2]}


def test_a_gate_that_fails_ships_nothing(
    tiny_checkpoints: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "tiny.rirf"
    ship(request(tiny_checkpoints, old), progress=False)
    before = {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)}
    strict = Limits(parity_db=0.0, loss_db=-100.0, agreement=0.0)
    monkeypatch.setitem(gates.LIMITS, "int8", strict)
    asked = request(tiny_checkpoints, old, "fp32,int8")
    with pytest.raises(GateError, match="nothing was shipped; its worst images"):
        ship(dataclasses.replace(asked, data=data, force=True), progress=False)
    rejected = tmp_path / "tiny-int8.rejected"
    assert list(rejected.glob("*.png"))
    assert not (tmp_path / "tiny-int8.rirf").exists()
    after = {name: (tmp_path / name).read_bytes() for name in before}
    assert after == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [rejected.name, old.name]


def test_signed_and_served(tiny_checkpoints: Path, tmp_path: Path) -> None:
    public = generate_keys(tmp_path / "maker.key")
    asked = request(tiny_checkpoints, tmp_path / "tiny.rirf")
    asked = dataclasses.replace(asked, sign=tmp_path / "maker.key", triton=tmp_path / "models")
    ship(asked, progress=False)
    assert Bundle.open(tmp_path / "tiny.rirf", trusted=public).manifest.name == "tiny"
    assert (tmp_path / "models" / "rirf" / "config.pbtxt").is_file()


def test_requests_that_contradict_themselves(tiny_checkpoints: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.rirf"
    with pytest.raises(PlanError, match=r"fp16, int8 must pass a quality gate.*give --data"):
        ship(request(tiny_checkpoints, out, "fp32,int8,fp16"), progress=False)
    for change, option in (({"fallback": 1}, "--fallback"), ({"ranges": tmp_path}, "--ranges")):
        asked = dataclasses.replace(request(tiny_checkpoints, out), **change)
        with pytest.raises(PlanError, match=f"{option} is of INT8"):
            ship(asked, progress=False)
    (tmp_path / "tiny-fp16.rirf").mkdir()
    asked = dataclasses.replace(request(tiny_checkpoints, out, "fp16"), data=tmp_path)
    with pytest.raises(OutputError, match=r"tiny-fp16\.rirf exists; give another -o"):
        ship(asked, progress=False)
    asked = dataclasses.replace(asked, force=True)
    with pytest.raises(PlanError, match="no folder SET/val"):
        ship(asked, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-fp16.rirf"]


def test_shapes_the_network_cannot_take(tiny_checkpoints: Path, tmp_path: Path) -> None:
    asked = request(tiny_checkpoints, tmp_path / "tiny.rirf", targets="tensorrt-rtx")
    plan = dataclasses.replace(asked.plan, shapes=parse_shapes("33x32:64x64:128x128"))
    with pytest.raises(EngineError, match="multiple of"):
        ship(dataclasses.replace(asked, plan=plan), progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_plan_and_table(
    tiny_checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [str(tiny_checkpoints / kind) for kind in ("reasoner", "restorer")]
    out = tmp_path / "tiny.rirf"
    options = ["--targets", "tensorrt-rtx", "--shapes", SHAPES]
    assert main(["export", *pair, "-o", str(out), *options]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("plan:\n")
    assert f"tensorrt-rtx engines for {SHAPES}" in printed
    table = [line.split() for line in printed.splitlines() if line.startswith(("onnx", "tensorrt"))]
    assert [row[:3] for row in table] == [
        [target, kind, "fp32"]
        for target in ("onnx", "tensorrt-rtx")
        for kind in ("reasoner", "restorer")
    ]
    assert main(["export", *pair, "-o", str(out), "--force", "--precision", "int4"]) == 1
    assert "--precision int4: got int4; expected one or more of" in capsys.readouterr().err
