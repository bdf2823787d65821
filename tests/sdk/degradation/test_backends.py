"""NumPy and the native kernels compute the same, and the choice between them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rirf.degradation import (
    Degraded,
    FilePrior,
    FogParameters,
    LabelPrior,
    NoiseParameters,
    RainParameters,
    Recipe,
    ShakeParameters,
    backends,
    degrade,
    geometric,
    sample_recipe,
    select_backend,
)
from rirf.degradation.backends import VARIABLE
from rirf.degradation.depth import DepthPrior
from rirf.diagnosis import EFFECTS
from rirf.errors import MissingExtraError, RirfError
from rirf.native import cuda_kernels, kernels, why_not
from tests.strategies import SEEDS

pytestmark = pytest.mark.lean

needs_kernels = pytest.mark.skipif(
    kernels() is None, reason=f"the native backend is not here: {why_not()[0]}"
)


def cuda_reason() -> str:
    try:
        cuda_kernels("test")
    except MissingExtraError as error:
        return str(error)
    return ""


# The arithmetic is float32; these are the agreed tolerances (docs/degradation.md, "Backends").
IMAGE, PSF, SEVERITY = 1e-5, 1e-6, 1e-4

SIZES = st.integers(16, 150)
UNIT = st.floats(0.0, 1.0)
# Wider than what is drawn, including what has hardly an effect.
RECIPES = st.builds(
    Recipe,
    atmospheric_light=st.tuples(UNIT, UNIT, UNIT),
    fog=st.none() | st.builds(FogParameters, st.floats(0.01, 10.0)),
    shake=st.none() | st.builds(ShakeParameters, st.integers(1, 256), st.floats(0.0, 15.0)),
    rain=st.none()
    | st.builds(
        RainParameters,
        st.floats(0.0, 0.1),
        st.floats(-90.0, 90.0),
        st.floats(0.5, 120.0),
        st.floats(0.1, 20.0),
        UNIT,
    ),
    noise=st.none() | st.builds(NoiseParameters, st.floats(0.0, 1.0), st.floats(-60.0, 60.0)),
)


def clean(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def classes(height: int, width: int, seed: int) -> np.ndarray:
    """Blocks of any of the twelve class indices."""
    coarse = np.random.default_rng(seed).integers(0, 12, (4, 5), dtype=np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 5 // width
    return np.ascontiguousarray(coarse[rows][:, columns])


def priors(height: int, width: int, seed: int) -> dict[str, tuple[DepthPrior, Any]]:
    """A prior of each kind, and the labels that come with it."""
    labels = classes(height, width, seed)
    depth = np.random.default_rng(seed).random((7, 9), dtype=np.float32)
    return {
        "geometric": (geometric, None),
        "labels": (LabelPrior(labels), labels),
        "file": (FilePrior(depth), labels),
        "constant": (lambda *_: np.ones((height, width), dtype=np.float32), None),
    }


def assert_agree(one: Degraded, other: Degraded) -> None:
    assert one.recipe == other.recipe
    for array in ("image", "transmission"):
        first, second = getattr(one, array), getattr(other, array)
        assert first.dtype == second.dtype == np.float32
        np.testing.assert_allclose(first, second, rtol=0, atol=IMAGE, err_msg=array)
    assert list(one.stages) == list(other.stages)
    for name, stage in one.stages.items():
        assert stage.shape == other.stages[name].shape
        np.testing.assert_allclose(stage, other.stages[name], rtol=0, atol=IMAGE, err_msg=name)
    assert (one.psf is None) is (other.psf is None)
    if one.psf is not None and other.psf is not None:
        np.testing.assert_allclose(one.psf, other.psf, rtol=0, atol=PSF)
    assert (one.streaks is None) is (other.streaks is None)
    if one.streaks is not None and other.streaks is not None:
        np.testing.assert_array_equal(one.streaks, other.streaks)
    first, second = one.diagnosis, other.diagnosis
    assert first.scene == second.scene
    assert first.composition == second.composition
    assert first.rain == second.rain  # coverage is a count over bit-equal masks
    for name in EFFECTS:
        assert first.effect(name).present is second.effect(name).present
        severities = first.effect(name).severity, second.effect(name).severity
        assert severities[0] == pytest.approx(severities[1], abs=SEVERITY), name
    assert first.fog.atmospheric_light == second.fog.atmospheric_light
    assert first.fog.transmission_mean == pytest.approx(second.fog.transmission_mean, abs=1e-6)
    assert first.shake.length_px == pytest.approx(second.shake.length_px, abs=1e-4)
    assert first.shake.energy == pytest.approx(second.shake.energy, abs=1e-5)
    assert (first.noise.gain, first.noise.offset) == (second.noise.gain, second.noise.offset)
    if one.psf is not None and _directed(one.psf):
        turned = abs(first.shake.direction_deg - second.shake.direction_deg)
        assert min(turned, 180.0 - turned) < 0.01


def _directed(psf: np.ndarray) -> bool:
    """Whether a kernel is so much longer than wide that its direction is not rounding alone."""
    rows, columns = np.mgrid[:31, :31] - 15.0
    weight = psf.astype(np.float64)
    mxx, myy, mxy = ((weight * m).sum() for m in (columns**2, rows**2, rows * columns))
    return float(np.hypot((mxx - myy) / 2, mxy)) > 0.05


@needs_kernels
@settings(max_examples=80)
@given(SEEDS, SIZES, SIZES)
def test_draws_agree(seed: int, height: int, width: int) -> None:
    image = clean(height, width, seed % 1000)
    one = degrade(image, seed, backend="numpy")
    assert_agree(one, degrade(image, seed, backend="native"))


@needs_kernels
@settings(max_examples=120)
@given(
    SEEDS,
    SIZES,
    SIZES,
    RECIPES,
    st.sampled_from(["geometric", "labels", "file", "constant"]),
    st.integers(0, 3),
)
def test_recipes_and_priors_agree(
    seed: int, height: int, width: int, recipe: Recipe, kind: str, threads: int
) -> None:
    image = clean(height, width, seed % 1000)
    before = image.copy()
    prior, labels = priors(height, width, seed % 1000)[kind]
    one, other = (
        degrade(
            image, seed, recipe=recipe, prior=prior, labels=labels, backend=name, threads=threads
        )
        for name in ("numpy", "native")
    )
    np.testing.assert_array_equal(image, before)
    assert_agree(one, other)


@needs_kernels
def test_views_of_larger_arrays_agree() -> None:
    wide = clean(60, 90)
    for view in (wide[5:45, 10:70], wide[::-1, ::2], wide[:, ::-1, ::-1], wide.transpose(1, 0, 2)):
        one, other = (degrade(view, 6, backend=name) for name in ("numpy", "native"))
        assert_agree(one, other)


@needs_kernels
def test_large_frames_agree() -> None:
    image = clean(700, 1111)
    one, other = (degrade(image, 6, backend=name) for name in ("numpy", "native"))
    assert list(one.stages) == list(EFFECTS)
    assert_agree(one, other)


@needs_kernels
@given(SEEDS)
def test_parameters_are_drawn_alike_to_the_bit(seed: int) -> None:
    module = kernels()
    assert module is not None
    (row,) = module.sample([seed])
    recipe = sample_recipe(seed)
    assert int(row["seed"]) == seed
    assert tuple(float(value) for value in row["light"]) == recipe.atmospheric_light
    bits = {"fog": module.FOG, "shake": module.SHAKE, "rain": module.RAIN, "noise": module.NOISE}
    for name in EFFECTS:
        parameters = getattr(recipe, name)
        assert bool(row["present"] & bits[name]) is (parameters is not None)
        for field, value in vars(parameters).items() if parameters is not None else ():
            assert row[field] == value, field


@needs_kernels
def test_without_stages() -> None:
    image = clean(40, 56)
    kept = degrade(image, 6, backend="native")
    bare = degrade(image, 6, backend="native", keep_stages=False)
    assert bare.stages == {} and list(kept.stages) == list(EFFECTS)
    np.testing.assert_array_equal(bare.image, kept.image)
    assert bare.diagnosis == kept.diagnosis


@needs_kernels
def test_seeds_are_taken_modulo_two_to_the_64() -> None:
    image = clean(20, 30)
    for seed in (-1, 2**64 + 6, np.int64(6)):
        assert_agree(*(degrade(image, seed, backend=name) for name in ("numpy", "native")))


@needs_kernels
def test_draws_side_by_side_are_those_in_turn() -> None:
    image = clean(90, 120)
    expected = [degrade(image, seed, backend="native").image for seed in range(8)]
    found: dict[int, np.ndarray] = {}

    def work(seed: int) -> None:
        found[seed] = degrade(image, seed, backend="native", threads=1 + seed % 3).image

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, image_then in enumerate(expected):
        np.testing.assert_array_equal(found[seed], image_then)


@pytest.mark.gpu
@pytest.mark.skipif(bool(cuda_reason()), reason=cuda_reason())
@pytest.mark.parametrize("seed", [6, 41, 2**63 + 5])
def test_cuda_agrees(seed: int) -> None:
    image = clean(97, 131)
    one = degrade(image, seed, backend="numpy")
    assert_agree(one, degrade(image, seed, backend="cuda"))


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where rirf_kernels is not installed."""
    import sys

    from rirf import native

    monkeypatch.setitem(sys.modules, "rirf_kernels", None)
    native._look.cache_clear()
    yield
    native._look.cache_clear()


