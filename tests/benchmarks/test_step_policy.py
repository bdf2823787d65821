"""The step policy's fits against brute force, and the whole script on a tiny pair with a bridge."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

import rirf
from rirf.bundle import Bundle
from rirf.diagnosis import EFFECTS
from rirf.errors import ImageError, RirfError
from rirf.evaluation.metrics import Figures, measure
from rirf.policy import FittedPolicy
from rirf_export.bundling import export_bundle
from rirf_training.data import DrawSet, find_clean, render
from rirf_training.networks import save_network
from tests.networks import tiny_restorer
from tests.sdk.pictures import photo, save

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
PICTURES, DRAWS = 4, 6
MODES = ("coarse", "1", "2", "4")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("step_policy")


@pytest.fixture(scope="module")
def draws(tmp_path_factory: pytest.TempPathFactory) -> DrawSet:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "set" / "val").mkdir(parents=True)
    for number in range(PICTURES):
        save(folder / "set" / "val" / f"{number}.png", photo(48, 64, seed=number))
    root = tmp_path_factory.mktemp("draws")
    return render(root, find_clean(folder, ("val",)), DRAWS, workers=1, progress=False)


@pytest.fixture(scope="module")
def bundle(tiny_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bridged")
    save_network(folder / "restorer", tiny_restorer(), {"run": {"bridge": {"share": 0.5}}})
    return export_bundle(
        tiny_checkpoints / "reasoner", folder / "restorer", folder / "b.rirf", progress=False
    ).folder


def array(*values: float) -> Any:
    return np.array(values, dtype=np.float64)


# Burdens and gains of five degraded frames: below 4 restoring loses on average.
BURDENS, GAINS = array(1, 2, 3, 5, 9), array(-2, 1, -3, 4, 8)


def test_bypass_lies_where_restoring_stops_losing(script: ModuleType) -> None:
    found = script.fit_bypass(array(0.5, 0.6), BURDENS, GAINS, wanted=1.0, allowed=0.0)
    assert 3.0 < found.below <= 5.0
    assert found.clean == 1.0 and found.degraded == pytest.approx(0.6)
    assert found.loss == pytest.approx(-4 / 5) and found.loss_each == pytest.approx(-4 / 3)


def test_bypass_rises_for_clean_frames_as_far_as_allowed(script: ModuleType) -> None:
    clean = array(0.5, 6.0, 7.0, 20.0)
    # 5 must be crossed for 6 and 7: that costs no more than the harm that was spared.
    found = script.fit_bypass(clean, BURDENS, GAINS, wanted=0.75, allowed=0.0)
    assert 7.0 < found.below <= 9.0 and found.clean == 0.75 and found.loss == pytest.approx(0.0)
    # No further than wanted, though it would cost nothing.
    found = script.fit_bypass(clean, BURDENS, GAINS, wanted=0.5, allowed=9.0)
    assert 6.0 < found.below <= 7.0
    # The last one would cost more.
    more = np.append(BURDENS, 30.0), np.append(GAINS, 1.0)
    found = script.fit_bypass(clean, *more, wanted=1.0, allowed=1.3)
    assert found.clean == 0.75
    found = script.fit_bypass(clean, *more, wanted=1.0, allowed=1.4)
    assert 20.0 < found.below <= 30.0 and found.clean == 1.0 and found.loss == pytest.approx(8 / 6)
    # Nor is there a threshold that leaves every frame alone, whatever is allowed.
    found = script.fit_bypass(clean, BURDENS, GAINS, wanted=1.0, allowed=9.0)
    assert found.clean == 0.75 and found.below <= 9.0


def test_bypass_is_nothing_where_everything_gains(script: ModuleType) -> None:
    found = script.fit_bypass(array(3.0), array(1, 2), array(5, 5), wanted=1.0, allowed=0.1)
    assert found.clean == found.degraded == found.loss == 0.0 and found.loss_each is None
    assert found.below <= 1.0
    with pytest.raises(RirfError, match="no frame was measured"):
        script.fit_bypass(array(), array(), array())


def test_each_half_is_judged_by_the_other(script: ModuleType) -> None:
    # Even images: clean at 1; odd ones: clean at 3. Degraded ones at 2 and 4 gain 1 dB in both.
    images = [0, 0, 0, 1, 1, 1]
    degraded = np.array([False, True, True] * 2)
    burdens, gains = array(1, 2, 4, 3, 2, 4), array(0, 1, 1, 0, 1, 1)
    found = script.crossed_bypass(images, degraded, burdens, gains, wanted=1.0, allowed=0.0)
    # 1.5 from the even half leaves nothing of the odd one alone; that half allows no threshold.
    assert found == {"clean_bypassed": 0.0, "degraded_bypassed": 0.0, "loss_db": 0.0}
    # Where loss is allowed, the odd half's 3.5 leaves the even one's clean frame alone, and one of
    # its two degraded ones.
    free = script.crossed_bypass(images, degraded, burdens, gains, wanted=1.0, allowed=9.0)
    assert free == {"clean_bypassed": 0.5, "degraded_bypassed": 0.25, "loss_db": 0.25}
    assert script.crossed_bypass([0, 2], degraded[:2], burdens[:2], gains[:2]) is None


def brute_force(
    totals: Any, psnr: dict[str, Any], time: dict[str, float], minimum: float, fewest: int
) -> float:
    """The largest sum over all ways to cut the frames into stretches of rising modes."""
    order = np.argsort(totals)
    burdens, count, modes = totals[order], len(totals), list(psnr)
    best = -np.inf
    for cuts in itertools.combinations_with_replacement(range(count + 1), len(modes) - 1):
        ends = (0, *cuts, count)
        if any(0 < b - a < fewest for a, b in itertools.pairwise(ends)):
            continue
        if any(0 < cut < count and burdens[cut] == burdens[cut - 1] for cut in cuts):
            continue
        best = max(
            best,
            sum(
                (psnr[mode][order][a:b] - minimum * time[mode]).sum()
                for mode, (a, b) in zip(modes, itertools.pairwise(ends), strict=True)
            ),
        )
    return best


@pytest.mark.parametrize("seed", range(12))
def test_ladder_is_the_best_of_all(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(script, "RUNG_SHARE_MIN", 0.2)
    random = np.random.default_rng(seed)
    count = 14
    totals = random.integers(0, 9, count).astype(float)
    psnr = {mode: 20.0 + random.normal(size=count) for mode in MODES}
    time = {"coarse": 50.0, "1": 100.0, "2": 150.0, "4": 250.0}
    minimum = float(random.choice([0.0, 1e-3, 1e-2]))
    ladder = script.fit_ladder(totals, psnr, time, minimum=minimum)
    chosen = [script.rung_of(ladder, total) for total in totals]
    value = sum(psnr[mode][i] - minimum * time[mode] for i, mode in enumerate(chosen))
    assert value == pytest.approx(brute_force(totals, psnr, time, minimum, 3))
    # A policy as it is, its modes rising, each rung met by frames enough.
    FittedPolicy.model_validate({"bypass_below": 0.0, "ladder": ladder, "provenance": {}})
    places = [MODES.index(rung["mode"]) for rung in ladder]
    assert places == sorted(set(places))
    assert all(chosen.count(rung["mode"]) >= 3 for rung in ladder)


def test_a_mode_is_used_where_it_earns_its_milliseconds(script: ModuleType) -> None:
    totals = np.arange(100, dtype=np.float64)
    base = np.full(100, 20.0)
    # "1" adds 0.01 dB a point; "2" adds a little everywhere, but too little for its time.
    psnr = {"coarse": base, "1": base + 0.01 * totals, "2": base + 0.01 * totals + 0.02}
    time = {"coarse": 50.0, "1": 100.0, "2": 150.0}
    ladder = script.fit_ladder(totals, psnr, time, minimum=0.01)  # 0.5 dB for 50 ms
    assert [rung["mode"] for rung in ladder] == ["coarse", "1"]
    assert ladder[0]["above"] == 0.0 and ladder[1]["above"] == pytest.approx(50.0, abs=1.1)
    # At no price everything that gains is used, and nothing that only costs.
    assert [r["mode"] for r in script.fit_ladder(totals, psnr, time, minimum=0.0)] == ["2"]
    assert [r["mode"] for r in script.fit_ladder(totals, psnr, time, minimum=1.0)] == ["coarse"]
    one = script.fit_ladder(totals, {"coarse": base}, time)
    assert one == [{"above": 0.0, "mode": "coarse"}]


def outcome(script: ModuleType, image: int, degraded: bool, total: float, **psnr: float) -> Any:
    figures = {name: Figures(value, value / 100) for name, value in psnr.items()}
    return script.Outcome(
        image=image,
        degraded=degraded,
        summaries=dict.fromkeys(script.SUMMARIES, total),
        figures=figures,
        milliseconds={"coarse": 40.0, "one": 90.0},
    )


def test_the_record_says_what_each_mode_is_worth(script: ModuleType) -> None:
    outcomes = [
        outcome(script, 0, False, 1.0, input=100.0, coarse=40.0, one=39.0),
        outcome(script, 1, False, 8.0, input=100.0, coarse=36.0, one=35.0),
        *(
            outcome(script, n, True, 20.0 + n, input=15.0, coarse=20.0 + n % 2, one=20.0 + n % 2)
            for n in range(10)
        ),
    ]
    found = script.fit(outcomes, ["coarse", "one"], wanted=0.5, allowed=0.0, minimum=0.002)
    assert found.ladder == [{"above": 0.0, "mode": "coarse"}] and found.by == "worst_burden"
    assert 1.0 < found.below <= 8.0
    record = found.record
    coarse, one = record["modes"]["coarse"], record["modes"]["one"]
    assert coarse["kept"] and coarse["share"] == 1.0
    assert coarse["over_input"] == {"psnr": 5.5, "ssim": 0.055}
    assert coarse["db_per_ms"] == pytest.approx(5.5 / 40.0, abs=1e-6)
    assert not one["kept"] and one["over_cheaper"] == {"psnr": 0.0, "ssim": 0.0}
    assert (
        one["verdict"]
        == "+0.000 dB over coarse for 50.0 ms more; nowhere are its dB worth 0.002 dB/ms"
    )
    bypass = record["bypass"]
    assert bypass["clean_bypassed"] == 0.5 and bypass["degraded_bypassed"] == 0.0
    assert bypass["wanted_reached"] and bypass["clean_restored_worst_db"] == 36.0
    assert sum(row["degraded"] for row in record["by_summary"]) == 10
    assert sum(row["degraded"] for row in record["by_total"]) == 10
    printed = script.text({**record, "device": "d", "provider": "p", "threads": 1})
    assert "left out: one, +0.000 dB" in printed and "reaches the wanted 50%" in printed
    with pytest.raises(RirfError, match="got 10 degraded and 0 clean frames"):
        script.fit(outcomes[2:], ["coarse"], wanted=0.5, allowed=0.0, minimum=0.0)


def test_frames_are_the_held_out_draws_and_clean_images(script: ModuleType, draws: DrawSet) -> None:
    found = script.frames(draws, 1.0, None)
    degraded = {each.position for each in found if each.degraded}
    assert degraded == {
        position
        for position in range(len(draws))
        if any(draws.diagnosis(position).effect(name).present for name in EFFECTS)
    }
    clean = [each.position for each in found if not each.degraded]
    assert clean == [DRAWS * image + side for image in range(PICTURES) for side in (0, 1)]
    some = script.frames(draws, 1.0, 6)
    assert len(some) == 6 and set(some) < set(found) and len(set(some)) == 6
    with pytest.raises(ImageError, match="holds no held-out draws"):
        script.frames(draws, 0.0, None)


def test_images_of_a_test_split_are_refused(script: ModuleType, draws: DrawSet) -> None:
    names = tuple(name.replace("/val/", "/test/") for name in draws.names)
    with pytest.raises(ImageError, match=r"set/test/0\.png is of a test split"):
        script.frames(DrawSet(draws.root, names, draws.draws), 1.0, None)
    # A file may be called so.
    names = tuple(name.replace("0.png", "test.png") for name in draws.names)
    assert script.frames(DrawSet(draws.root, names, draws.draws), 1.0, None)


def call(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["step_policy.py", *map(str, arguments)])
    return int(script.main())


def test_the_whole_way(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    draws: DrawSet,
    bundle: Path,
    tiny_checkpoints: Path,
    tmp_path: Path,
) -> None:
    out, curve = tmp_path / "policy.json", tmp_path / "curve.png"
    options = ["--bundle", bundle, "--draws", draws.root, "--share", "1", "--threads", "1"]
    status = call(script, monkeypatch, *options, "-o", out, "--plot", curve)
    printed = capsys.readouterr().out.splitlines()
    assert status == 0
    record = json.loads(printed[-1])
    assert record["benchmark"] == "step_policy" and record["threads"] == 1
    wanted = script.frames(draws, 1.0, None)
    assert record["frames"] == {
        "degraded": sum(each.degraded for each in wanted),
        "clean": 2 * PICTURES,
        "images": PICTURES,
    }
    assert list(record["modes"]) == list(MODES)
    # More evaluations of the network take longer, and the figures are those of the pipeline.
    times = [row["milliseconds"] for row in record["modes"].values()]
    assert times[0] > 0 and times[3] > times[0]
    gains = []
    with rirf.load(bundle, threads=1) as pipeline:
        for each in wanted:
            if each.degraded:
                frame = np.ascontiguousarray(draws.degraded(each.position))
                truth = np.ascontiguousarray(draws.clean(each.position))
                image = pipeline(frame, steps="2").image
                gains.append(measure(image, truth).psnr - measure(frame, truth).psnr)
    assert record["modes"]["2"]["over_input"]["psnr"] == pytest.approx(np.mean(gains), abs=1e-3)
    picture = cv2.imread(str(curve))
    assert picture is not None and picture.shape[1] > 2 * picture.shape[0] > 600
    # No machine's folders in what is kept.
    assert str(draws.root) not in out.read_text() and str(bundle) not in out.read_text()

    policy = FittedPolicy.model_validate_json(out.read_text())
    assert policy.provenance == record
    assert policy.bypass_below == record["bypass"]["below"]
    again = export_bundle(
        tiny_checkpoints / "reasoner",
        bundle.parent / "restorer",
        tmp_path / "again.rirf",
        policy=policy,
        progress=False,
    )
    assert again.manifest.policy == policy.thresholds
    # The same checkpoints give the graphs that it was fitted to.
    assert again.manifest.provenance["policy"]["fitted_on_these_graphs"] is True
    assert policy.provenance["bundle_digest"] == Bundle.open(bundle).digest


def test_json_alone_and_refusals(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    draws: DrawSet,
    bundle: Path,
    tmp_path: Path,
) -> None:
    options = ["--bundle", bundle, "--draws", draws.root, "--share", "1"]
    out = tmp_path / "policy.json"
    more = ["--limit", "8", "--json", "--bypass-by", "any_probability"]
    curve = tmp_path / "curve.png"
    assert call(script, monkeypatch, *options, "-o", out, *more, "--plot", curve) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["limit"] == 8
    policy = FittedPolicy.model_validate_json(out.read_text())
    assert policy.bypass_by == "any_probability" and policy.bypass_below <= 1.0
    assert json.loads(line)["bypass"]["by"] == "any_probability"
    assert cv2.imread(str(curve)) is not None
    for more, message in (
        (["--limit", "1"], "expected at least 2 frames"),
        (["--plot", tmp_path / "none" / "curve.png"], "expected a file in a folder that exists"),
        (["--draws", tmp_path], "no finished set of draws here"),
    ):
        assert call(script, monkeypatch, *options, "-o", tmp_path / "new.json", *more) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new.json").exists()
