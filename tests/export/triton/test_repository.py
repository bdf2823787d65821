"""The folder that the server is given: what lies where, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rirf.bundle import MANIFEST, Bundle
from rirf.errors import BundleError, EngineError, OutputError
from rirf_export.triton import PIPELINE, REASONER, RESTORER, write_repository
from tests.export.triton.server import read_config
from tests.sdk.pictures import files_below


def test_what_lies_where(shipped: Path, tmp_path: Path) -> None:
    repository = write_repository(Bundle.open(shipped), tmp_path / "models")
    assert files_below(repository) == [
        "rirf/1/manifest.json",
        "rirf/1/model.py",
        "rirf/config.pbtxt",
        "rirf_reasoner/1/model.onnx",
        "rirf_reasoner/config.pbtxt",
        "rirf_restorer/1/model.onnx",
        "rirf_restorer/config.pbtxt",
    ]
    for name in (PIPELINE, REASONER, RESTORER):
        assert read_config(repository / name / "config.pbtxt").name == name
    for name, file in ((REASONER, "reasoner.onnx"), (RESTORER, "restorer.onnx")):
        assert (repository / name / "1/model.onnx").read_bytes() == (shipped / file).read_bytes()
    assert (repository / "rirf/1" / MANIFEST).read_bytes() == (shipped / MANIFEST).read_bytes()
    assert repository.stat().st_mode & 0o755 == 0o755
    assert files_below(repository.parent) == [f"models/{name}" for name in files_below(repository)]


def test_instances_go_to_every_model(shipped: Path, tmp_path: Path) -> None:
    folder = write_repository(Bundle.open(shipped), str(tmp_path / "new/models"), instances=2)
    for name in (PIPELINE, REASONER, RESTORER):
        (group,) = read_config(folder / name / "config.pbtxt").instance_group
        assert group.count == 2
    with pytest.raises(EngineError, match="instances is 0; expected 1 or more"):
        write_repository(Bundle.open(shipped), tmp_path / "other", instances=0)


def test_an_empty_folder_is_taken(shipped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    write_repository(Bundle.open(shipped), folder)
    assert (folder / "rirf/config.pbtxt").is_file()


def test_other_models_are_left_alone(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "models/detector").mkdir(parents=True)
    with pytest.raises(OutputError, match="is there and no empty folder; a server may be reading"):
        write_repository(Bundle.open(shipped), tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["detector"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="no empty folder"):
        write_repository(Bundle.open(shipped), tmp_path / "file")


def test_an_altered_bundle_leaves_nothing(shipped: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shipped, tmp_path / "copy.rirf"))
    bundle = Bundle.open(copy)
    (copy / "restorer.onnx").write_bytes(b"?")
    with pytest.raises(BundleError, match=r"restorer\.onnx: SHA-256"):
        write_repository(bundle, tmp_path / "models")
    assert [path.name for path in tmp_path.iterdir()] == ["copy.rirf"]


def test_a_place_that_cannot_be_written(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written: .*; choose a folder on a disk"):
        write_repository(Bundle.open(shipped), tmp_path / "file" / "models")


def test_a_write_that_breaks_off_leaves_nothing(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []

    def full(source: Path, target: Path) -> None:
        if copied:
            raise OSError(28, "No space left on device")
        copied.append(target.write_bytes(source.read_bytes()))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_repository(Bundle.open(shipped), tmp_path / "models")
    assert copied
    assert list(tmp_path.iterdir()) == []
