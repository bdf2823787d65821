"""The protocol's cases: fixed seeds, fixed mixed slices, a shuffle without fixed points."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rirf.degradation import sample_recipe
from rirf.diagnosis import EFFECTS
from rirf.errors import ImageError, RirfError
from rirf.evaluation.protocol import (
    Case,
    calibrated,
    draw,
    load_protocol,
    seed_of,
    shuffle_cycle,
    truth_map,
)
from tests.sdk.evaluation.synthetic import data_root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_root(tmp_path_factory.mktemp("data"), photographs=9, streets=12)


@pytest.fixture(scope="module")
def empty_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many files as the real sets have; listing and slicing never open them."""
    root = tmp_path_factory.mktemp("full")
    for folder in ("bsds500/test", "camvid/test", "camvid/labels/test"):
        (root / folder).mkdir(parents=True)
    for number in range(200):
        (root / "bsds500/test" / f"{number:06}.jpg").touch()
    for number in range(233):
        (root / "camvid/test" / f"Seq_{number:05}.jpg").touch()
        (root / "camvid/labels/test" / f"Seq_{number:05}.png").touch()
    return root


def effects_of(seed: int) -> list[str]:
    recipe = sample_recipe(seed)
    return [name for name in EFFECTS if getattr(recipe, name) is not None]


def test_seed_is_the_first_eight_bytes_of_the_hash_of_the_name() -> None:
    digest = hashlib.sha256(b"v1/camvid/Seq05VD_f02160.jpg").digest()
    assert seed_of("camvid/Seq05VD_f02160.jpg") == int.from_bytes(digest[:8], "little")
    # Written down once, so that no change of the rule goes unseen.
    assert seed_of("bsds500/100007.jpg") == 4270370753316538278


def test_every_case_draws_something_and_clean_ones_are_those_whose_own_seed_does_not(
    empty_files: Path,
) -> None:
    cases = load_protocol(empty_files)
    assert len(cases.cases) == cases.available == 433
    assert len({case.name for case in cases.cases}) == 433
    for case in cases.cases:
        own = seed_of(case.name)
        assert effects_of(case.seed)
        assert case.clean == (not effects_of(own))
        skipped = (case.seed - own) % 2**64
        assert all(not effects_of((own + step) % 2**64) for step in range(skipped))
    # 1 in 16 expected of 433; the chance to lie outside is below one in a million.
    assert 8 <= len(cases.clean) <= 60


def test_order_is_both_sets_by_name(empty_files: Path) -> None:
    names = [case.name for case in load_protocol(empty_files).cases]
    assert names == sorted(names)
    assert names[0].startswith("bsds500/") and names[-1].startswith("camvid/")


