from __future__ import annotations

import itertools
import json
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rirf_training.config import LoopConfig, TrainingError
from rirf_training.loop import Batch, generator, train
from tests.sdk.pictures import files_below, load
from tests.training.line import PROVENANCE, Line, config

ROOT = Path(__file__).parents[2]


def run(
    out: Path, task: Line | None = None, settings: LoopConfig | None = None, **options: Any
) -> dict[str, float]:
    options = {"provenance": PROVENANCE, "resume": False, "progress": False, **options}
    return train(task or Line(), settings or config(), out, **options)


def state(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(out / "state.pt", weights_only=True)
    return loaded


def metrics(out: Path) -> list[dict[str, float]]:
    """Rows without the one figure that is no function of the seed."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert row.pop("seconds") >= 0
    return rows


def equal(one: Any, other: Any) -> bool:
    """Whether two states are the same, bit for bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    out = tmp_path_factory.mktemp("straight")
    run(out)
    return out


def test_a_run_leaves_its_files_and_learns(straight: Path) -> None:
    assert files_below(straight) == ["curves.png", "metrics.jsonl", "state.pt", "weights.bin"]
    assert load(straight / "curves.png").size > 0
    rows = metrics(straight)
    assert [row["step"] for row in rows] == [20, 40]
    assert set(rows[0]) == {"step", "train/loss", "train/error", "validation/mae"}
    assert rows[-1]["train/loss"] < 0.5 * rows[0]["train/loss"]
    assert rows[-1]["validation/mae"] < rows[0]["validation/mae"]


def test_a_run_is_a_function_of_its_seed(straight: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "again") == {"mae": metrics(straight)[-1]["validation/mae"]}
    assert equal(state(tmp_path / "again"), state(straight))
    run(tmp_path / "other", Line(seed=1))
    assert not equal(state(tmp_path / "other")["ema"], state(straight)["ema"])


def test_killed_at_random_moments_it_ends_the_same(straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    moments = random.Random()
    for _ in range(2):
        before = (out / "state.pt").stat().st_mtime_ns if (out / "state.pt").exists() else 0
        child = subprocess.Popen([sys.executable, "-m", "tests.training.line", out], cwd=ROOT)
        try:
            while (
                not (out / "state.pt").exists() or (out / "state.pt").stat().st_mtime_ns == before
            ):
                assert child.poll() is None, "it ended before its first checkpoint"
                time.sleep(0.005)
            # A checkpoint is written every 0.25 s, and 1.5 s are left at the least.
            time.sleep(moments.uniform(0.0, 0.3))
        finally:
            child.kill()
        assert child.wait() == -signal.SIGKILL
    done = state(out)["step"]
    assert 10 <= done < 40
    task = Line()
    run(out, task, resume=True)
    assert task.batches == list(range(done, 40))
    assert equal(state(out), state(straight))
    assert (out / "weights.bin").read_bytes() == (straight / "weights.bin").read_bytes()
    ends = [rows[-1] for rows in (metrics(out), metrics(straight))]
    assert ends[0]["validation/mae"] == ends[1]["validation/mae"]
    assert [row["step"] for row in metrics(out)] == [20, 40]


class Stopped(Line):
    """Fails at a step, as a kill there would."""

    def __init__(self, step: int, error: BaseException) -> None:
        super().__init__()
        self.step, self.error = step, error

    def batch(self, step: int) -> Batch:
        if step == self.step:
            raise self.error
        return super().batch(step)


@pytest.mark.parametrize("step", [5, 13, 39])
def test_stopped_at_any_step_it_ends_the_same(straight: Path, tmp_path: Path, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Stopped(step, KeyboardInterrupt()))
    assert state(tmp_path)["step"] == step // 5 * 5
    run(tmp_path, resume=True)
    assert equal(state(tmp_path), state(straight))


def test_stopped_before_the_first_checkpoint_it_starts_again(
    straight: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Stopped(4, KeyboardInterrupt()))
    assert files_below(tmp_path) == []
    run(tmp_path)
    assert equal(state(tmp_path), state(straight))


def test_a_batch_that_cannot_be_made_stops_the_run_with_its_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError, match="at this step"):
        run(tmp_path, Stopped(7, ZeroDivisionError("at this step")))


def test_rows_after_the_checkpoint_and_a_cut_off_line_are_dropped(
    straight: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Stopped(22, KeyboardInterrupt()))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "seconds": 1.0, "train/loss": 0.1}\n{"step": 40, "seco')
    run(tmp_path, resume=True)
    assert [row["step"] for row in metrics(tmp_path)] == [20, 40]
    assert metrics(tmp_path)[0] == metrics(straight)[0]
    assert equal(state(tmp_path), state(straight))


def test_a_missing_metrics_file_loses_the_curve_alone(straight: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Stopped(22, KeyboardInterrupt()))
    (tmp_path / "metrics.jsonl").unlink()
    run(tmp_path, resume=True)
    assert [row["step"] for row in metrics(tmp_path)] == [40]
    assert equal(state(tmp_path), state(straight))


def test_resuming_a_finished_run_gives_its_figures(tmp_path: Path) -> None:
    figures = run(tmp_path)
    before = (tmp_path / "state.pt").read_bytes()
    assert run(tmp_path, resume=True) == figures
    assert (tmp_path / "state.pt").read_bytes() == before


def test_resume_without_a_run_starts_one(straight: Path, tmp_path: Path) -> None:
    run(tmp_path / "new", resume=True)
    assert equal(state(tmp_path / "new"), state(straight))


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(TrainingError, match="holds a run already; continue it with --resume"):
        run(tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_another_configuration_is_not_continued(tmp_path: Path) -> None:
    given = {"task": "line", "run": {"loop": {"steps": 40, "batch": 8}, "kept": [1, 2]}}
    run(tmp_path, provenance=given)
    before = (tmp_path / "state.pt").read_bytes()
    other = {"task": "line", "run": {"loop": {"steps": 50, "batch": 8}, "kept": [1], "new": 0.5}}
    message = "another configuration; give the same one, or another"
    with pytest.raises(TrainingError, match=message) as caught:
        run(tmp_path, resume=True, provenance=other)
    # What differs, and nothing else.
    assert str(caught.value).endswith(
        "(stored, now): run.kept: [1, 2], [1]; run.loop.steps: 40, 50; run.new: None, 0.5"
    )
    assert (tmp_path / "state.pt").read_bytes() == before
    run(tmp_path, resume=True, provenance=given)


class Breaking(Line):
    """Its loss is multiplied at a step of the training."""

    def __init__(self, step: int, factor: float) -> None:
        super().__init__()
        self.step, self.factor, self.taken = step, factor, 0

    def spoil(self, value: Tensor, network: nn.Module) -> Tensor:
        return value * self.factor

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        value, shown = super().loss(network, batch)
        self.taken += 1
        return (self.spoil(value, network) if self.taken == self.step + 1 else value), shown


class Steep(Breaking):
    """Its loss stays what it is, and its gradient is not a number."""

    def spoil(self, value: Tensor, network: nn.Module) -> Tensor:
        (weight, *_) = network.parameters()
        return value + (0.0 * weight.sum()).sqrt()


def failure(out: Path, what: str, step: int) -> str:
    """Check the record of a broken run and return the value that broke it."""
    record: dict[str, Any] = json.loads((out / "failure.json").read_text())
    assert record["step"] == step
    # Enough to make the batch again.
    x = generator(0, step).uniform(-1, 1, (8, 1))[:, 0]
    assert [draw["x"] for draw in record["draws"]] == x.tolist()
    kept = state(out)
    assert all(torch.isfinite(value).all() for value in kept["network"].values())
    assert all(torch.isfinite(value).all() for value in kept["ema"].values())
    value: str = record[what]
    return value


def test_a_loss_that_is_not_finite_stops_the_run(straight: Path, tmp_path: Path) -> None:
    message = r"the loss became nan at step 17; its batch is described in .*failure\.json, and the "
    with pytest.raises(TrainingError, match=message + "last checkpoint is good: lower"):
        run(tmp_path, Breaking(17, math.nan))
    assert failure(tmp_path, "loss", 17) == "nan"
    assert state(tmp_path)["step"] == 15
    # Whatever it was, the run goes on from there as if it had not been.
    run(tmp_path, resume=True)
    assert equal(state(tmp_path), state(straight))


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    settings = config(checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"the gradient became nan at step 17; .* is good"):
        run(tmp_path, Steep(17, 1.0), settings)
    assert failure(tmp_path, "gradient", 17) == "nan"
    assert state(tmp_path)["step"] == 17


def test_an_exploding_loss_stops_the_run(tmp_path: Path) -> None:
    settings = config(steps=130, explode=50.0)
    with pytest.raises(TrainingError, match=r"the loss became .* at step 112; its batch is"):
        run(tmp_path / "exploded", Breaking(112, 1e6), settings)
    assert float(failure(tmp_path / "exploded", "loss", 112)) > 1.0
    assert state(tmp_path / "exploded")["step"] == 110
    # A jump of less, or one at the rough beginning of a run, is none.
    for name, task in (("small", Breaking(112, 3.0)), ("early", Breaking(50, 1e6))):
        run(tmp_path / name, task, settings)
        assert not (tmp_path / name / "failure.json").exists()
        assert state(tmp_path / name)["step"] == 130


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="torch finds no CUDA device: use auto or cpu"):
        run(tmp_path, settings=config(device="cuda"))
    run(tmp_path, settings=config(device="auto", steps=2))


def test_averaged_weights_are_what_is_kept(straight: Path, tmp_path: Path) -> None:
    kept = state(straight)
    assert not equal(kept["ema"], kept["network"])
    stored = np.frombuffer((straight / "weights.bin").read_bytes(), dtype=np.float32)
    expected = torch.cat([value.flatten() for value in kept["ema"].values()])
    np.testing.assert_array_equal(stored, expected.numpy())
    run(tmp_path, settings=config(ema=0.0))
    plain = state(tmp_path)
    assert equal(plain["ema"], plain["network"])


def test_the_rate_warms_up_and_falls(tmp_path: Path) -> None:
    rates = []

    class Watching(Line):
        def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            weight = network[0].weight.detach().clone()  # type: ignore[index]  # a Sequential
            rates.append(weight)
            return super().loss(network, batch)

    run(tmp_path, Watching(), config(learning_rate=1.0, weight_decay=0.0, steps=40))
    # AdamW's first steps are as long as the rate: a fifth of it, then two fifths.
    lengths = [float((b - a).abs().max()) for a, b in itertools.pairwise(rates)]
    assert lengths[0] == pytest.approx(0.2, rel=0.05)
    assert max(lengths[:8]) > 0.2
    assert max(lengths[-3:]) < 0.1 * max(lengths)


def test_bf16_runs_in_bf16(tmp_path: Path) -> None:
    kinds = []

    class Watching(Line):
        def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            kinds.append(network(batch["x"]).dtype)
            return super().loss(network, batch)

    for precision in ("bf16", "fp32"):
        settings = config(precision=precision, steps=2, checkpoint_every=2, validate_every=2)
        run(tmp_path / precision, Watching(), settings)
    assert kinds == [torch.bfloat16] * 2 + [torch.float32] * 2
    # The weights stay in full precision.
    assert {value.dtype for value in state(tmp_path / "bf16")["network"].values()} == {
        torch.float32
    }


def test_random_numbers_of_a_step() -> None:
    one = generator(3, 5).random(4)
    np.testing.assert_array_equal(one, generator(3, 5).random(4))
    for other in (generator(3, 6), generator(4, 5)):
        assert not np.array_equal(one, other.random(4))
