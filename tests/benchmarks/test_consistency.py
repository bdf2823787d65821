"""The benchmark on a small data root: every condition, both tables, one JSON line."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.sdk.evaluation.synthetic import data_root

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "consistency.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("consistency_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclass looks its module up by name.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_auc(script: ModuleType) -> None:
    right, wrong = np.array([1.0, 2.0]), np.array([2.0, 3.0])
    assert script.auc(right, wrong) == pytest.approx(0.875)
    assert script.auc(right, right) == pytest.approx(0.5)


def test_table_and_record(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = data_root(tmp_path, photographs=7, streets=5)
    script.main(["--data", str(root), "--limit", "12", "--threads", "1"])
    printed = capsys.readouterr().out.splitlines()
    record = json.loads(printed[-1])
    rows = record["conditions"]
    assert list(rows) == list(script.CONDITIONS)
    assert rows["true"]["frames"] == rows["shuffled"]["frames"] == record["images"] == 12
    assert printed[0].split()[:4] == ["diagnosis", "frames", "PSNR", "dB"]
    assert [line.split()[0] for line in printed[1:4]] == ["clean", "true", "predicted"]
    # With everything right, the residual is the size that was foretold.
    assert rows["clean"]["residual"] == pytest.approx(rows["clean"]["expected"], rel=0.15)
    assert rows["true"]["flagged"] <= 0.25 < rows["shuffled"]["flagged"]
    assert rows["shuffled"]["auc"]["discrepancy"]["true"] > 0.8
    assert rows["true"]["auc"]["discrepancy"]["true"] == 0.5
    assert set(record["cost"]) == {"with shake", "without shake"}
    for cost in record["cost"].values():
        assert 0.0 < cost["check_ms"] < cost["frame_ms"]
    assert record["provider"] == "CPUExecutionProvider" and record["threads"] == 1
