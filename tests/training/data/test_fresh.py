from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from rirf.degradation import LabelPrior, degrade, geometric
from rirf.errors import ImageError
from rirf.images import read_image, to_float, to_uint8
from rirf.scene import observe
from rirf_training.data import Draw, FreshDraws, Order, find_clean
from rirf_training.loop import generator
from tests.sdk.pictures import files_below, photo, save

MANY = 400


def assert_same(one: Draw, other: Draw) -> None:
    np.testing.assert_array_equal(one.clean, other.clean)
    np.testing.assert_array_equal(one.degraded, other.degraded)
    np.testing.assert_array_equal(one.transmission, other.transmission)
    assert one.diagnosis == other.diagnosis


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_draw_is_the_picture_degraded(fresh: FreshDraws, pictures: Path, mirrored: bool) -> None:
    labelled = 0
    images = {clean.name: clean for clean in find_clean(pictures, ("test",))}
    for number, name in enumerate(fresh.names):
        clean, step = images[name], -1 if mirrored else 1
        frame = np.ascontiguousarray(read_image(clean.path)[:, ::step])
        labels = None
        if clean.labels is not None:
            labelled += 1
            labels = np.ascontiguousarray(LabelPrior.from_file(clean.labels).labels[:, ::step])
        expected = degrade(
            to_float(frame),
            99 + number,
            prior=geometric if labels is None else LabelPrior(labels),
            labels=labels,
        )
        order = Order(number, mirrored, 99 + number)
        draw = fresh.make(order)
        np.testing.assert_array_equal(draw.clean, frame)
        np.testing.assert_array_equal(draw.degraded, to_uint8(expected.image))
        assert draw.diagnosis == expected.diagnosis
        assert fresh.shape(order) == frame.shape
        layout = observe(to_float(frame), labels)
        np.testing.assert_array_equal(draw.layout.detail, layout.detail)
        assert (draw.layout.classes is None) is (labels is None)
        if layout.classes is not None:
            np.testing.assert_array_equal(draw.layout.classes, layout.classes)
    assert 0 < labelled < len(fresh.names)


def test_orders_are_a_function_of_the_random_numbers(fresh: FreshDraws) -> None:
    assert fresh.orders(generator(0, 5), 32) == fresh.orders(generator(0, 5), 32)
    assert fresh.orders(generator(0, 6), 32) != fresh.orders(generator(0, 5), 32)
    orders = fresh.orders(generator(0, 0), MANY)
    assert len({order.seed for order in orders}) == MANY
    assert max(order.seed for order in orders) > 2**63
    assert sum(order.mirrored for order in orders) / MANY == pytest.approx(0.5, abs=0.08)
    counts = np.bincount([order.image for order in orders], minlength=len(fresh.names))
    assert counts.min() > 0.5 * MANY / len(fresh.names)


def test_the_number_of_threads_changes_nothing(pictures: Path, tmp_path: Path) -> None:
    images = find_clean(pictures, ("test",))
    sets = [FreshDraws(tmp_path, images, workers=n, progress=False) for n in (1, 4)]
    orders = sets[0].orders(generator(3, 1), 24)
    one, four = (each.map(lambda draw, place: (draw, place), orders) for each in sets)
    assert [place for _, place in four] == list(range(24))
    for (first, _), (second, _) in zip(one, four, strict=True):
        assert_same(first, second)


def test_no_two_draws_of_one_picture_are_equal(fresh: FreshDraws) -> None:
    texts = {fresh.make(Order(0, False, seed)).diagnosis.to_json() for seed in range(12)}
    # One seed in sixteen draws no effect; the light is drawn all the same.
    assert len(texts) == 12


def test_decoded_pictures_are_used_again(pictures: Path, tmp_path: Path) -> None:
    images = find_clean(pictures, ("test",))
    FreshDraws(tmp_path, images, progress=False)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files_below(tmp_path)}
    assert len(before) == 8 * 2 + 4  # frame and layout of each, the label prior of the streets
    again = FreshDraws(tmp_path, images, progress=False)
    assert {n: (tmp_path / n).stat().st_mtime_ns for n in files_below(tmp_path)} == before
    # What a kill leaves: everything but the file that is written last.
    lost = next(tmp_path.glob("*.npz"))
    lost.unlink()
    (tmp_path / f"{lost.stem}.npy").write_bytes(b"half")
    mended = FreshDraws(tmp_path, images, progress=False)
    for number in range(len(images)):
        order = Order(number, True, 5)
        assert_same(mended.make(order), again.make(order))


def test_a_picture_that_changed_is_decoded_again(tmp_path: Path) -> None:
    file = save(tmp_path / "pictures" / "a.png", photo(32, 40, seed=1))
    images = find_clean(tmp_path / "pictures", ("train",))
    FreshDraws(tmp_path / "decoded", images, progress=False)
    save(file, photo(48, 40, seed=2))
    os.utime(file, ns=(1, 1))
    found = FreshDraws(tmp_path / "decoded", images, progress=False)
    np.testing.assert_array_equal(found.make(Order(0, False, 1)).clean, read_image(file))


def test_labels_of_another_size_are_fitted(tmp_path: Path) -> None:
    save(tmp_path / "town" / "train" / "a.png", photo(40, 60))
    labels = np.zeros((20, 30), dtype=np.uint8)
    labels[10:] = 3
    save(tmp_path / "town" / "labels" / "train" / "a.png", labels)
    images = find_clean(tmp_path, ("train",))
    draws = FreshDraws(tmp_path / "decoded", images, progress=False)
    found = draws.make(Order(0, False, 1))
    assert json.loads(found.diagnosis.to_json())["composition"] == {"sky": 0.5, "road": 0.5}


