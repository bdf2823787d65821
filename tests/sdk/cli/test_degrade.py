"""``rirf degrade``: reproducible pictures and records, exact recipes, maps, bad input."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rirf.cli import main
from rirf.cli.degrade import file_seed
from rirf.degradation import (
    FogParameters,
    NoiseParameters,
    Recipe,
    degrade,
    fog,
    sample_recipe,
    select_backend,
)
from rirf.diagnosis import Diagnosis
from rirf.images import to_float, to_uint8
from tests.sdk.pictures import files_below, load, photo, save, start

pytestmark = pytest.mark.lean


def run(*arguments: object) -> int:
    return main(["degrade", *map(str, arguments)])


def record(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def test_the_seed_of_a_file_is_documented() -> None:
    # From: printf '7:photo.png' | sha256sum; first 8 bytes, little-endian.
    assert file_seed(7, "photo.png") == 2302370679240647764
    assert file_seed(8, "photo.png") != 2302370679240647764
    assert file_seed(7, "cafe\u0301.png") == file_seed(7, "caf\u00e9.png")


def test_draws_everything_from_the_seed(tmp_path: Path) -> None:
    source = save(tmp_path / "photo.png")
    assert run(source, "-o", tmp_path / "out", "--seed", 7) == 0
    assert files_below(tmp_path / "out") == ["photo.degradation.json", "photo.png"]
    expected = degrade(to_float(photo()), file_seed(7, "photo.png"))
    np.testing.assert_array_equal(load(tmp_path / "out/photo.png"), to_uint8(expected.image))
    written = record(tmp_path / "out/photo.degradation.json")
    assert written["seed"] == 7
    assert written["file_seed"] == file_seed(7, "photo.png")
    assert written["source"] == "photo.png"
    assert written["files"] == {"image": "photo.png"}
    assert written["recipe"] == json.loads(json.dumps(expected.recipe.to_dict()))
    assert Diagnosis.from_json(json.dumps(written["diagnosis"])) == expected.diagnosis


def test_the_backend_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RIRF_DEGRADATION_BACKEND", raising=False)
    source = save(tmp_path / "photo.png")
    assert run(source, "-o", tmp_path / "auto", "--seed", 7) == 0
    assert record(tmp_path / "auto/photo.degradation.json")["backend"] == select_backend()
    assert run(source, "-o", tmp_path / "numpy", "--seed", 7, "--backend", "numpy") == 0
    written = record(tmp_path / "numpy/photo.degradation.json")
    assert written["backend"] == "numpy"
    expected = degrade(to_float(photo()), file_seed(7, "photo.png"), backend="numpy")
    np.testing.assert_array_equal(load(tmp_path / "numpy/photo.png"), to_uint8(expected.image))


def test_a_backend_that_is_not_there_stops_before_any_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "photo.png")
    monkeypatch.setenv("RIRF_DEGRADATION_BACKEND", "gpu")
    assert run(source, "-o", tmp_path / "out", "--seed", 7) == 1
    assert "RIRF_DEGRADATION_BACKEND is 'gpu'; expected one of auto" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(source, "-o", tmp_path / "out", "--seed", 7, "--backend", "gpu") == 2
    assert "invalid choice: 'gpu'" in capsys.readouterr().err


def test_neither_order_nor_company_changes_a_picture(tmp_path: Path) -> None:
    a, b = (save(tmp_path / name, photo(seed=n)) for n, name in enumerate(["a.png", "b.png"]))
    assert run(a, b, "-o", tmp_path / "ab", "--seed", 3) == 0
    assert run(b, a, "-o", tmp_path / "ba", "--seed", 3) == 0
    assert run(b, "-o", tmp_path / "b", "--seed", 3) == 0
    for name in ("b.png", "b.degradation.json"):
        contents = {(tmp_path / folder / name).read_bytes() for folder in ("ab", "ba", "b")}
        assert len(contents) == 1
    assert run(b, "-o", tmp_path / "other", "--seed", 4) == 0
    assert (tmp_path / "other/b.png").read_bytes() != (tmp_path / "b/b.png").read_bytes()


def test_exactly_the_named_effects_are_applied(tmp_path: Path) -> None:
    source = save(tmp_path / "photo.png")
    options = ["--fog", "1.5,0.9,0.8,0.7", "--noise", "0.1,-4"]
    assert run(source, "-o", tmp_path / "out", "--seed", 1, *options) == 0
    recipe = Recipe((0.9, 0.8, 0.7), fog=FogParameters(1.5), noise=NoiseParameters(0.1, -4.0))
    expected = degrade(to_float(photo()), file_seed(1, "photo.png"), recipe=recipe)
    np.testing.assert_array_equal(load(tmp_path / "out/photo.png"), to_uint8(expected.image))


@pytest.mark.parametrize(
    ("option", "value", "effect", "parameters"),
    [
        ("--fog", "2", "fog", {"beta": 2.0}),
        ("--fog", "2,0.8", "fog", {"beta": 2.0}),
        ("--shake", "20,1.5", "shake", {"steps": 20, "step_px": 1.5}),
        (
            "--rain",
            "0.004,-12,30,1.5,0.6",
            "rain",
            {"density": 0.004, "slant_deg": -12, "length_px": 30, "width_px": 1.5, "opacity": 0.6},
        ),
        ("--noise", "0.2,5", "noise", {"gain": 0.2, "offset": 5.0}),
    ],
)
def test_each_option(
    tmp_path: Path, option: str, value: str, effect: str, parameters: dict[str, float]
) -> None:
    out = tmp_path / "out"
    assert run(save(tmp_path / "p.png"), "-o", out, "--seed", 1, option, value) == 0
    recipe = record(out / "p.degradation.json")["recipe"]
    light = recipe.pop("atmospheric_light")
    assert recipe == {"fog": None, "shake": None, "rain": None, "noise": None, effect: parameters}
    drawn = fog.sample_atmospheric_light(file_seed(1, "p.png"))
    assert tuple(light) == ((0.8, 0.8, 0.8) if value == "2,0.8" else drawn)


def test_auto_draws_the_parameters_of_the_named_effects(tmp_path: Path) -> None:
    source = save(tmp_path / "p.png")
    autos = [item for name in ("fog", "shake", "rain", "noise") for item in (f"--{name}", "auto")]
    assert run(source, "-o", tmp_path / "out", "--seed", 5, *autos) == 0
    recipe = record(tmp_path / "out/p.degradation.json")["recipe"]
    assert all(recipe[name] for name in ("fog", "shake", "rain", "noise"))
    free = sample_recipe(file_seed(5, "p.png")).to_dict()
    for name, parameters in free.items():
        if parameters is not None:
            assert recipe[name] == json.loads(json.dumps(parameters))


def test_stages_and_transmission_are_saved(tmp_path: Path) -> None:
    source = save(tmp_path / "p.png")
    options = ["--fog", "1.2,0.9", "--rain", "auto", "--noise", "0.1,2", "--save-stages"]
    assert run(source, "-o", tmp_path / "out", "--seed", 2, *options) == 0
    names = ["p.1-fog.png", "p.2-rain.png", "p.3-noise.png"]
    assert files_below(tmp_path / "out") == [
        *names,
        "p.degradation.json",
        "p.png",
        "p.transmission.png",
    ]
    files = record(tmp_path / "out/p.degradation.json")["files"]
    assert files["stages"] == dict(zip(("fog", "rain", "noise"), names, strict=True))
    transmission = load(tmp_path / "out" / files["transmission"])
    assert transmission.dtype == np.uint16
    assert transmission.shape == photo().shape[:2]
    written = record(tmp_path / "out/p.degradation.json")["diagnosis"]["fog"]["transmission_mean"]
    assert transmission.mean() / 65535 == pytest.approx(written, abs=1e-4)
    # The last stage is the result; the first one is fog alone.
    np.testing.assert_array_equal(load(tmp_path / "out" / names[2]), load(tmp_path / "out/p.png"))
    hazy = fog.apply(to_float(photo()), (transmission / 65535).astype(np.float32), (0.9, 0.9, 0.9))
    difference = load(tmp_path / "out" / names[0]).astype(int) - to_uint8(hazy)
    assert np.abs(difference).max() <= 1


def test_labels_give_depth_and_scene(tmp_path: Path) -> None:
    source = save(tmp_path / "p.png")
    labels = np.full((32, 40), 3, np.uint8)  # half the picture's size: it is resized
    labels[:16] = 0
    save(tmp_path / "labels/p.png", labels)
    options = ["--fog", "2,0.9", "--save-stages", "--labels", tmp_path / "labels"]
    assert run(source, "-o", tmp_path / "out", "--seed", 2, *options) == 0
    diagnosis = record(tmp_path / "out/p.degradation.json")["diagnosis"]
    assert diagnosis["composition"] == {"sky": 0.5, "road": 0.5}
    transmission = load(tmp_path / "out/p.transmission.png")
    assert transmission[:20].mean() < transmission[-5:].mean() / 2  # sky is far, the road near


@pytest.mark.parametrize("form", ["folder", "file"])
def test_depth_maps_shape_the_fog(tmp_path: Path, form: str) -> None:
    source = save(tmp_path / "p.png")
    depth = np.tile(np.linspace(0, 1, 80, dtype=np.float32), (64, 1))
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth/p.npy", depth)
    given = tmp_path / "depth" if form == "folder" else tmp_path / "depth/p.npy"
    options = ["--fog", "1.5", "--save-stages", "--depth", given]
    assert run(source, "-o", tmp_path / "out", "--seed", 2, *options) == 0
    transmission = load(tmp_path / "out/p.transmission.png").astype(int)
    assert (np.diff(transmission[10]) <= 0).all()
    assert transmission[10, 0] > 65000 > 10000 > transmission[10, -1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "from 0 to 2^64"),
        (["--seed", "one"], "from 0 to 2^64"),
        (["--seed", "1", "--fog", "0"], "BETA is '0'"),
        (["--seed", "1", "--fog", "nan"], "BETA is 'nan'"),
        (["--seed", "1", "--fog", "1,1.2"], "A is '1.2'"),
        (["--seed", "1", "--fog", "1,0.9,0.9"], "expected BETA or BETA,A or BETA,R,G,B or auto"),
        (["--seed", "1", "--fog", "1,0.9,0.9,2"], "B is '2'"),
        (["--seed", "1", "--shake", "2.5,1"], "STEPS is '2.5', expected a whole number"),
        (["--seed", "1", "--shake", "8"], "expected STEPS,STEP_PX or auto"),
        (["--seed", "1", "--rain", "2,0,30,1,0.5"], "DENSITY is '2'"),
        (["--seed", "1", "--rain", "0.001,90,30,1,0.5"], "SLANT is '90'"),
        (["--seed", "1", "--noise", "0.1"], "expected GAIN,OFFSET or auto"),
        (["--seed", "1", "--noise", "much"], "expected GAIN,OFFSET or auto"),
        ([], "required: --seed"),
    ],
)
def test_values_out_of_range_are_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    source = save(tmp_path / "p.png")
    assert run(source, "-o", tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_maps_fail_their_picture_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bad", "good", "lost"):
        save(tmp_path / f"in/{name}.png")
    save(tmp_path / "labels/good.png", np.zeros((64, 80), np.uint8))
    save(tmp_path / "labels/bad.png", np.full((64, 80), 99, np.uint8))
    out = tmp_path / "out"
    assert run(tmp_path / "in", "-o", out, "--seed", 1, "--labels", tmp_path / "labels") == 1
    captured = capsys.readouterr()
    assert "holds the class 99" in captured.err
    assert f"{tmp_path / 'in' / 'lost.png'}: no class map for this picture" in captured.err
    assert "degraded 1 of 3 pictures" in captured.out
    assert files_below(out) == ["good.degradation.json", "good.png"]


@pytest.mark.parametrize("option", ["--labels", "--depth"])
def test_missing_maps_are_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    source = save(tmp_path / "p.png")
    assert run(source, "-o", tmp_path / "out", "--seed", 1, option, tmp_path / "missing") == 1
    assert f"{option} {tmp_path / 'missing'}: no such" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_clean_picture_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save(tmp_path / "p.png")
    before = source.read_bytes()
    assert run(source, "-o", tmp_path, "--seed", 1) == 1
    assert "never overwritten" in capsys.readouterr().err
    assert source.read_bytes() == before
    # Nor by a stage of another picture.
    save(tmp_path / "p.1-noise.png")
    assert run(tmp_path / "p.1-noise.png", "-o", tmp_path / "a", "--seed", 1) == 0
    both = [tmp_path / "p.jpg", tmp_path / "p.1-noise.png"]
    save(both[0])
    assert run(*both, "-o", tmp_path / "b", "--seed", 1, "--save-stages") == 1
    assert "would both write p.1-noise.png" in capsys.readouterr().err


def test_a_bad_picture_is_reported_and_the_rest_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_bytes(b"")
    save(tmp_path / "in/sub/c.png")
    assert run(tmp_path / "in", "-o", tmp_path / "out", "--seed", 1) == 1
    captured = capsys.readouterr()
    assert captured.err == (
        f"rirf: {tmp_path / 'in/b.png'}: is an empty file (0 bytes); expected a picture\n"
    )
    assert captured.out.splitlines()[-1] == (
        f"degraded 2 of 3 pictures into {tmp_path / 'out'}; 1 failed"
    )
    assert files_below(tmp_path / "out") == [
        "a.degradation.json",
        "a.png",
        "sub/c.degradation.json",
        "sub/c.png",
    ]


def test_a_killed_run_leaves_no_half_file(tmp_path: Path) -> None:
    for number in range(30):
        save(tmp_path / "in" / f"{number:02}.png", photo(400, 400, number))
    out = tmp_path / "out"
    options = ["--seed", "1", "--noise", "0.2,5", "--save-stages", "--quiet"]
    with start("degrade", "in", "-o", "out", *options, cwd=tmp_path) as process:
        deadline = time.monotonic() + 100
        while len(list(out.glob("*.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    records = list(out.glob("*.json"))
    assert 2 <= len(records) < 30
    for path in out.glob("*.png"):
        assert load(path).shape[:2] == (400, 400)
    for path in records:
        # The record is written last: everything it names is there.
        files = record(path)["files"]
        for name in (files["image"], files["transmission"], *files["stages"].values()):
            assert (out / name).is_file()
