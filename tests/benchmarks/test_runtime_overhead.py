"""The runtime's cost, measured once with the shipped bundle by the benchmark itself."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "runtime_overhead.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("runtime_overhead", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rows_targets_and_exit_status(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A target nothing can meet: --check must say so, and only for this row.
    monkeypatch.setitem(script.TARGETS, "import", 0.0)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--rounds", "2", "--check"])
    assert script.main() == 1
    printed = capsys.readouterr().out.splitlines()
    record = json.loads(printed[-1])
    rows = {row["name"]: row for row in record["rows"]}
    assert list(rows) == ["overhead", "import", "memory"]
    assert record["ok"] is False and rows["import"]["ok"] is False

    assert rows["import"]["value"] <= 0.3
    assert not rows["import"]["details"]["torch"]
    assert rows["memory"]["ok"] and rows["memory"]["size"] == "3840x2160"
    assert not rows["memory"]["details"]["torch"]
    # Two rounds on a busy machine prove no 1.25; a pipeline that wastes half its time would show.
    assert 0.5 < rows["overhead"]["value"] < 2.0
    for name in ("overhead", "memory"):
        row = rows[name]
        assert row["provider"] == "CPUExecutionProvider"
        assert row["threads"] == 2 and row["steps"] == "coarse" and row["device"] != "-"
    assert printed[0].split()[:4] == ["name", "measured", "target", "ok"]