TONE = 0.3


@pytest.fixture(scope="module")
def toned(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> FreshDraws:
    """Fresh draws of all eight pictures, their tone changed."""
    folder = tmp_path_factory.mktemp("toned")
    return FreshDraws(folder, find_clean(pictures, ("test",)), progress=False, tone=TONE)


@pytest.fixture(scope="module")
def plain(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> FreshDraws:
    """The same pictures as they are."""
    folder = tmp_path_factory.mktemp("plain")
    return FreshDraws(folder, find_clean(pictures, ("test",)), progress=False, tone=0.0)


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_tone_is_a_gain_and_a_gamma(plain: FreshDraws, toned: FreshDraws, seed: int) -> None:
    order = Order(2, False, seed)
    before, after = plain.make(order).clean, toned.make(order).clean
    # Numbers of the seed's own, kept apart from those that degrade.
    random = np.random.Generator(np.random.Philox(key=seed + (1 << 64)))
    gain, gamma = (math.exp(random.uniform(-TONE, TONE)) for _ in range(2))
    assert before.shape == after.shape
    for level in np.unique(before):
        expected = 255 * min(1.0, gain * (int(level) / 255) ** gamma)
        assert set(after[before == level].tolist()) == {round(expected)}, level
    assert not np.array_equal(before, after)


def test_tones_are_spread_evenly(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(8, 168, dtype=np.uint8), 2).reshape(16, 20, 1).repeat(3, axis=2)
    save(tmp_path / "pictures" / "a.png", ramp)
    images = find_clean(tmp_path / "pictures", ("train",))
    draws = FreshDraws(tmp_path / "decoded", images, progress=False, tone=TONE)
    found = []
    for seed in range(120):
        clean = draws.make(Order(0, False, seed)).clean
        inside = (clean > 0) & (clean < 255)
        # log out = log gain + gamma log in
        levels = np.log(np.stack([ramp[inside], clean[inside]]) / 255.0)
        gamma, log_gain = np.polyfit(levels[0], levels[1], 1)
        found.append((log_gain, np.log(gamma)))
    drawn = np.array(found)
    assert np.abs(drawn).max() < TONE + 0.05  # read off rounded levels
    quarters = [np.mean(np.digitize(drawn, [-TONE / 2, 0, TONE / 2]) == n) for n in range(4)]
    assert min(quarters) > 0.15
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.35


def test_tone_is_off_at_zero_and_by_default(
    plain: FreshDraws, pictures: Path, tmp_path: Path
) -> None:
    images = find_clean(pictures, ("test",))
    default = FreshDraws(tmp_path, images, progress=False)
    for number, clean in enumerate(images):
        order = Order(number, False, 3)
        assert_same(default.make(order), plain.make(order))
        np.testing.assert_array_equal(plain.make(order).clean, read_image(clean.path))


def test_the_same_order_gives_the_same_tone(
    toned: FreshDraws, pictures: Path, tmp_path: Path
) -> None:
    again = FreshDraws(
        tmp_path, find_clean(pictures, ("test",)), workers=4, progress=False, tone=TONE
    )
    orders = toned.orders(generator(1, 1), 16)
    backwards = again.map(lambda draw, _: draw, orders[::-1])[::-1]
    for order, other in zip(orders, backwards, strict=True):
        assert_same(toned.make(order), other)
    # Two seeds that are one and the same in double precision.
    one, two = (toned.make(Order(0, False, seed)).clean for seed in (2**63, 2**63 + 1))
    assert not np.array_equal(one, two)
    mirrored = toned.make(Order(0, True, 2**63)).clean
    np.testing.assert_array_equal(mirrored, one[:, ::-1])


@pytest.mark.parametrize("mirrored", [False, True])
def test_layout_and_degradation_are_of_the_toned_frame(
    toned: FreshDraws, plain: FreshDraws, pictures: Path, mirrored: bool
) -> None:
    step = -1 if mirrored else 1
    labelled = 0
    for number, clean in enumerate(find_clean(pictures, ("test",))):
        order = Order(number, mirrored, 40 + number)
        draw, untoned = toned.make(order), plain.make(order)
        frame = to_float(np.ascontiguousarray(draw.clean))
        labels = None
        if clean.labels is not None:
            labelled += 1
            labels = np.ascontiguousarray(LabelPrior.from_file(clean.labels).labels[:, ::step])
        layout = observe(frame, labels)
        np.testing.assert_array_equal(draw.layout.colours, layout.colours)
        np.testing.assert_array_equal(draw.layout.detail, layout.detail)
        assert np.abs(draw.layout.colours - untoned.layout.colours).max() > 0.005
        if untoned.layout.classes is None or draw.layout.classes is None:
            assert untoned.layout.classes is draw.layout.classes
        else:
            np.testing.assert_array_equal(draw.layout.classes, untoned.layout.classes)
        expected = degrade(
            frame,
            order.seed,
            prior=geometric if labels is None else LabelPrior(labels),
            labels=labels,
        )
        np.testing.assert_array_equal(draw.degraded, to_uint8(expected.image))
        assert draw.diagnosis == expected.diagnosis
    assert 0 < labelled < 8


def test_orders_can_be_written_down(toned: FreshDraws) -> None:
    orders = toned.orders(generator(0, 9), 12)
    record = json.loads(json.dumps(toned.describe(orders)))
    assert all(set(row) == {"image", "mirrored", "seed"} for row in record)
    read = [Order(toned.names.index(r["image"]), r["mirrored"], r["seed"]) for r in record]
    assert read == orders


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "b.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"b\.png"):
        FreshDraws(
            tmp_path / "decoded", find_clean(tmp_path / "pictures", ("train",)), progress=False
        )
