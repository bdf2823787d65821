"""Each classical step undoes its effect, knowledge is what its name says, the table is whole."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from rirf.degradation import (
    Degraded,
    FogParameters,
    NoiseParameters,
    RainParameters,
    Recipe,
    ShakeParameters,
    degrade,
)
from rirf.evaluation.metrics import measure
from rirf.evaluation.protocol import truth_map
from rirf.images import read_image, to_float, to_uint8
from tests.sdk.evaluation.synthetic import data_root

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
LIGHT = (0.92, 0.9, 0.86)
FOG = FogParameters(beta=1.5)
SHAKE = ShakeParameters(steps=24, step_px=1.2)
RAIN = RainParameters(density=2e-3, slant_deg=14.0, length_px=30.0, width_px=1.5, opacity=0.7)
NOISE = NoiseParameters(gain=0.1, offset=12.0)

Frame = NDArray[np.uint8]


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("classical_methods")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("classical")


def photo(side: int = 160) -> Frame:
    """A part of the astronaut: skin, edges, dark and bright, fine structure."""
    return np.ascontiguousarray(data.astronaut()[20 : 20 + side, 140 : 140 + side, ::-1])


def degraded(truth: Frame, **effects: Any) -> tuple[Frame, Degraded]:
    recipe = Recipe(atmospheric_light=LIGHT, **effects)
    drawn = degrade(to_float(truth), 7, recipe=recipe, keep_stages=False)
    return to_uint8(drawn.image), drawn


def restored(
    methods: ModuleType, frame: Frame, drawn: Degraded, knowledge: str, denoiser: Any = None
) -> Frame:
    settings = methods.Settings()
    denoiser = denoiser or methods.non_local_means(settings.nlm_strength)
    coarse = truth_map(drawn.transmission)
    out: Frame = methods.restore(frame, knowledge, denoiser, drawn.diagnosis, coarse, settings)
    return out


def gain(frame: Frame, out: Frame, truth: Frame) -> float:
    """By how many decibels the PSNR rose."""
    return measure(out, truth).psnr - measure(frame, truth).psnr


def test_non_local_means_denoises(methods: ModuleType) -> None:
    truth = photo()
    frame, drawn = degraded(truth, noise=NOISE)
    assert gain(frame, restored(methods, frame, drawn, "told"), truth) > 3.0


def test_bm3d_denoises(methods: ModuleType) -> None:
    package = pytest.importorskip("bm3d", reason="not a dependency: for non-commercial use alone")
    truth = photo(64)
    frame, drawn = degraded(truth, noise=NOISE)
    denoiser = methods.bm3d_denoiser(package, 1.0, 1)
    assert gain(frame, restored(methods, frame, drawn, "told", denoiser), truth) > 3.0


@pytest.mark.parametrize("slant_deg", [-25.0, 0.0, 14.0])
def test_derains(methods: ModuleType, slant_deg: float) -> None:
    truth = photo()
    parameters = RainParameters(2e-3, slant_deg, 30.0, 1.5, 0.7)
    frame, drawn = degraded(truth, rain=parameters)
    assert gain(frame, restored(methods, frame, drawn, "told"), truth) > 2.0
    settings = methods.Settings()
    blind = methods.derain(
        to_float(frame),
        slant_deg=methods.rain_slant(to_float(frame)),
        reach_px=round(settings.blind_reach_px),
        run_px=settings.blind_run_px,
        rank=settings.blind_rank,
    )
    assert gain(frame, to_uint8(blind), truth) > 1.5


def test_derain_needs_the_right_slant(methods: ModuleType) -> None:
    truth = photo()
    frame, _ = degraded(truth, rain=RAIN)

    def by(slant_deg: float) -> float:
        out = methods.derain(
            to_float(frame), slant_deg=slant_deg, reach_px=9, run_px=8.0, rank=0.35
        )
        return measure(to_uint8(out), truth).psnr

    assert by(RAIN.slant_deg) > by(-RAIN.slant_deg) + 0.5


def test_deblurs(methods: ModuleType) -> None:
    """A little when told direction and length, much more when told the kernel itself."""
    truth = photo()
    frame, drawn = degraded(truth, shake=SHAKE)
    told = gain(frame, restored(methods, frame, drawn, "told"), truth)
    assert drawn.psf is not None
    exact = gain(frame, to_uint8(methods.deblur(to_float(frame), drawn.psf, 0.005)), truth)
    assert 0.1 < told < exact
    assert exact > 2.0


def test_dehazes(methods: ModuleType) -> None:
    """More with the true light and mean, most with the true map."""
    truth = photo()
    frame, drawn = degraded(truth, fog=FOG)
    settings = methods.Settings()
    image = to_float(frame)
    light = methods.atmospheric_light(image, settings.patch_px)
    t = methods.transmission(image, light, settings.blind_omega, settings)
    blind = gain(frame, to_uint8(methods.dehaze(image, light, t)), truth)
    told = gain(frame, restored(methods, frame, drawn, "told"), truth)
    mapped = gain(frame, restored(methods, frame, drawn, "told-map"), truth)
    assert 0.5 < blind < told < mapped


def test_told_transmission_has_the_diagnosed_mean(methods: ModuleType) -> None:
    t = np.linspace(0.1, 0.9, 400, dtype=np.float32).reshape(20, 20)
    for mean in (0.25, 0.5, 0.8):
        assert methods._with_mean(t, mean).mean() == pytest.approx(mean, abs=1e-3)


def test_estimates(methods: ModuleType) -> None:
    truth = photo()
    flat = NoiseParameters(gain=0.0, offset=15.0)
    noisy, _ = degraded(truth, noise=flat)
    assert methods.noise_level(to_float(noisy)) * 255.0 == pytest.approx(15.0, rel=0.2)
    assert methods.noise_level(np.zeros((20, 20, 3), np.float32)) == 0.0
    rainy, _ = degraded(truth, rain=RAIN)
    assert methods.rain_slant(to_float(rainy)) == pytest.approx(RAIN.slant_deg, abs=5.0)
    foggy, _ = degraded(truth, fog=FogParameters(beta=3.0))
    light = methods.atmospheric_light(to_float(foggy), 7)
    np.testing.assert_allclose(light, LIGHT, atol=0.1)


def test_guided_filter(methods: ModuleType) -> None:
    guide = to_float(photo(48)).mean(axis=2)
    constant = np.full_like(guide, 0.4)
    np.testing.assert_allclose(methods.guided_filter(guide, constant, 5, 1e-3), 0.4, atol=1e-5)
    # A linear function of the guide is kept as it is when nothing is regularised ...
    linear = 0.3 * guide + 0.2
    np.testing.assert_allclose(methods.guided_filter(guide, linear, 5, 1e-9), linear, atol=1e-2)
    # ... and with a heavy regularisation the result is a mean of means.
    window = np.ones((11, 11), np.float32) / 121.0
    twice = cv2.filter2D(cv2.filter2D(guide, -1, window), -1, window)
    np.testing.assert_allclose(methods.guided_filter(guide, guide, 5, 1e6), twice, atol=1e-4)


def test_dark_channel(methods: ModuleType) -> None:
    image = np.full((20, 20, 3), 0.8, dtype=np.float32)
    image[10, 4, 1] = 0.1
    dark = methods.dark_channel(image, 2)
    assert dark.shape == (20, 20)
    assert (dark[8:13, 2:7] == np.float32(0.1)).all()
    assert np.count_nonzero(dark < 0.8) == 25


@pytest.mark.parametrize("shape", [(16, 16), (61, 47), (40, 90)])
@pytest.mark.parametrize("level", [0, 255])
def test_keeps_size_and_type(methods: ModuleType, shape: tuple[int, int], level: int) -> None:
    """Any frame, black and white ones too, comes back as one of its size."""
    truth = cv2.resize(photo(), shape[::-1])
    _, drawn = degraded(np.asarray(truth, np.uint8), fog=FOG, shake=SHAKE, rain=RAIN, noise=NOISE)
    for frame in (to_uint8(drawn.image), np.full((*shape, 3), level, np.uint8)):
        for knowledge in methods.KNOWLEDGE:
            out = restored(methods, frame, drawn, knowledge)
            assert out.dtype == np.uint8 and out.shape == (*shape, 3)


def test_knowledge(methods: ModuleType) -> None:
    truth = photo(96)
    frame, drawn = degraded(truth, fog=FOG, rain=RAIN)
    _, nothing = degraded(truth)
    # Told that nothing is there, nothing is done.
    np.testing.assert_array_equal(restored(methods, frame, nothing, "told"), frame)
    # Blind looks at no truth: another one changes nothing.
    np.testing.assert_array_equal(
        restored(methods, frame, nothing, "blind"), restored(methods, frame, drawn, "blind")
    )
    assert not np.array_equal(
        restored(methods, frame, drawn, "told"), restored(methods, frame, drawn, "told-map")
    )


def test_table_and_record(
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "bm3d", None)  # as where it is not installed
    root = data_root(tmp_path / "data", photographs=4, streets=3)
    record_file, sheet_file = tmp_path / "classical.json", tmp_path / "sheet.png"
    before = cv2.getNumThreads()
    outputs = ["--json", str(record_file), "--sheet", str(sheet_file), "--sheet-cases", "2"]
    script.main(["--data", str(root), "--limit", "6", *outputs])
    assert cv2.getNumThreads() == before
    printed = capsys.readouterr().out.splitlines()
    record = json.loads(printed[-1])
    assert record["images"] == 6 and record["available"] == 7 and record["protocol"] == "v1"
    rows = {row["method"]: row for row in record["rows"]}
    assert list(rows) == ["input", *script.METHODS]
    assert [line.split()[0] for line in printed[1:-1]] == list(rows)
    for name in script.METHODS:
        missing = name.endswith("bm3d")
        assert ("not_measured" in rows[name]) is missing
        assert missing or rows[name]["milliseconds"] > 0.0
    assert "pip install bm3d" in next(line for line in printed if "told-bm3d" in line)
    # What is known is worth something, and more knowledge more.
    assert rows["input"]["psnr"] < rows["classical-told-nlm"]["psnr"]
    assert rows["classical-told-nlm"]["psnr"] < rows["classical-told-map-nlm"]["psnr"]

    whole = json.loads(record_file.read_text())
    assert {key: whole[key] for key in record} == record
    cases = whole["cases"]
    assert len(cases) == 6
    for name in ("input", "classical-blind-nlm"):
        mean = np.mean([case[name]["psnr"] for case in cases])
        assert rows[name]["psnr"] == pytest.approx(mean, abs=1e-3)
        foggy = [case[name]["psnr"] for case in cases if case["severities"]["fog"] > 0.0]
        fog = rows[name]["per_degradation"]["fog"]
        assert fog["images"] == len(foggy) > 0
        assert fog["psnr"] == pytest.approx(np.mean(foggy), abs=1e-3)
    # Two lines of five pictures: degraded, three methods, clean.
    height, width = read_image(sheet_file).shape[:2]
    assert height % 2 == 0 and width % 5 == 0 and width > 2 * height


def test_input_is_that_of_the_protocol(script: ModuleType, tmp_path: Path) -> None:
    from rirf.evaluation.protocol import draw, load_protocol

    protocol = load_protocol(data_root(tmp_path / "data", photographs=1, streets=1))
    for case in protocol.cases:
        sample = draw(case)
        row = script.row_of(case, [], script.Settings())
        assert row.figures == {"input": measure(sample.frame, sample.truth)}


def test_training_split(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training images have draws of their own, and a setting changes a figure."""
    root = data_root(tmp_path / "data", photographs=2, streets=2)
    for name in ("bsds500", "camvid"):
        (root / name / "test").rename(root / name / "train")
    (root / "camvid/labels/test").rename(root / "camvid/labels/train")

    def run(*options: str) -> dict[str, Any]:
        method = ["--methods", "classical-told-nlm"]
        script.main(["--data", str(root), "--split", "train", "--limit", "4", *method, *options])
        record: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return record

    usual, other = run(), run("--set", "told_omega=0.1", "--set", "nlm_strength=0.01")
    assert usual["protocol"] == "train" and usual["images"] == 4
    assert usual["rows"][0] == other["rows"][0]
    assert usual["rows"][1]["psnr"] > other["rows"][1]["psnr"]
    assert other["settings"]["told_omega"] == 0.1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--set", "omega=1"], "told_omega"),
        (["--set", "patch_px=wide"], "expected int"),
        (["--sheet", "sheet.txt"], ".png"),
        (["--json", "no/such/folder/file.json"], "does not exist"),
        (["--limit", "1"], "at least 2"),
        (["--threads", "0"], "at least 1"),
    ],
)
def test_refusals(
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    expected: str,
) -> None:
    with pytest.raises(SystemExit) as refusal:
        script.main(["--data", str(tmp_path), *options])
    assert refusal.value.code != 0
    assert expected in capsys.readouterr().err + str(refusal.value.code)
