from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rirf.degradation import (
    Backend,
    Degraded,
    FogParameters,
    LabelPrior,
    NoiseParameters,
    RainParameters,
    Recipe,
    ShakeParameters,
    degrade,
    fog,
    geometric,
    noise,
    rain,
    sample_recipe,
    shake,
)
from rirf.degradation.backends import VARIABLE
from rirf.degradation.philox import Stage, Stream, uniforms
from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.errors import ImageError, RirfError
from rirf.native import kernels, why_not
from rirf.scene import CLASSES, describe, observe
from tests.golden.degradation import FILE, SEEDS, measure, picture
from tests.strategies import SEEDS as ANY_SEED

pytestmark = pytest.mark.lean

LIGHT = (0.8, 0.85, 0.9)
EVERYTHING = Recipe(
    atmospheric_light=LIGHT,
    fog=FogParameters(1.5),
    shake=ShakeParameters(20, 1.2),
    rain=RainParameters(4e-3, -15.0, 25.0, 1.5, 0.7),
    noise=NoiseParameters(0.1, 5.0),
)
NOTHING = Recipe(atmospheric_light=LIGHT)


def clean(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def assert_same(one: Degraded, other: Degraded) -> None:
    np.testing.assert_array_equal(one.image, other.image)
    assert one.recipe == other.recipe
    assert one.diagnosis == other.diagnosis
    for name, stage in one.stages.items():
        np.testing.assert_array_equal(stage, other.stages[name])


@settings(max_examples=60)
@given(ANY_SEED, st.integers(16, 50), st.integers(16, 50))
def test_every_seed_gives_a_valid_picture_and_diagnosis(seed: int, height: int, width: int) -> None:
    image = clean(height, width)
    before = image.copy()
    result = degrade(image, seed)
    np.testing.assert_array_equal(image, before)  # the input stays as it is
    assert result.image.shape == image.shape
    assert result.image.dtype == np.float32
    assert result.image.min() >= 0.0 and result.image.max() <= 1.0
    assert result.recipe == sample_recipe(seed)
    diagnosis = result.diagnosis
    assert diagnosis.source == "oracle"
    assert Diagnosis.from_text(diagnosis.to_text()) == diagnosis
    for name in EFFECTS:
        effect, parameters = diagnosis.effect(name), getattr(result.recipe, name)
        assert effect.present is (parameters is not None)
        assert effect.probability == float(effect.present)
        assert effect.interval == (effect.severity, effect.severity)
        assert 1.0 <= effect.severity <= 100.0 if effect.present else effect.severity == 0.0
    assert list(result.stages) == [name for name in EFFECTS if diagnosis.effect(name).present]
    assert_same(result, degrade(image, seed))


def test_seeds_give_different_pictures() -> None:
    pictures = [degrade(clean(), seed, recipe=EVERYTHING).image for seed in range(4)]
    for other in pictures[1:]:
        assert np.abs(pictures[0] - other).mean() > 0.01


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (16, 201), (33, 16)])
def test_small_and_odd_sizes(size: tuple[int, int]) -> None:
    result = degrade(clean(*size), 3, recipe=EVERYTHING)
    assert result.image.shape == (*size, 3)
    assert result.transmission.shape == size
    assert result.streaks is not None and result.streaks.shape == size
    assert list(result.stages) == list(EFFECTS)


def test_each_effect_is_present_half_of_the_time_and_independently() -> None:
    count = 2000
    present = np.array(
        [[getattr(sample_recipe(s), name) is not None for name in EFFECTS] for s in range(count)]
    )
    assert np.abs(present.mean(axis=0) - 0.5).max() < 4 * 0.5 / np.sqrt(count)
    assert np.abs(np.corrcoef(present.T) - np.eye(4)).max() < 4 / np.sqrt(count)
    nothing = (~present.any(axis=1)).mean()
    assert nothing == pytest.approx(1 / 16, abs=4 * np.sqrt(1 / 16 / count))


