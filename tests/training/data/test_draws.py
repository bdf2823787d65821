from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rirf.errors import ImageError
from rirf.images import read_image
from rirf_training.data import DrawSet, find_clean, render
from rirf_training.data.draws import MAP_SIZE
from tests.sdk.pictures import files_below, save
from tests.training.conftest import SHARE


def contents(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in files_below(root)}


def small(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        from tests.sdk.pictures import photo

        save(folder / name, photo(32, 40, seed=number))
    return folder


def test_shapes_and_types(draws: DrawSet, pictures: Path) -> None:
    assert len(draws) == 8 * 4
    assert draws.names[0] == "bsds500/test/1000.jpg"
    for position in range(len(draws)):
        clean, degraded = draws.clean(position), draws.degraded(position)
        assert clean.dtype == degraded.dtype == np.uint8
        assert clean.shape == degraded.shape
        assert draws.diagnosis(position).source == "oracle"
        transmission = draws.transmission(position)
        assert transmission.shape == (MAP_SIZE, MAP_SIZE)
        assert transmission.dtype == np.float32
        assert 0 < transmission.min() <= transmission.max() <= 1
        assert (transmission.min() < 1) == draws.diagnosis(position).fog.present
    first = read_image(pictures / draws.names[0])
    np.testing.assert_array_equal(draws.clean(0), first)


def test_every_effect_occurs_and_no_two_draws_are_equal(draws: DrawSet) -> None:
    found = [draws.diagnosis(position) for position in range(len(draws))]
    for name in ("fog", "shake", "rain", "noise"):
        assert 0 < sum(each.effect(name).present for each in found) < len(found)
    assert len({each.to_json() for each in found}) == len(found)


def test_odd_draws_are_of_the_mirrored_picture(draws: DrawSet) -> None:
    for position in range(1, len(draws), 2):
        clean = draws.clean(position)
        np.testing.assert_array_equal(clean, draws.clean(position - 1)[:, ::-1])
        degraded = draws.degraded(position).astype(float)
        error = np.abs(degraded - clean).mean()
        assert error < np.abs(degraded - clean[:, ::-1]).mean()


def test_labels_are_mirrored_with_the_picture(draws: DrawSet) -> None:
    known = 0
    for position in range(1, len(draws), 2):
        odd, even = draws.layout(position), draws.layout(position - 1)
        if odd.classes is None or even.classes is None:
            assert odd.classes is even.classes
            continue
        known += 1
        # 160 pixels by 4 cells: the grid's mirror image is the mirrored picture's grid.
        np.testing.assert_allclose(odd.classes, even.classes[:, :, ::-1], atol=1e-6)
        np.testing.assert_allclose(odd.colours, even.colours[:, :, ::-1], atol=1e-6)
        assert not np.array_equal(odd.classes, even.classes)
        assert draws.diagnosis(position).composition == draws.diagnosis(position - 1).composition
    assert known == 4 * 2


def test_frames_are_read_only_maps(draws: DrawSet) -> None:
    for frame in (draws.degraded(0), draws.clean(0), draws.clean(1)):
        assert not frame.flags.writeable


def test_the_split_keeps_a_pictures_draws_together(draws: DrawSet) -> None:
    training, held = draws.split(SHARE)
    assert sorted([*training, *held]) == list(range(len(draws)))
    assert {int(position) // 4 for position in held} == {0, 7}


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    images = find_clean(small(tmp_path / "pictures", "a.png", "b.png", "c.png"), ("train",))
    for workers in (1, 2):
        # Libraries with running threads, as after training or restoring in this process.
        cv2.GaussianBlur(np.zeros((2000, 2000, 3), dtype=np.float32), (31, 31), 5)
        render(tmp_path / str(workers), images, 2, workers=workers, progress=False)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_stopped_rendering_continues_to_the_same_set(tmp_path: Path) -> None:
    images = find_clean(small(tmp_path / "pictures", "a.png", "b.png"), ("train",))
    whole = render(tmp_path / "whole", images, 3, workers=1, progress=False).root
    stopped = render(tmp_path / "stopped", images, 3, workers=1, progress=False).root
    # What a kill leaves: a draw without its record, half an archive, a file under its first name,
    # and an index that says so.
    (stopped / "draws" / "00000-001.json").unlink()
    (stopped / "maps" / "00000-001.npz").write_bytes(b"PK\x03\x04")
    for name in files_below(stopped):
        if "00001" in name:
            (stopped / name).unlink()
    index = json.loads((stopped / "index.json").read_text())
    (stopped / "index.json").write_text(json.dumps({**index, "finished": False}))
    kept = (stopped / "draws" / "00000-000.npy").stat().st_mtime_ns

    with pytest.raises(ImageError, match=r"no finished set of draws .*render it again"):
        DrawSet.open(stopped)
    render(stopped, images, 3, workers=1, progress=False)
    assert contents(stopped) == contents(whole)
    assert (stopped / "draws" / "00000-000.npy").stat().st_mtime_ns == kept


def test_more_draws_keep_the_first_ones(tmp_path: Path) -> None:
    images = find_clean(small(tmp_path / "pictures", "a.png", "b.png"), ("train",))
    render(tmp_path / "grown", images, 1, workers=1, progress=False)
    grown = render(tmp_path / "grown", images, 3, workers=1, progress=False)
    whole = render(tmp_path / "whole", images, 3, workers=1, progress=False)
    assert contents(grown.root) == contents(whole.root)
    fewer = render(tmp_path / "grown", images, 2, workers=1, progress=False)
    assert len(fewer) == 4
    # Position 2 is now the first draw of the second picture, draw 3 of the larger set.
    np.testing.assert_array_equal(fewer.degraded(2), whole.degraded(3))


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_other_pictures_is_refused(tmp_path: Path, finished: bool) -> None:
    first = find_clean(small(tmp_path / "first", "a.png"), ("train",))
    other = find_clean(small(tmp_path / "other", "b.png"), ("train",))
    cache = tmp_path / "cache"
    render(cache, first, 1, workers=1, progress=False)
    if not finished:
        index = json.loads((cache / "index.json").read_text())
        (cache / "index.json").write_text(json.dumps({**index, "finished": False}))
    before = contents(cache)
    with pytest.raises(ImageError, match=r"holds draws of other images .*name another cache"):
        render(cache, other, 1, workers=1, progress=False)
    assert contents(cache) == before


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    folder = small(tmp_path / "pictures", "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    images = find_clean(folder, ("train",))
    with pytest.raises(ImageError, match=r"b\.png"):
        render(tmp_path / "cache", images, 1, workers=1, progress=False)
    with pytest.raises(ImageError, match="no finished set"):
        DrawSet.open(tmp_path / "cache")


def test_nothing_rendered_here(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no finished set of draws here"):
        DrawSet.open(tmp_path)
