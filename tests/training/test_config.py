from __future__ import annotations

from pathlib import Path

import pytest

from rirf_training.config import ReasonerRun, RestorerRun, TrainingError, read_config
from rirf_training.networks import Restorer

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
        "network={channels: [8, 16], blocks: [1, 1], decoder_blocks: [1], kernels: [3, 5]}",
        "network.without=[scores]",
        "loss.pixel=log",
        "bridge.share=0.5",
        "splits=[test]",
        "loop.precision=fp32",
    ]
    run = read_config(RestorerRun, None, pairs)
    assert run.loop.steps == 2000
    assert run.loop.learning_rate == 1e-4
    assert run.predicted == 0
    assert run.network.channels == (8, 16)
    assert run.network.without == ("scores",)
    assert run.loss.pixel == "log"
    assert run.bridge.share == 0.5
    assert run.splits == ("test",)
    assert run.loop.precision == "fp32"
    # What is not named keeps its default.
    assert run.loop.batch == RestorerRun().loop.batch
    assert run.loss.ssim == RestorerRun().loss.ssim
    assert run.bridge.noise == RestorerRun().bridge.noise


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


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("reasoner", ReasonerRun),
        ("restorer", RestorerRun),
        ("restorer-bridge", RestorerRun),
        ("restorer-small", RestorerRun),
        ("restorer-small-bridge", RestorerRun),
        ("ablation", RestorerRun),
        ("restorer-teacher", RestorerRun),
    ],
)
def test_the_configurations_in_the_repository(
    name: str, kind: type[ReasonerRun] | type[RestorerRun]
) -> None:
    run = read_config(kind, CONFIGS / f"{name}.yaml", [])
    assert run.loop.steps > 0
    if isinstance(run, RestorerRun):
        assert run.patch % Restorer(run.network).multiple == 0


def test_the_teacher_is_large_and_fits_the_student() -> None:
    teacher, student = (
        read_config(RestorerRun, CONFIGS / f"{name}.yaml", [])
        for name in ("restorer-teacher", "restorer")
    )
    large, small = (Restorer(run.network) for run in (teacher, student))
    assert sum(parameter.numel() for parameter in large.parameters()) >= 10_000_000
    assert sum(parameter.numel() for parameter in small.parameters()) < 5_000_000
    # It restores the student's patches.
    assert student.patch % large.multiple == 0
    assert teacher.loop.device == "auto"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["loops.steps=3"], "loops"),
        (["loop.step=3"], r"loop\.step"),
        (["network.width=3"], r"network\.width"),
        (["loop.steps=0"], r"loop\.steps"),
        (["loop.steps=many"], r"loop\.steps"),
        (["dropped=1.1"], "dropped"),
        (["recorded=1.1"], "recorded"),
        (["reuse=0"], "reuse"),
        (["reuse=17"], "reuse"),
        (["loss.pixel=l2"], r"loss\.pixel"),
        (["loss.teacher=1.5"], r"loss\.teacher"),
        (["ssim_weight=0.15"], "ssim_weight"),
        (["bridge.share=2"], r"bridge\.share"),
        (["loop.explode=1"], r"loop\.explode"),
        (["loop.device=tpu"], r"loop\.device"),
        (["network.kernels=[3, 3]"], "4 levels of channels need as many blocks and kernels"),
        (["network.without=[mood]"], r"network\.without"),
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