@needs_kernels
def test_auto_is_native_where_the_kernels_are() -> None:
    assert select_backend() == select_backend("auto") == "native"
    assert select_backend("numpy") == "numpy"


@pytest.mark.usefixtures("without_kernels")
def test_without_the_kernels_numpy_does_the_work() -> None:
    assert select_backend() == "numpy"
    image = clean(30, 40)
    expected = degrade(image, 6, backend="numpy")
    np.testing.assert_array_equal(degrade(image, 6).image, expected.image)
    for backend in ("native", "cuda"):
        with pytest.raises(MissingExtraError, match=r"rirf_kernels is needed .*make kernels, or"):
            degrade(image, 6, backend=backend)  # type: ignore[arg-type]  # one of the literals


@needs_kernels
def test_the_variable_decides_for_auto_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "numpy")
    assert select_backend() == "numpy"
    assert select_backend("native") == "native"
    monkeypatch.setenv(VARIABLE, "")
    assert select_backend() == "native"
    monkeypatch.setenv(VARIABLE, "auto")
    assert select_backend() == "native"


def test_unknown_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    message = r"backend is 'gpu'; expected one of auto, numpy, native, cuda"
    with pytest.raises(RirfError, match=message):
        degrade(clean(20, 20), 1, backend="gpu")  # type: ignore[arg-type]  # what is tested
    monkeypatch.setenv(VARIABLE, "Native")
    with pytest.raises(RirfError, match=rf"{VARIABLE} is 'Native'; expected one of auto"):
        degrade(clean(20, 20), 1)


@pytest.mark.skipif(not cuda_reason(), reason="there is a CUDA device, with the CUDA half")
def test_cuda_says_what_is_missing() -> None:
    with pytest.raises(MissingExtraError, match=r"needed to degrade with the cuda backend, but"):
        degrade(clean(20, 20), 1, backend="cuda")


def test_the_choice_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_logged", set())
    monkeypatch.setenv(VARIABLE, "numpy")
    with caplog.at_level(logging.INFO, logger="rirf.degradation"):
        for seed in range(3):
            degrade(clean(20, 20), seed)
    assert [record.getMessage() for record in caplog.records] == [
        f"degradation runs on numpy ({VARIABLE}=numpy)"
    ]
