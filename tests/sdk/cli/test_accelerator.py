from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from rirf.cli import accelerator, main
from rirf.cli.doctor import examine

pytestmark = pytest.mark.lean

BOARD = "NVIDIA Jetson AGX Orin Developer Kit"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """The device tree's name of a Jetson."""
    file = tmp_path / "model"
    file.write_bytes(BOARD.encode() + b"\0")
    return file


def nvpmodel(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = folder / "nvpmodel"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_jetson_names_its_power_mode(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvpmodel(tmp_path, "[ $1 = -q ] && printf 'NV Power Mode: MAXN\\n0\\n'", monkeypatch)
    assert accelerator.jetson(board) == {"model": BOARD, "power mode": "MAXN"}


@pytest.mark.parametrize(
    ("script", "expected"),
    [("echo no rights >&2; exit 1", "nvpmodel -q said no rights"), ("exit 0", "said nothing")],
)
def test_a_power_mode_that_cannot_be_read(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: str
) -> None:
    nvpmodel(tmp_path, script, monkeypatch)
    assert expected in accelerator.jetson(board)["power mode"]


def test_a_jetson_without_its_tools(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert accelerator.jetson(board)["power mode"] == "not known: nvpmodel is not installed"


def test_other_boards_are_no_jetson(tmp_path: Path) -> None:
    assert accelerator.jetson(tmp_path / "absent") == {}
    (tmp_path / "model").write_text("Raspberry Pi 5")
    assert accelerator.jetson(tmp_path / "model") == {}


def test_libraries_are_those_that_are_installed() -> None:
    found = accelerator.libraries()
    modules = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
    assert set(found) <= {name for name, module in modules.items() if find_spec(module)}
    for state in found.values():
        assert state[0].isdigit() or state.startswith("does not start: ")


def test_the_report_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {name for name in report["tensorrt"] if name != "GPU"} == set(accelerator.libraries())
    text = examine().to_text()
    for name, state in report["tensorrt"].items():
        assert f"  {name}" in text and state in text


def test_engines_are_run_when_asked_and_fail_with_a_reason(tmp_path: Path) -> None:
    if find_spec("pycuda") is not None:
        pytest.skip("pycuda is installed: the engines may run here")
    report = examine(engines=True)
    assert report.ok  # ONNX Runtime still works
    warnings = [item.what for item in report.findings if item.level == "warning"]
    if accelerator.libraries():
        assert any("engines: does not work: pycuda" in what for what in warnings)
    else:
        assert "there is no TensorRT to run engines with" in warnings
