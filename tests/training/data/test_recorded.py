from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rirf.diagnosis import Diagnosis
from rirf.errors import DiagnosisError, ImageError
from rirf_training.data import RecordedPairs
from tests.sdk.pictures import files_below, photo, save
from tests.sdk.test_diagnosis import example
from tests.training.recording import record

DIAGNOSIS = Diagnosis.model_validate(example())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three outputs, of two sizes; the truth of one."""
    made = tmp_path / "made"
    for number, name in enumerate(("street", "a.b", "park")):
        frame, restored = photo(64, 80 + 16 * number), photo(64, 80 + 16 * number, seed=1)
        clean = photo(64, 96, seed=2) if name == "a.b" else None
        record(made, name, frame, restored, DIAGNOSIS, clean)
    (made / "notes.txt").write_text("by hand")
    (made / "metrics.json").write_text("{}")
    return made


def opened(folder: Path, workers: int = 2) -> RecordedPairs:
    return RecordedPairs(folder, folder.parent / "decoded", workers=workers, progress=False)


def test_pairs(folder: Path) -> None:
    pairs = opened(folder)
    assert pairs.names == ("a.b", "park", "street")
    assert len(pairs) == 3
    assert list(pairs.diagnoses) == [DIAGNOSIS] * 3
    street, other = pairs.pair(2), pairs.pair(0)
    np.testing.assert_array_equal(street.degraded, photo(64, 80))
    np.testing.assert_array_equal(street.restored, photo(64, 80, seed=1))
    assert street.clean is None
    np.testing.assert_array_equal(other.restored, photo(64, 96, seed=1))
    assert other.clean is not None
    np.testing.assert_array_equal(other.clean, photo(64, 96, seed=2))
    with pytest.raises(ValueError, match="read-only"):
        street.degraded[0, 0, 0] = 1


def test_pictures_are_decoded_once(folder: Path) -> None:
    opened(folder)
    decoded = folder.parent / "decoded"
    before = {name: (decoded / name).stat().st_mtime_ns for name in files_below(decoded)}
    assert len(before) == 3
    assert opened(folder, workers=1).names == ("a.b", "park", "street")
    assert {name: (decoded / name).stat().st_mtime_ns for name in files_below(decoded)} == before
    # Another picture under the same name is another one, whatever its time stamp says.
    path = folder / "park.restored.png"
    stamp = path.stat().st_mtime_ns
    save(path, photo(64, 112, seed=5))
    os.utime(path, ns=(stamp, stamp))
    np.testing.assert_array_equal(opened(folder).pair(1).restored, photo(64, 112, seed=5))


def test_the_digest_is_of_what_is_used(folder: Path) -> None:
    before = opened(folder).sha256
    assert opened(folder, workers=1).sha256 == before
    (folder / "notes.txt").write_text("changed")
    assert opened(folder).sha256 == before
    seen = {before}
    save(folder / "park.restored.png", photo(64, 112, seed=5))
    seen.add(opened(folder).sha256)
    other = example("shake.direction_deg", 31.0)
    (folder / "park.json").write_text(Diagnosis.model_validate(other).to_json())
    seen.add(opened(folder).sha256)
    save(folder / "park.clean.png", photo(64, 112, seed=6))
    seen.add(opened(folder).sha256)
    for end in ("degraded.png", "restored.png", "json"):
        (folder / f"street.{end}").rename(folder / f"road.{end}")
    seen.add(opened(folder).sha256)
    assert len(seen) == 5


@pytest.mark.parametrize("missing", ["degraded.png", "restored.png", "json"])
def test_a_missing_partner(folder: Path, missing: str) -> None:
    (folder / f"park.{missing}").unlink()
    with pytest.raises(ImageError, match=rf"park lacks park\.{missing}; record it again or delete"):
        opened(folder)


def test_a_clean_picture_alone(folder: Path) -> None:
    save(folder / "lake.clean.png")
    message = r"lake lacks lake\.degraded\.png and lake\.restored\.png and lake\.json; record it"
    with pytest.raises(ImageError, match=message):
        opened(folder)


@pytest.mark.parametrize("name", ["restored", "clean"])
def test_sizes_that_differ(folder: Path, name: str) -> None:
    save(folder / f"street.{name}.png", photo(64, 64))
    with pytest.raises(
        ImageError, match=rf"street\.{name}\.png is 64x64, but street\.degraded\.png is 80x64; exp"
    ):
        opened(folder)


@pytest.mark.parametrize("text", ["", "{}", '{"fog": 3}', "\xff"])
def test_a_bad_diagnosis(folder: Path, text: str) -> None:
    (folder / "street.json").write_text(text, encoding="latin-1")
    with pytest.raises(DiagnosisError, match=r"street\.json: not a diagnosis of schema 1"):
        opened(folder)


def test_a_damaged_picture(folder: Path) -> None:
    path = folder / "street.restored.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageError, match=r"street\.restored\.png: this PNG is cut short"):
        opened(folder)


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none: cannot be listed .*expected a folder of recorded"):
        opened(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=r"no recorded outputs here; expected NAME\.degraded\.png"):
        opened(tmp_path / "empty")