def test_cases_depend_neither_on_the_root_nor_on_the_order_files_were_made(
    root: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "some where" / "else"
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_file():
            target = moved / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    here, there = load_protocol(root), load_protocol(moved)
    assert [(c.name, c.seed, c.clean) for c in here.cases] == [
        (c.name, c.seed, c.clean) for c in there.cases
    ]
    assert np.array_equal(draw(here.cases[-1]).frame, draw(there.cases[-1]).frame)


def test_a_file_that_joins_changes_no_other_seed(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "data")
    before = {case.name: case.seed for case in load_protocol(tmp_path / "data").cases}
    photo = tmp_path / "data" / "bsds500" / "test"
    shutil.copy(next(photo.glob("*.jpg")), photo / "000.jpg")
    after = {case.name: case.seed for case in load_protocol(tmp_path / "data").cases}
    assert set(after) - set(before) == {"bsds500/000.jpg"}
    assert all(after[name] == seed for name, seed in before.items())


@settings(deadline=None, max_examples=12)
@given(limit=st.integers(2, 120))
def test_a_slice_is_fixed_mixed_and_proportional(empty_files: Path, limit: int) -> None:
    cases = load_protocol(empty_files, limit=limit).cases
    assert cases == load_protocol(empty_files, limit=limit).cases
    assert len({case.name for case in cases}) == limit
    photographs = [case for case in cases if case.dataset == "bsds500"]
    assert 1 <= len(photographs) < limit
    assert abs(len(photographs) - limit * 200 / 433) <= 1
    # Evenly spaced: no stretch of a set is left out.
    places = [int(case.path.stem) for case in photographs]  # files are numbered from 0
    assert places == sorted(places)
    if len(places) > 1:
        gaps = np.diff(places)
        assert gaps.max() - gaps.min() <= 1


def test_a_limit_beyond_the_protocol_is_the_whole_protocol(empty_files: Path) -> None:
    whole = load_protocol(empty_files)
    assert load_protocol(empty_files, limit=433) == whole
    assert load_protocol(empty_files, limit=10_000) == whole


@settings(deadline=None, max_examples=50)
@given(
    names=st.sets(st.text("abcdef0123456789_", min_size=1, max_size=8), min_size=2, max_size=40),
    dice=st.randoms(use_true_random=False),
)
def test_the_shuffle_has_no_fixed_point_and_ignores_the_order(
    names: set[str], dice: random.Random
) -> None:
    cases = [Case(f"bsds500/{name}.jpg", "bsds500", Path(name), None, 1, False) for name in names]
    cycle = shuffle_cycle(cases)
    assert set(cycle) == set(cases) and len(cycle) == len(cases)
    donors = {case.name: cycle[place - 1].name for place, case in enumerate(cycle)}
    assert all(name != donor for name, donor in donors.items())
    assert len(set(donors.values())) == len(cases)
    dice.shuffle(cases)
    assert shuffle_cycle(cases) == cycle


def test_a_drawn_case_is_quantised_and_carries_the_scene_of_its_labels(root: Path) -> None:
    for case in load_protocol(root, limit=6).cases:
        sample = draw(case)
        assert sample.frame.dtype == sample.truth.dtype == np.uint8
        assert sample.frame.shape == sample.truth.shape
        assert not np.array_equal(sample.frame, sample.truth)
        assert bool(sample.degraded.diagnosis.composition) == (case.dataset == "camvid")


def test_the_true_transmission_is_handed_over_as_area_means() -> None:
    ramp = np.linspace(0.05, 1.0, 64 * 96, dtype=np.float32).reshape(64, 96)
    small = truth_map(ramp)
    assert small.shape == (32, 32) and small.dtype == np.float32
    assert np.allclose(small, ramp.reshape(32, 2, 32, 3).mean(axis=(1, 3)), atol=1e-5)


@pytest.mark.parametrize("shape", [(321, 481), (481, 321), (360, 480), (109, 163), (16, 16)])
def test_no_fog_is_a_transmission_of_one_and_never_more(shape: tuple[int, int]) -> None:
    small = truth_map(np.ones(shape, dtype=np.float32))
    assert small.max() <= 1.0
    assert np.allclose(small, 1.0, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("psnr", "ssim", "verdict"),
    [(13.46, 0.326, True), (13.0, 0.35, True), (12.9, 0.326, False), (13.46, 0.36, False)],
)
def test_calibration(psnr: float, ssim: float, verdict: bool) -> None:
    assert calibrated(psnr, ssim) is verdict


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("", "does not exist"),
        ("bsds500", "cannot be listed"),
        ("camvid/test", "cannot be listed"),
        ("camvid/labels", "class map"),
    ],
)
def test_a_missing_folder_is_named(root: Path, tmp_path: Path, missing: str, said: str) -> None:
    copy = tmp_path / "data"
    shutil.copytree(root, copy)
    shutil.rmtree(copy / missing)
    with pytest.raises(RirfError, match=said) as caught:
        load_protocol(copy)
    assert str(copy / missing) in str(caught.value)


def test_an_empty_folder_a_file_as_root_and_wrong_arguments_are_refused(
    root: Path, tmp_path: Path
) -> None:
    for folder in ("bsds500/test", "camvid/test"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(RirfError, match="holds no image"):
        load_protocol(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RirfError, match="is not a folder"):
        load_protocol(tmp_path / "file")
    with pytest.raises(RirfError, match="there is v1"):
        load_protocol(root, name="v2")
    for limit in (1, 0, -3):
        with pytest.raises(RirfError, match="at least 2"):
            load_protocol(root, limit=limit)


def test_a_class_map_of_another_size_is_refused(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(root, copy)
    case = load_protocol(copy).cases[-1]
    assert case.labels is not None
    cv2.imwrite(str(case.labels), np.zeros((20, 30), dtype=np.uint8))
    with pytest.raises(ImageError, match="class map of 30 x 20"):
        draw(case)


def test_a_broken_image_is_named(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(root, copy)
    case = load_protocol(copy).cases[0]
    case.path.write_bytes(b"")
    with pytest.raises(ImageError, match=case.path.name):
        draw(case)
