from __future__ import annotations

from pathlib import Path

import pytest

from rirf.errors import ImageError
from rirf_training.data.catalog import find_clean, held_out


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(root: Path, *splits: str) -> list[str]:
    return [clean.name for clean in find_clean(root, splits)]


def test_sets_and_splits(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "town/train/b.jpg",
        "town/val/a.png",
        "town/test/never.jpg",
        "park/train/c.JPEG",
        "loose.jpg",
    )
    assert names(tmp_path, "train", "val") == [
        "park/train/c.JPEG",
        "town/train/b.jpg",
        "town/val/a.png",
    ]
    assert names(tmp_path, "test") == ["town/test/never.jpg"]


def test_labels_are_found_and_never_taken_as_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "town/train/a.jpg", "town/train/b.jpg", "town/labels/train/a.png")
    found = find_clean(tmp_path, ("train",))
    assert [clean.labels for clean in found] == [tmp_path / "town/labels/train/a.png", None]
    assert [clean.path for clean in found] == [
        tmp_path / "town/train" / n for n in ("a.jpg", "b.jpg")
    ]
    # Seen from inside the set, labels/train looks like a set called "labels".
    with pytest.raises(ImageError, match="no images found"):
        find_clean(tmp_path / "town", ("train",))


def test_a_flat_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.webp", "notes.txt", "c.bmp", "sub/d.png")
    assert names(tmp_path, "train") == ["a.webp", "b.png", "c.bmp"]


def test_names_do_not_depend_on_where_the_root_is(tmp_path: Path) -> None:
    for root in ("here", "there/deeper"):
        touch(tmp_path / root, "town/train/a.jpg")
    assert names(tmp_path / "here", "train") == names(tmp_path / "there/deeper", "train")


def test_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "town/test/a.jpg", "readme.md")
    with pytest.raises(ImageError, match=r"no images found; expected .*train, val, or pictures"):
        find_clean(tmp_path, ("train", "val"))


def test_the_held_out_share() -> None:
    pictures = [f"town/train/{number}.jpg" for number in range(4000)]
    held = {share: {name for name in pictures if held_out(name, share)} for share in (0.05, 0.3)}
    for share, kept in held.items():
        assert len(kept) / len(pictures) == pytest.approx(share, abs=0.02)
    # A larger share keeps what the smaller one held out.
    assert held[0.05] < held[0.3]
