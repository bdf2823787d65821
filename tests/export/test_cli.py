"""What ``rirf export`` refuses; tests/training/test_cli.py exports and uses the bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rirf.cli import main


def export(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    status = main(["export", *map(str, arguments), "--quiet"])
    return status, capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b"], ["a", "b", "-o"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, error = export(capsys, *arguments)
    assert status == 2
    assert "usage: rirf export" in error


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "rirf export runs/reasoner runs/restorer -o edge.rirf" in printed


def test_refusals(
    tiny_checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reasoner, restorer = tiny_checkpoints / "reasoner", tiny_checkpoints / "restorer"
    (tmp_path / "there.rirf").mkdir()
    cases: dict[str, list[str | Path]] = {
        "none is no checkpoint": [tmp_path / "none", restorer, "-o", tmp_path / "new.rirf"],
        "holds a restorer, expected a reasoner": [restorer, reasoner, "-o", tmp_path / "new.rirf"],
        "name ends in .rirf": [reasoner, restorer, "-o", tmp_path / "new"],
        "exists; give another -o, or --force": [reasoner, restorer, "-o", tmp_path / "there.rirf"],
    }
    for message, arguments in cases.items():
        status, error = export(capsys, *arguments)
        assert status == 1, message
        assert error.startswith("rirf: error: ")
        assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["there.rirf"]


@pytest.mark.parametrize("text", [None, "", "[]", "3", "{}", json.dumps({"protocol": "v1"})])
def test_metrics_that_are_no_evaluation(
    tiny_checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    file = tmp_path / "metrics.json"
    if text is not None:
        file.write_text(text)
    pair = [tiny_checkpoints / "reasoner", tiny_checkpoints / "restorer"]
    status, error = export(capsys, *pair, "-o", tmp_path / "new.rirf", "--metrics", file)
    assert status == 1
    assert "metrics.json: expected the JSON written by rirf eval --json" in error
    assert not (tmp_path / "new.rirf").exists()
