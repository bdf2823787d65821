"""What ``rirf export`` refuses; tests/training/test_cli.py exports and uses the bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rirf.bundle import Bundle
from rirf.cli import main
from rirf_export.cli import _METRIC_KEYS


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


RIGHT: dict[str, Any] = {
    "bypass_below": 3.5,
    "ladder": [{"above": 0.0, "mode": "coarse"}],
    "provenance": {"cases": 9},
}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        json.dumps({key: RIGHT[key] for key in ("bypass_below", "ladder")}),
        json.dumps({**RIGHT, "bypass_below": -1}),
        json.dumps({**RIGHT, "ladder": []}),
        json.dumps({**RIGHT, "ladder": [{"above": 0.0, "mode": "3"}]}),
        json.dumps({**RIGHT, "colour": "red"}),
        json.dumps({**RIGHT, "bypass_below": float("inf")}),
    ],
)
def test_a_policy_that_is_none(
    tiny_checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    file = tmp_path / "policy.json"
    if text is not None:
        file.write_text(text)
    pair = [tiny_checkpoints / "reasoner", tiny_checkpoints / "restorer"]
    status, error = export(capsys, *pair, "-o", tmp_path / "new.rirf", "--policy", file)
    assert status == 1
    assert "policy.json: expected the JSON written by benchmarks/step_policy.py" in error
    assert not (tmp_path / "new.rirf").exists()


def test_a_policy_and_metrics_reach_the_bundle(
    tiny_checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [str(tiny_checkpoints / "reasoner"), str(tiny_checkpoints / "restorer")]
    out, policy, metrics = (tmp_path / name for name in ("new.rirf", "policy.json", "v1.json"))
    policy.write_text(json.dumps(RIGHT))
    figures = {"psnr": 20.0, "ssim": 0.5}
    record: dict[str, Any] = dict.fromkeys(_METRIC_KEYS, figures)
    record |= {"protocol": "v1", "images": 2, "cases": ["not for a manifest"]}
    record |= {key: {} for key in ("per_dataset", "per_degradation", "reasoner", "clean")}
    record |= {"undegraded": {"images": 2, "untouched": 2, "touched": None, "worst": None}}
    metrics.write_text(json.dumps(record))
    arguments = ["-o", str(out), "--policy", str(policy), "--metrics", str(metrics), "--quiet"]
    assert main(["export", *pair, *arguments]) == 0
    printed = capsys.readouterr().out
    assert (
        "modes: bypass, coarse\npolicy: bypass below 3.5 of worst burden, coarse from 0\n"
        in printed
    )
    manifest = Bundle.open(out).manifest
    assert manifest.policy.bypass_below == 3.5
    assert manifest.provenance["policy"] == {"cases": 9, "fitted_on_these_graphs": False}
    assert set(manifest.metrics) == {*_METRIC_KEYS, "undegraded"}
