"""``rirf diagnose``: the text form, one JSON object, JSON lines, bad pictures among good ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rirf as library
from rirf.cli import main
from rirf.diagnosis import Diagnosis
from tests.sdk.pictures import photo, rirf, save

pytestmark = pytest.mark.lean


@pytest.fixture
def expected() -> Diagnosis:
    with library.load() as pipeline:
        return pipeline.diagnose(photo())


def test_text_for_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], expected: Diagnosis
) -> None:
    assert main(["diagnose", str(save(tmp_path / "f.png"))]) == 0
    assert Diagnosis.from_text(capsys.readouterr().out) == expected


def test_json_for_one_file(tmp_path: Path, expected: Diagnosis) -> None:
    done = rirf("diagnose", save(tmp_path / "f.png"), "--json", "--threads", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Diagnosis.from_json(done.stdout) == expected
    assert done.stderr == ""


def test_json_lines_for_a_folder(tmp_path: Path, expected: Diagnosis) -> None:
    save(tmp_path / "in/a.png")
    save(tmp_path / "in/sub/a.png", photo(40, 40))
    done = rirf("diagnose", "in", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["file"] == "in/a.png"
    assert second["file"] == "in/sub/a.png"
    assert Diagnosis.from_json(json.dumps(first["diagnosis"])) == expected


def test_a_folder_of_one_gives_a_line_too(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    done = rirf("diagnose", "in", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["file"] == "in/a.png"


def test_text_for_several_names_each_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], expected: Diagnosis
) -> None:
    paths = [str(save(tmp_path / name)) for name in ("a.png", "b.png")]
    assert main(["diagnose", *paths]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    for path, block in zip(paths, blocks, strict=False):
        name, text = block.split("\n", 1)
        assert name == path
        assert Diagnosis.from_text(text) == expected


def test_a_bad_picture_is_reported_and_the_rest_go_on(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_bytes(b"words")
    save(tmp_path / "in/c.png")
    done = rirf("diagnose", "in", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == [
        "in/a.png",
        "in/c.png",
    ]
    assert done.stderr.startswith("rirf: in/b.png: cannot be decoded")
    assert done.stderr.count("\n") == 1


def test_one_bad_picture_alone_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save(tmp_path / "dot.png", photo(1, 1))
    assert main(["diagnose", str(source), "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1 x 1 pixels" in captured.err


def test_a_missing_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save(tmp_path / "f.png")
    assert main(["diagnose", str(source), "--bundle", str(tmp_path / "none.rirf")]) == 1
    assert "none.rirf" in capsys.readouterr().err
