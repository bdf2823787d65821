"""The chain: native and NumPy agree over batches, layouts and recipes; threads change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rirf.degradation import Recipe, fog, geometric, noise, rain, sample_recipe, shake
from rirf.degradation.backends import Outcome, run
from tests.kernels.layouts import laid_out, layouts, pixels, room, sizes
from tests.kernels.recipes import BITS, as_rows, seeded_recipes
from tests.strategies import SEEDS

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")

DATA = st.integers(0, 2**32 - 1)


def by_numpy(
    image: NDArray[np.float32], seed: int, recipe: Recipe, near: NDArray[np.float32] | None
) -> Outcome:
    prior = geometric if near is None else lambda seed, height, width: near
    return run(image, seed, recipe, prior, backend="numpy", keep_stages=True, threads=1)


def noise_scale(outcome: Outcome, recipe: Recipe) -> float:
    """How much larger than for drawn parameters the noise is, which its rounding errors follow."""
    if recipe.noise is None:
        return 1.0
    return max(1.0, abs(recipe.noise.gain) + abs(recipe.noise.offset) / 255.0)


def assert_agrees(
    outcome: Outcome,
    recipe: Recipe,
    image: NDArray[np.float32],
    stages: dict[str, NDArray[np.float32]],
    transmission: NDArray[np.float32],
    mask: NDArray[np.float32],
    psf: NDArray[np.float32],
    truth: Any,
) -> None:
    # Measured worst over 1500 drawn recipes: image 1.1e-6, severities 1.2e-5.
    bound = 1e-5 * noise_scale(outcome, recipe)
    np.testing.assert_allclose(image, outcome.image, rtol=0, atol=bound)
    for name, stage in stages.items():
        if getattr(recipe, name) is None:
            assert np.isnan(stage).all(), f"the absent {name} was recorded"
        else:
            np.testing.assert_allclose(stage, outcome.stages[name], rtol=0, atol=bound)
    np.testing.assert_allclose(transmission, outcome.transmission, rtol=0, atol=1e-5)
    streaks = np.zeros_like(mask) if outcome.streaks is None else outcome.streaks
    np.testing.assert_array_equal(mask, streaks)
    kernel = np.zeros_like(psf) if outcome.psf is None else outcome.psf
    np.testing.assert_allclose(psf, kernel, rtol=0, atol=1e-6)
    scores = (
        fog.severity(outcome.transmission_mean) if recipe.fog else 0.0,
        shake.severity(outcome.moments.rms_px) if recipe.shake else 0.0,
        rain.severity(outcome.coverage) if recipe.rain else 0.0,
        noise.severity(outcome.variance) if recipe.noise else 0.0,
    )
    np.testing.assert_allclose(truth["severity"], scores, rtol=0, atol=1e-4)
    assert truth["coverage"] == outcome.coverage
    assert truth["transmission_mean"] == pytest.approx(outcome.transmission_mean, abs=1e-6)
    assert truth["energy"] == pytest.approx(outcome.moments.energy, abs=1e-6)
    assert truth["variance"] == pytest.approx(outcome.variance, rel=1e-5, abs=1e-9)


@given(
    DATA,
    sizes(high=90),
    st.lists(seeded_recipes(), min_size=1, max_size=3),
    st.booleans(),
    layouts(),
    layouts(),
)
def test_chain_agrees(
    data: int,
    size: tuple[int, int],
    seeded: list[tuple[int, Recipe]],
    with_prior: bool,
    layout: str,
    out_layout: str,
) -> None:
    count = len(seeded)
    image = pixels(data, count, *size, 3)
    near = pixels(data + 1, count, *size) if with_prior else None
    out = room(image.shape, out_layout)
    stages = {name: room(image.shape, layout) for name in BITS}
    transmission, mask = room((count, *size), out_layout), room((count, *size), layout)
    psf = np.full((count, 31, 31), np.nan, dtype=np.float32)
    _, truth = native.degrade(
        laid_out(image, layout),
        as_rows(native, seeded),
        prior=None if near is None else laid_out(near, out_layout),
        out=out.view,
        stages={name: stage.view for name, stage in stages.items()},
        transmission=transmission.view,
        mask=mask.view,
        psf=psf,
        threads=2,
    )
    assert all(r.left_alone() for r in (out, transmission, mask, *stages.values()))
    for index, (seed, recipe) in enumerate(seeded):
        outcome = by_numpy(image[index], seed, recipe, None if near is None else near[index])
        assert_agrees(
            outcome,
            recipe,
            out.view[index],
            {name: stage.view[index] for name, stage in stages.items()},
            transmission.view[index],
            mask.view[index],
            psf[index],
            truth[index],
        )


@settings(max_examples=40)
@given(DATA, sizes(16, 150), st.lists(SEEDS, min_size=1, max_size=3))
def test_sampled_chain_agrees(data: int, size: tuple[int, int], seeds: list[int]) -> None:
    """What training does: seeds alone, within the drawn ranges."""
    image = pixels(data, len(seeds), *size, 3)
    degraded, truth = native.degrade(image, native.sample(seeds))
    for index, seed in enumerate(seeds):
        outcome = by_numpy(image[index], seed, sample_recipe(seed), None)
        np.testing.assert_allclose(degraded[index], outcome.image, rtol=0, atol=1e-5)
        assert truth["variance"][index] == pytest.approx(outcome.variance, rel=1e-5)


@settings(max_examples=30)
@given(DATA, sizes(high=90), st.lists(seeded_recipes(), min_size=1, max_size=4), layouts())
def test_threads_and_batches_change_nothing(
    data: int, size: tuple[int, int], seeded: list[tuple[int, Recipe]], layout: str
) -> None:
    image = laid_out(pixels(data, len(seeded), *size, 3), layout)
    rows = as_rows(native, seeded)

    def results(some: Any, some_rows: Any, threads: int) -> tuple[Any, ...]:
        maps = [np.empty(some.shape[:3], dtype=np.float32) for _ in range(2)]
        psf = np.empty((len(some_rows), 31, 31), dtype=np.float32)
        degraded, truth = native.degrade(
            some, some_rows, transmission=maps[0], mask=maps[1], psf=psf, threads=threads
        )
        return degraded, *maps, psf, truth

    alone = results(image, rows, 1)
    for threads in (0, 2, 3, 7):
        for found, expected in zip(results(image, rows, threads), alone, strict=True):
            assert found.tobytes() == expected.tobytes(), f"{threads} threads"
    for index in range(len(seeded)):
        for found, expected in zip(
            results(image[index : index + 1], rows[index : index + 1], 2), alone, strict=True
        ):
            assert found[0].tobytes() == expected[index].tobytes()


def test_an_absent_effect_leaves_the_frame() -> None:
    image = pixels(1, 20, 30, 3)
    degraded, truth = native.degrade(image, native.recipes(1, seed=5))
    np.testing.assert_array_equal(degraded, image)
    assert truth["severity"].tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert truth["transmission_mean"] == 1.0


def test_nothing_is_kept_but_what_was_asked_for() -> None:
    image = pixels(2, 20, 30, 3)
    rows = native.recipes(1, seed=5, present=15, steps=20, step_px=2.0, density=0.01)
    bare, _ = native.degrade(image, rows)
    stages = {"shake": np.empty_like(image)}
    kept, _ = native.degrade(image, rows, stages=stages)
    np.testing.assert_array_equal(bare, kept)
    assert np.isfinite(stages["shake"]).all()
