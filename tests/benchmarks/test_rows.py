"""The ablation and the network search, end to end on a few pictures with tiny networks."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.networks import tiny_reasoner
from tests.sdk.evaluation.synthetic import data_root

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
TINY = {
    "network.channels": [8, 16],
    "network.blocks": [1, 1],
    "network.decoder_blocks": [1],
    "network.kernels": [3, 5],
    "network.condition": 8,
    "splits": ["test"],
    "validation_share": 0.3,
    "draws": 2,
    "patch": 64,
    "loop.steps": 3,
    "loop.batch": 2,
    "loop.validate_every": 3,
    "loop.validation_samples": 4,
    "loop.precision": "fp32",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_root(tmp_path_factory.mktemp("pictures"), photographs=4, streets=4)


@pytest.fixture(scope="module")
def reasoner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rirf_training.networks import save_network

    folder = tmp_path_factory.mktemp("reasoner")
    save_network(folder, tiny_reasoner(), {})
    return folder


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(name)


def arguments(pictures: Path, reasoner: Path, folder: Path, *rerun: str) -> list[str]:
    found = ["--data", str(pictures), "--reasoner", str(reasoner)]
    found += ["--runs", str(folder / "runs"), "--cache", str(folder / "cache")]
    found += ["--record", str(folder / "record.json"), "--json"]
    for key, value in TINY.items():
        found += ["--set", f"{key}={json.dumps(value)}"]
    for name in rerun:
        found += ["--rerun", name]
    return found


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return record


def test_the_ablation(
    pictures: Path,
    reasoner: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = load("ablation", monkeypatch)
    rows = ("full", "no-reasoner-training")
    asked = arguments(pictures, reasoner, tmp_path, *rows)
    script.main([*asked, "--limit", "4", "--threads", "1", "--seeds", "0", "1"])
    record = last_line(capsys)
    assert [row["name"] for row in record["rows"]] == list(rows)
    for row in record["rows"]:
        assert (row["seeds"], row["steps"], row["images"]) == (2, 3, 4)
        for condition in script.CONDITIONS:
            assert 0 < row[condition]["psnr"] < 60
    stored = json.loads((tmp_path / "record.json").read_text())
    full = [stored["full"][seed]["true"]["psnr"] for seed in ("0", "1")]
    assert full[0] != full[1]
    assert record["rows"][0]["true"]["psnr"] == pytest.approx(sum(full) / 2)
    assert record["rows"][0]["true"]["psnr_spread"] == pytest.approx(abs(full[0] - full[1]) / 2)
    # The untrained reasoner is a reasoner of its own, with the trained one's standardisation.
    from rirf_training.networks import load_network

    other, _ = load_network(tmp_path / "runs" / "ablation" / "untrained-reasoner")
    trained, _ = load_network(reasoner)
    assert other.config == trained.config
    assert not all(
        bool((a == b).all()) for a, b in zip(other.parameters(), trained.parameters(), strict=True)
    )

    # What is on record is shown without data, and nothing runs.
    before = (tmp_path / "record.json").read_text()
    script.main(["--record", str(tmp_path / "record.json")])
    shown = capsys.readouterr().out
    assert "without reasoner training" in shown
    assert json.loads(shown.splitlines()[-1])["rows"] == record["rows"]
    assert (tmp_path / "record.json").read_text() == before


def test_every_row_of_the_ablation_is_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("ablation", monkeypatch)
    parser = script.argparse.ArgumentParser()
    script.add_arguments(parser, script.RECORD)
    table = script.Table(script.ROWS, script.CONFIG, parser.parse_args([]), "ablation")
    runs = {name: table.settings(row, 3) for name, row in table.rows.items()}
    assert all(run.seed == 3 for run in runs.values())
    assert runs["no-scores"].network.without == ("scores",)
    assert runs["no-parameters"].network.without == ("parameters",)
    assert runs["no-semantics"].network.without == ("semantics",)
    assert runs["no-diagnosis"].dropped == 1.0
    # But for what a row is about, all rows are one run.
    full = runs["full"].model_dump()
    for name in ("no-scores", "no-parameters", "no-semantics"):
        changed = runs[name].model_dump()
        changed["network"]["without"] = full["network"]["without"]
        assert changed == full, name


def test_the_search(
    pictures: Path,
    reasoner: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = load("network_search", monkeypatch)
    monkeypatch.setattr(script, "SIZE", 64)
    small = script.Row("small", "four channels", ("network.channels=[4, 8]",))
    large = script.Row("large", "sixteen channels", ("network.channels=[16, 32]",))
    monkeypatch.setattr(script, "ROWS", (small, large))
    picture = tmp_path / "curve.png"
    asked = arguments(pictures, reasoner, tmp_path, "missing")
    script.main([*asked, "--times", "3", "--threads", "1", "--plot", str(picture)])
    rows = last_line(capsys)["rows"]
    assert [row["name"] for row in rows] == ["small", "large"]
    assert rows[0]["parameters_m"] < rows[1]["parameters_m"]
    assert all(row["steps"] == 3 and row["ms"] > 0 for row in rows)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_searched_networks_are_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("network_search", monkeypatch)
    parser = script.argparse.ArgumentParser()
    script.add_arguments(parser, script.RECORD)
    table = script.Table(script.ROWS, script.CONFIG, parser.parse_args([]), "search")
    networks = [table.settings(row, 0).network for row in table.rows.values()]
    assert len({network.model_dump_json() for network in networks}) >= 5


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--rerun", "nothing"], "no such row"), (["--rerun", "full"], "give --data and --reasoner")],
)
def test_wrong_usage(
    more: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load("ablation", monkeypatch)
    with pytest.raises(SystemExit, match=message):
        script.main(["--record", str(tmp_path / "none.json"), *more])


def test_nothing_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("ablation", monkeypatch)
    with pytest.raises(SystemExit, match="nothing recorded"):
        script.main(["--record", str(tmp_path / "none.json")])
