"""``rirf eval`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rirf.cli import main
from rirf.images import read_image


def test_table_record_and_sheet(
    small_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, sheet = tmp_path / "out.json", tmp_path / "sheet.png"
    command = ["eval", "--data", str(small_root), "--protocol", "v1", "--limit", "4"]
    status = main([*command, "--threads", "1", "--json", str(record), "--sheet", str(sheet)])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert "protocol v1: 4 of 14 images" in printed.out
    assert json.loads(record.read_text())["images"] == 4
    assert read_image(sheet).shape[1] > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "sheet.png"]


def test_nothing_is_written_unasked(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(small_root.rglob("*"))
    assert main(["eval", "--data", str(small_root), "--limit", "2", "--threads", "1"]) == 0
    assert list(tmp_path.iterdir()) == []
    assert sorted(small_root.rglob("*")) == before


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--limit", "1"], "at least 2"),
        (["--protocol", "v9"], "there is v1"),
        (["--json", "no/such/folder/out.json"], "does not exist"),
        (["--json", "out.txt"], "ends in .json"),
        (["--sheet", "sheet.gif"], "ends in"),
        (["--bundle", "missing.rirf"], "missing.rirf"),
    ],
)
def test_wrong_arguments_are_refused(
    small_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "--data", str(small_root), *extra]) == 1
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_data_root_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--data", str(tmp_path / "nowhere")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_an_output_that_is_a_folder_is_refused_before_the_run(
    small_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.json").mkdir()
    status = main(["eval", "--data", str(small_root), "--json", str(tmp_path / "out.json")])
    printed = capsys.readouterr()
    assert status == 1 and "is a folder" in printed.err and printed.out == ""