def test_parameters_do_not_depend_on_what_else_is_present() -> None:
    for seed in range(40):
        recipe = sample_recipe(seed)
        assert recipe.atmospheric_light == fog.sample_atmospheric_light(seed)
        assert recipe.fog in (None, fog.sample(seed))
        assert recipe.shake in (None, shake.sample(seed))
        assert recipe.rain in (None, rain.sample(seed))
        assert recipe.noise in (None, noise.sample(seed))


# Slots of the parameter streams, as docs/degradation.md lists them: part of the address layout.
SLOTS = {
    Stage.FOG: {"light_red": 0, "light_green": 1, "light_blue": 2, "beta": 3},
    Stage.SHAKE: {"steps": 0, "step_px": 1},
    Stage.RAIN: {"density": 0, "slant_deg": 1, "length_px": 2, "width_px": 3, "opacity": 4},
    Stage.NOISE: {"gain": 0, "offset": 1},
}


@pytest.mark.parametrize("stage", SLOTS)
def test_parameters_rise_with_their_slot_and_no_other(stage: Stage) -> None:
    slots, seeds = SLOTS[stage], range(60)
    red, green, blue = ("light_red", "light_green", "light_blue")
    found = []
    for seed in seeds:
        if stage is Stage.FOG:
            light = dict(zip((red, green, blue), fog.sample_atmospheric_light(seed), strict=True))
            found.append(light | asdict(fog.sample(seed)))
        else:
            effect = {Stage.SHAKE: shake, Stage.RAIN: rain, Stage.NOISE: noise}[stage]
            found.append(asdict(effect.sample(seed)))
    numbers = np.array([uniforms(seed, stage, Stream.PARAMETERS, 8) for seed in seeds])
    for name, slot in slots.items():
        values = [sample[name] for sample in found]
        follows = [np.corrcoef(values, numbers[:, other])[0, 1] for other in range(8)]
        assert follows[slot] > 0.99, name
        assert int(np.argmax(np.abs(follows))) == slot, name


def test_stages_are_the_single_effects_in_order() -> None:
    seed, image = 8, clean()
    height, width = image.shape[:2]
    result = degrade(image, seed, recipe=EVERYTHING, backend="numpy")
    assert EVERYTHING.fog and EVERYTHING.rain and EVERYTHING.shake and EVERYTHING.noise

    t = fog.transmission(geometric(seed, height, width), EVERYTHING.fog)
    foggy = fog.apply(image, t, LIGHT)
    psf = shake.kernel(seed, EVERYTHING.shake)
    shaken = shake.apply(foggy, psf)
    streaks = rain.mask(seed, EVERYTHING.rain, height, width)
    rainy = rain.apply(shaken, streaks, EVERYTHING.rain, LIGHT)
    deviation = noise.sigma(rainy, EVERYTHING.noise)
    noisy = noise.apply(rainy, seed, deviation)

    for name, stage in zip(EFFECTS, (foggy, shaken, rainy, noisy), strict=True):
        assert result.stages[name].dtype == np.float32
        np.testing.assert_array_equal(result.stages[name], stage)
    np.testing.assert_array_equal(result.image, np.clip(noisy, 0.0, 1.0))
    np.testing.assert_array_equal(result.transmission, t)
    assert result.psf is not None and result.streaks is not None
    np.testing.assert_array_equal(result.psf, psf)
    np.testing.assert_array_equal(result.streaks, streaks)

    truth, moments = result.diagnosis, shake.moments(psf)
    assert truth.fog.transmission_mean == pytest.approx(float(t.mean()))
    assert truth.fog.atmospheric_light == LIGHT
    assert truth.fog.severity == pytest.approx(fog.severity(float(t.mean())))
    assert truth.shake.severity == shake.severity(moments.rms_px)
    assert (truth.shake.direction_deg, truth.shake.length_px, truth.shake.energy) == (
        moments.direction_deg,
        moments.length_px,
        moments.energy,
    )
    assert truth.rain.coverage == rain.coverage(streaks)
    assert truth.rain.severity == rain.severity(truth.rain.coverage)
    for field, value in asdict(EVERYTHING.rain).items():
        assert getattr(truth.rain, field) == value
    assert truth.noise.severity == noise.severity(noise.variance(deviation))
    assert (truth.noise.gain, truth.noise.offset) == (0.1, 5.0)


