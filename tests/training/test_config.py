from __future__ import annotations

from pathlib import Path

import pytest

from rirf_training.config import ReasonerRun, RestorerRun, TrainingError, read_config

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


def yaml(folder: Path, text: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(text)
    return file


def test_nothing_given_means_the_defaults() -> None:
    assert read_config(RestorerRun, None, []) == RestorerRun()
    assert read_config(ReasonerRun, None, []) == ReasonerRun()


def test_overrides() -> None:
    pairs = [
        "loop.steps=2000",
        "loop.learning_rate=1e-4",
        "predicted=0",
        "network.channels=[8, 16]",
        "splits=[test]",
        "loop.precision=fp32",
    ]
    run = read_config(RestorerRun, None, pairs)
    assert run.loop.steps == 2000
    assert run.loop.learning_rate == 1e-4
    assert run.predicted == 0
    assert run.network.channels == (8, 16)
    assert run.splits == ("test",)
    assert run.loop.precision == "fp32"
    # What is not named keeps its default.
    assert run.loop.batch == RestorerRun().loop.batch
    assert run.network.condition == RestorerRun().network.condition


def test_a_file_goes_over_the_defaults_and_overrides_over_the_file(tmp_path: Path) -> None:
    file = yaml(tmp_path, "seed: 7\nloop:\n  batch: 4\n  steps: 50\n")
    run = read_config(ReasonerRun, file, ["loop.steps=60"])
    assert (run.seed, run.loop.batch, run.loop.steps) == (7, 4, 60)
    assert run.loop.learning_rate == ReasonerRun().loop.learning_rate
    assert run.draws == ReasonerRun().draws


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert read_config(ReasonerRun, yaml(tmp_path, "# nothing\n"), []) == ReasonerRun()


def test_a_value_may_hold_an_equals_sign() -> None:
    assert read_config(RestorerRun, None, ['splits=["a=b"]']).splits == ("a=b",)


@pytest.mark.parametrize("kind", [ReasonerRun, RestorerRun])
def test_the_configurations_in_the_repository(kind: type[ReasonerRun] | type[RestorerRun]) -> None:
    file = CONFIGS / f"{kind.__name__.removesuffix('Run').lower()}.yaml"
    run = read_config(kind, file, [])
    assert run.loop.steps > 0


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["loops.steps=3"], "loops"),
        (["loop.step=3"], r"loop\.step"),
        (["network.width=3"], r"network\.width"),
        (["loop.steps=0"], r"loop\.steps"),
        (["loop.steps=many"], r"loop\.steps"),
        (["dropped=1"], "dropped"),
        (["predicted=1.5"], "predicted"),
        (["loop.precision=fp8"], r"loop\.precision"),
        (["loop.steps"], r"--set 'loop\.steps': expected key=value"),
        (["=3"], "--set '=3': expected key=value"),
        (["seed.value=3"], r"--set seed\.value: seed is a value, not a section"),
        (["loop=3"], "loop"),
        (["splits=[a"], r"--set 'splits=\[a': the value is not YAML"),
    ],
)
def test_bad_overrides(pairs: list[str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        read_config(RestorerRun, None, pairs)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"loop: [1", "cannot be read as YAML"),
        (b"\xff\xfe\x00\x81", "cannot be read as YAML"),
        (b"- a\n- b\n", "expected a mapping of keys, got list"),
        (b"just text", "expected a mapping of keys, got str"),
        (b"colour: red\n", "colour"),
        (b"loop:\n  steps: -3\n", r"loop\.steps"),
    ],
)
def test_bad_files(tmp_path: Path, data: bytes, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(data)
    with pytest.raises(TrainingError, match=message) as caught:
        read_config(ReasonerRun, file, [])
    assert "run.yaml" in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"none\.yaml: cannot be read"):
        read_config(ReasonerRun, tmp_path / "none.yaml", [])
