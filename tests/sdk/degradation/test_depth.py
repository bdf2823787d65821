from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rirf.degradation import depth
from rirf.degradation.depth import FilePrior, LabelPrior, geometric, prior_from_depth
from rirf.errors import ImageError
from rirf.scene import CLASSES
from tests.strategies import SEEDS

pytestmark = pytest.mark.lean

SIZES = st.tuples(st.integers(16, 70), st.integers(16, 70))
HEIGHT, WIDTH = 120, 160
HORIZON = 60


def street() -> np.ndarray:
    """Sky above row 60, road below; a near and a far car; a tree whose foot stands between."""
    labels = np.full((HEIGHT, WIDTH), CLASSES.index("sky"), dtype=np.uint8)
    labels[HORIZON:] = CLASSES.index("road")
    labels[62:66, 70:80] = CLASSES.index("car")
    labels[80:115, 110:150] = CLASSES.index("car")
    labels[20:80, 10:30] = CLASSES.index("tree")
    return labels


def test_depth_to_prior() -> None:
    found = prior_from_depth(np.array([[0.0, 0.5, 1.0, -3.0, 7.0]], dtype=np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1.0, 0.6, 0.2, 1.0, 0.2]], atol=1e-6)


@given(SEEDS, SIZES)
def test_geometric_is_a_prior(seed: int, size: tuple[int, int]) -> None:
    found = geometric(seed, *size)
    assert found.shape == size
    assert found.dtype == np.float32
    assert found.min() >= 0.2 - 1e-6
    assert found.max() <= 1.0
    np.testing.assert_array_equal(found, geometric(seed, *size))


def test_geometric_ground_comes_nearer_towards_the_bottom() -> None:
    for seed in range(20):
        rows = geometric(seed, HEIGHT, WIDTH).mean(axis=1)
        ground = rows[int(0.6 * HEIGHT) :]  # below every horizon that is drawn
        assert np.all(np.diff(ground) > -2e-3), seed
        assert ground[-1] > rows[: int(0.2 * HEIGHT)].mean(), seed
        assert ground[-1] > 0.8, seed


def test_geometric_horizons_and_grounds(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = np.zeros((400, 1), dtype=np.float32)
    monkeypatch.setattr(depth, "_smooth_field", lambda *_: flat)  # the bare plane, hardly softened
    monkeypatch.setattr(depth, "_HORIZON_BLUR", 0.0)
    columns = np.array([geometric(seed, 400, 1)[:, 0] for seed in range(300)])
    horizons = (columns < 0.2 + 1e-4).mean(axis=1)
    assert 0.195 <= horizons.min() < 0.21
    assert 0.54 < horizons.max() <= 0.555
    assert np.all(np.diff(columns) > -1e-6)
    # Steepness 4 to 12: the nearest ground has depth 1/5 to 1/13.
    assert 0.84 - 1e-3 <= columns[:, -1].min() < 0.85
    assert 0.93 < columns[:, -1].max() <= 1 - 0.8 / 13 + 1e-3


def test_geometric_draws_no_line_across_the_frame() -> None:
    # The steepest change from row to row stays gentle, at every height alike.
    for height in (120, 480):
        steps = [np.abs(np.diff(geometric(s, height, 32).mean(axis=1))).max() for s in range(40)]
        assert max(steps) * height < 4.0


def test_geometric_varies_with_the_seed_and_over_the_frame() -> None:
    maps = [geometric(seed, HEIGHT, WIDTH) for seed in range(4)]
    assert all(found.std() > 0.1 for found in maps)
    assert np.abs(maps[0] - maps[1]).mean() > 0.01


def test_geometric_keeps_its_shape_when_the_frame_is_scaled() -> None:
    small, large = geometric(5, 90, 120), geometric(5, 360, 480)
    shrunk = np.asarray(cv2.resize(large, (120, 90), interpolation=cv2.INTER_AREA))
    assert np.abs(small - shrunk).mean() < 0.01


@settings(max_examples=30)
@given(SEEDS, SIZES, st.integers(0, 2**32 - 1))
def test_any_labels_give_a_prior(seed: int, size: tuple[int, int], noise: int) -> None:
    labels = np.random.default_rng(noise).integers(0, 12, (30, 40), dtype=np.uint8)
    found = LabelPrior(labels)(seed, *size)
    assert found.shape == size
    assert found.dtype == np.float32
    assert found.min() >= 0.2 - 1e-6
    assert found.max() <= 1.0


def test_labels_sky_far_objects_at_their_foot() -> None:
    prior = LabelPrior(street())
    for seed in range(10):
        found = prior(seed, HEIGHT, WIDTH)
        sky, road = found[5:40, 80:], found[:, 95]
        assert sky.max() < 0.3  # depth 1, less at most a tenth of smooth texture
        assert np.all(np.diff(road[HORIZON + 4 : -2]) > -2e-3)
        near, far = found[85:112, 115:145].mean(), found[63:65, 72:78].mean()
        assert near > far + 0.1
        # An object has the depth of the row it stands on, up to the texture.
        assert near == pytest.approx(road[114], abs=0.05)
        tree = found[25:75, 15:25]
        assert tree.mean() == pytest.approx(road[79], abs=0.08)
        assert tree.mean() > sky.mean() + 0.1


def test_sky_is_far_even_below_the_horizon() -> None:
    labels = street()
    labels[95:115, 40:60] = CLASSES.index("sky")
    found = LabelPrior(labels)(2, HEIGHT, WIDTH)
    assert found[100:110, 45:55].max() < 0.3
    assert found[100:110, 85:100].min() > 0.5


def test_labels_without_ground_still_have_a_horizon() -> None:
    labels = np.full((40, 40), CLASSES.index("building"), dtype=np.uint8)
    found = LabelPrior(labels)(3, 40, 40)
    assert found.std() < 0.1  # one object, one depth
    assert found.mean() > 0.7  # its foot is at the bottom: near


def test_label_files(tmp_path: Path) -> None:
    path = tmp_path / "labels.png"
    cv2.imwrite(str(path), street())
    np.testing.assert_array_equal(LabelPrior.from_file(path).labels, street())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), "single-channel PNG"),
        (np.zeros((4, 4), np.uint16), "single-channel PNG"),
        (np.full((4, 4), 12, np.uint8), "holds the class 12; expected 0 to 10, or 11"),
    ],
)
def test_other_pictures_are_no_labels(tmp_path: Path, array: np.ndarray, message: str) -> None:
    path = tmp_path / "labels.png"
    cv2.imwrite(str(path), array)
    with pytest.raises(ImageError, match=message):
        LabelPrior.from_file(path)