@pytest.mark.parametrize("only", EFFECTS)
def test_one_effect_alone(only: str) -> None:
    recipe = Recipe(LIGHT, **{only: getattr(EVERYTHING, only)})
    result = degrade(clean(), 5, recipe=recipe)
    assert list(result.stages) == [only]
    assert result.recipe is recipe
    for name in EFFECTS:
        effect = result.diagnosis.effect(name)
        assert effect.present is (name == only)
    assert (result.psf is not None) is (only == "shake")
    assert (result.streaks is not None) is (only == "rain")
    assert np.all(result.transmission == 1.0) is np.bool_(only != "fog")
    assert np.abs(result.image - clean()).mean() > 0.005


def test_nothing_present_leaves_the_picture_alone() -> None:
    result = degrade(clean(), 5, recipe=NOTHING)
    np.testing.assert_array_equal(result.image, clean())
    assert result.stages == {}
    neutral = result.diagnosis
    assert neutral.fog.transmission_mean == 1.0
    assert neutral.fog.atmospheric_light == LIGHT  # drawn for every frame
    assert (neutral.shake.length_px, neutral.shake.energy) == (0.0, 1.0)
    assert (neutral.rain.coverage, neutral.rain.density) == (0.0, 0.0)
    assert (neutral.noise.gain, neutral.noise.offset) == (0.0, 0.0)
    assert [neutral.effect(name).severity for name in EFFECTS] == [0.0] * 4


def test_only_the_last_picture_is_clipped() -> None:
    recipe = Recipe(LIGHT, rain=EVERYTHING.rain, noise=NoiseParameters(0.3, 20.0))
    result = degrade(np.ones((40, 40, 3), dtype=np.float32), 2, recipe=recipe)
    assert result.stages["rain"].max() > 1.0
    assert result.stages["noise"].max() > 1.0
    assert result.image.max() == 1.0


def test_recipes_are_plain_data() -> None:
    record = json.loads(json.dumps(EVERYTHING.to_dict()))
    assert record["fog"] == {"beta": 1.5}
    assert record["rain"]["slant_deg"] == -15.0
    assert json.loads(json.dumps(NOTHING.to_dict()))["noise"] is None


def test_labels_describe_the_clean_scene() -> None:
    labels = np.full((40, 56), CLASSES.index("road"), dtype=np.uint8)
    labels[:20] = CLASSES.index("sky")
    result = degrade(clean(), 4, recipe=EVERYTHING, prior=LabelPrior(labels), labels=labels)
    assert result.diagnosis.composition == {"sky": 0.5, "road": 0.5}
    assert result.diagnosis.scene == describe(observe(clean(), labels))
    assert result.transmission[:15].max() < result.transmission[-5:].min()
    assert degrade(clean(), 4, recipe=EVERYTHING).diagnosis.composition == {}


BAD_IMAGES: list[tuple[Any, str]] = [
    (np.zeros((32, 32, 3), dtype=np.uint8), r"got uint8 \(32, 32, 3\); convert uint8 with"),
    (np.zeros((32, 32, 3), dtype=np.float64), "got float64"),
    (np.zeros((32, 32), dtype=np.float32), r"got float32 \(32, 32\)"),
    (np.zeros((32, 32, 4), dtype=np.float32), r"got float32 \(32, 32, 4\)"),
    (np.zeros((0, 32, 3), dtype=np.float32), "at least 16 x 16"),
    (np.zeros((32, 15, 3), dtype=np.float32), "at least 16 x 16"),
    (np.full((32, 32, 3), 255.0, dtype=np.float32), r"got 255\.0 to 255\.0; divide"),
    (np.full((32, 32, 3), -0.1, dtype=np.float32), r"expected values in \[0, 1\]"),
    (np.full((32, 32, 3), np.nan, dtype=np.float32), r"expected values in \[0, 1\]"),
]


