"""``rirf train rl`` from the command line, with tiny networks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from rirf.cli import main
from rirf_training.networks import save_network
from tests.networks import tiny_reasoner, tiny_restorer
from tests.training.rl.conftest import SHARE

COMMON = [
    "--quiet",
    "--workers=1",
    "--threads=1",
    f"--set=validation_share={SHARE}",
    "--set=splits=[test]",
    "--set=draws=1",
    "--set=fresh=false",
    "--set=group=2",
    "--set=loop.steps=2",
    "--set=loop.batch=1",
    "--set=loop.warmup=0",
    "--set=loop.validate_every=2",
    "--set=loop.checkpoint_every=2",
    "--set=loop.validation_samples=1",
]


@dataclass(frozen=True)
class Given:
    """The checkpoints that a run needs."""

    pictures: Path
    cache: Path
    start: Path
    reasoner: Path
    judge: Path

    def train(self, out: Path, *more: str) -> int:
        models = {"start": self.start, "reasoner": self.reasoner, "judge": self.judge}
        where = [f"--{name}={path}" for name, path in models.items()]
        where += [f"--data={self.pictures}", f"--out={out}", f"--cache={self.cache}"]
        return main(["train", "rl", *where, *COMMON, *more])


@pytest.fixture(scope="module")
def given(large_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("models")
    save_network(folder / "reasoner", tiny_reasoner(), {})
    save_network(folder / "judge", tiny_reasoner(seed=1), {})
    save_network(folder / "start", tiny_restorer(), {"run": {"bridge": {"share": 0.5}}})
    names = ("start", "reasoner", "judge")
    return Given(large_pictures, folder / "draws", *(folder / name for name in names))


@pytest.mark.parametrize("objective", ["grpo", "flow_grpo"])
def test_a_run(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str], objective: str
) -> None:
    out = tmp_path / "run"
    assert given.train(out, f"--set=objective={objective}") == 0
    printed = capsys.readouterr().out
    assert "which the judge liked best" in printed
    assert f"checkpoint: {out}" in printed
    config = json.loads((out / "config.json").read_text())
    assert config["network"]["kind"] == "restorer"
    provenance = config["provenance"]
    # What export reads to know which steps the restorer can take.
    assert provenance["run"]["bridge"]["share"] > 0
    assert provenance["run"]["objective"] == objective
    assert provenance["kept_step"] == provenance["steps_done"]
    assert provenance["kept_step"] in (0, 2)
    assert provenance["stopped"] is None
    digests = {provenance[f"{name}_sha256"] for name in ("start", "reasoner", "judge")}
    assert len(digests) == 3
    (row,) = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {"validation/reward", "validation/judge", "train/reward", "train/l1"} <= set(row)
    # Resumed when it is finished: the same checkpoint. With another judge: refused.
    before = (out / "model.safetensors").read_bytes(), (out / "config.json").read_bytes()
    assert given.train(out, f"--set=objective={objective}", "--resume") == 0
    assert before == ((out / "model.safetensors").read_bytes(), (out / "config.json").read_bytes())


def test_fresh_draws_a_bundle_as_judge_and_another_judge(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str], shipped: Path
) -> None:
    out, fresh = tmp_path / "run", "--set=fresh=true"
    assert given.train(out, fresh, f"--judge={shipped}") == 0
    assert "which the judge liked best" in capsys.readouterr().out
    # With another judge it is another run.
    assert given.train(out, fresh, "--resume") == 1
    assert "judge_sha256" in capsys.readouterr().err


def test_what_it_refuses(given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert given.train(out, f"--judge={given.reasoner}") == 1
    assert "is the reasoner that gives the reward" in capsys.readouterr().err
    save_network(tmp_path / "coarse", tiny_restorer(), {"run": {"bridge": {"share": 0.0}}})
    assert given.train(out, f"--start={tmp_path / 'coarse'}") == 1
    assert "was trained without a bridge" in capsys.readouterr().err
    assert given.train(out, f"--reasoner={tmp_path / 'none'}") == 1
    assert "no reasoner checkpoint here" in capsys.readouterr().err
    assert main(["train", "rl", "--data", str(given.pictures), "--out", str(out)]) == 2
    assert "--start" in capsys.readouterr().err
    assert not out.exists()