def test_missing_labels_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nothing readable"):
        LabelPrior.from_file(tmp_path / "missing.png")


def test_depth_files_of_any_scale(tmp_path: Path) -> None:
    metres = np.linspace(0.0, 80.0, 40 * 60).reshape(40, 60)
    np.save(tmp_path / "metres.npy", metres)
    png = (metres / 80 * 65535).round().astype(np.uint16)
    cv2.imwrite(str(tmp_path / "sixteen.png"), png)
    cv2.imwrite(str(tmp_path / "eight.png"), (png >> 8).astype(np.uint8))
    expected = prior_from_depth((metres / np.percentile(metres, 99)).astype(np.float32))
    for name, tolerance in (("metres.npy", 1e-5), ("sixteen.png", 1e-4), ("eight.png", 5e-3)):
        found = FilePrior.from_file(tmp_path / name)(0, 40, 60)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=tolerance)
        assert found[0, 0] > 0.99 and found[-1, -1] == pytest.approx(0.2)


def test_transmission_files_are_taken_as_they_are(tmp_path: Path) -> None:
    values = np.array([[0.0, 0.25], [0.5, 1.0]], dtype=np.float32)
    np.save(tmp_path / "t.npy", values)
    found = FilePrior.from_file(tmp_path / "t.npy", "transmission")(0, 2, 2)
    np.testing.assert_allclose(found, [[1e-3, 0.25], [0.5, 1.0]])


def test_file_priors_fit_the_frame_and_ignore_the_seed(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.random.default_rng(0).random((10, 12)))
    prior = FilePrior.from_file(tmp_path / "d.npy")
    found = prior(1, 31, 45)
    assert found.shape == (31, 45)
    assert found.min() >= 0.2 - 1e-6 and found.max() <= 1.0
    np.testing.assert_array_equal(found, prior(2, 31, 45))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 4, 3)), r"one channel \(H, W\), got shape \(4, 4, 3\)"),
        (np.zeros((0, 4)), "one channel"),
        (np.full((4, 4), np.nan), "finite values"),
        (np.full((4, 4), -1.0), "finite values"),
        (np.zeros((4, 4)), "finite values"),
        (np.array([["a", "b"]]), "cannot be read as a depth map"),
        (np.array([[None]]), "cannot be read as a depth map"),
    ],
)
def test_other_arrays_are_no_depth(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "d.npy", values)
    with pytest.raises(ImageError, match=message):
        FilePrior.from_file(tmp_path / "d.npy")


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY\x01\x00v\x00{", b"hello", b"\x89PNG\r\n\x1a\n"]
)
@pytest.mark.parametrize("name", ["d.npy", "d.png"])
def test_damaged_files_are_reported(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=r"d\.(npy|png): cannot be read"):
        FilePrior.from_file(tmp_path / name)


def test_an_archive_of_arrays_is_reported(tmp_path: Path) -> None:
    with (tmp_path / "d.npy").open("wb") as file:
        np.savez(file, depth=np.ones((4, 4)))
    with pytest.raises(ImageError, match="an archive of arrays, expected one array"):
        FilePrior.from_file(tmp_path / "d.npy")


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    for name in ("none.npy", "none.png"):
        with pytest.raises(ImageError, match="cannot be read"):
            FilePrior.from_file(tmp_path / name)


def test_labels_worked_through_give_the_same_prior() -> None:
    for labels in (street(), np.full((30, 40), 5, dtype=np.uint8)):
        prior = LabelPrior(labels)
        standing = prior.standing()
        # As it is kept on disk: few bytes a pixel, and read-only.
        rows = standing.rows.astype(np.uint16)
        rows.flags.writeable = False
        kept = depth.StandingPrior(rows, standing.horizon)
        for seed in range(4):
            np.testing.assert_array_equal(kept(seed, *labels.shape), prior(seed, *labels.shape))


def test_labels_worked_through_can_be_mirrored() -> None:
    labels = street()
    mirrored = LabelPrior(np.ascontiguousarray(labels[:, ::-1])).standing()
    plain = LabelPrior(labels).standing()
    np.testing.assert_array_equal(mirrored.rows, plain.rows[:, ::-1])
    assert mirrored.horizon == plain.horizon == HORIZON / HEIGHT