@pytest.mark.parametrize(("image", "message"), BAD_IMAGES)
def test_other_arrays_are_refused(image: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        degrade(image, 1)


def test_one_bad_pixel_is_found() -> None:
    image = clean()
    image[7, 9, 1] = np.nan
    with pytest.raises(ImageError, match="nan"):
        degrade(image, 1)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe((1.2, 0.9, 0.9)), r"atmospheric_light is \(1\.2, 0\.9, 0\.9\); expected each"),
        (Recipe(LIGHT, fog=FogParameters(0.0)), r"fog\.beta is 0\.0; expected a number above 0"),
        (Recipe(LIGHT, noise=NoiseParameters(float("nan"), 0.0)), r"noise\.gain is nan"),
    ],
)
@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_recipes_out_of_the_models_range(recipe: Recipe, message: str, backend: Backend) -> None:
    with pytest.raises(ImageError, match=message):
        degrade(clean(), 1, recipe=recipe, backend=backend)


def test_a_negative_number_of_threads() -> None:
    with pytest.raises(RirfError, match="threads is -1; expected 0"):
        degrade(clean(), 1, threads=-1)


def test_a_layout_that_is_known_is_not_observed_again() -> None:
    labels = np.full((40, 56), CLASSES.index("road"), dtype=np.uint8)
    expected = degrade(clean(), 4, labels=labels)
    layout = observe(clean(), labels)
    assert degrade(clean(), 4, layout=layout).diagnosis == expected.diagnosis


def test_stages_are_kept_when_wanted() -> None:
    kept = degrade(clean(), 4, recipe=EVERYTHING)
    bare = degrade(clean(), 4, recipe=EVERYTHING, keep_stages=False)
    assert bare.stages == {}
    np.testing.assert_array_equal(bare.image, kept.image)
    assert bare.diagnosis == kept.diagnosis
    for name in ("transmission", "psf", "streaks"):
        np.testing.assert_array_equal(getattr(bare, name), getattr(kept, name))


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan])
def test_priors_with_other_values_are_refused(value: float) -> None:
    near = np.full((40, 56), value, dtype=np.float32)
    with pytest.raises(ImageError, match=r"expected a prior map with values in \[0, 1\], got"):
        degrade(clean(), 1, recipe=EVERYTHING, prior=lambda *_: near)


def test_labels_and_priors_must_fit_the_picture() -> None:
    with pytest.raises(ImageError, match=r"labels of the image's size \(40, 56\), got uint8 \(56"):
        degrade(clean(), 1, labels=np.zeros((56, 40), dtype=np.uint8))
    with pytest.raises(ImageError, match=r"prior map of the frame's size \(40, 56\), got \(4, 4\)"):
        degrade(clean(), 1, recipe=EVERYTHING, prior=lambda *_: np.ones((4, 4), dtype=np.float32))


GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))


def assert_close(found: Any, expected: Any, tolerance: float, where: str) -> None:
    if isinstance(expected, dict):
        assert set(found) == set(expected), where
        for key, value in expected.items():
            assert_close(found[key], value, tolerance, f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for place, value in enumerate(expected):
            assert_close(found[place], value, tolerance, f"{where}[{place}]")
    elif expected is None or isinstance(expected, int):
        assert found == expected, where
    else:
        # Relative where a figure is not a share of 1: severities, degrees, pixels.
        assert found == pytest.approx(expected, abs=tolerance * max(1.0, abs(expected))), where


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"seed {case['seed']}")
def test_golden_numbers(
    case: dict[str, Any], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "native" and kernels() is None:
        pytest.skip(f"the native backend is not here: {why_not()[0]}")
    monkeypatch.setenv(VARIABLE, backend)
    assert_close(measure(case["seed"]), case, GOLDEN["tolerance"], "case")


def test_golden_cases_cover_all_effects() -> None:
    assert [case["seed"] for case in GOLDEN["cases"]] == list(SEEDS)
    stages = [list(case["stages"]) for case in GOLDEN["cases"]]
    assert list(EFFECTS) in stages
    assert len({tuple(names) for names in stages}) == len(stages)
    # A picture on which every effect shows.
    assert picture().shape == (96, 128, 3)
    assert picture().min() == 0.0 and picture().max() == 1.0
