"""The command line from a folder of pictures to restored ones, with tiny networks."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import rirf
from rirf.bundle import Bundle
from rirf.cli import main
from rirf.degradation import degrade
from rirf.diagnosis import Diagnosis
from rirf.images import read_image, to_float, to_uint8
from tests.networks import REASONER, RESTORER
from tests.sdk.pictures import load
from tests.training.conftest import SHARE
from tests.training.recording import record

COMMON = [
    "--quiet",
    "--workers=1",
    "--threads=1",
    f"--set=validation_share={SHARE}",
    "--set=splits=[test]",
    "--set=draws=2",
    "--set=fresh=false",
    "--set=loop.steps=4",
    "--set=loop.batch=2",
    "--set=loop.warmup=1",
    "--set=loop.validate_every=2",
    "--set=loop.checkpoint_every=2",
]
REASONER_SET = [
    f"--set=network.thumbnail_channels={list(REASONER.thumbnail_channels)}",
    f"--set=network.crop_channels={list(REASONER.crop_channels)}",
    f"--set=network.thumbnail_blocks={list(REASONER.thumbnail_blocks)}",
    f"--set=network.hidden={REASONER.hidden}",
    f"--set=network.tokens={REASONER.tokens}",
]
RESTORER_SET = [
    f"--set=network.channels={list(RESTORER.channels)}",
    f"--set=network.blocks={list(RESTORER.blocks)}",
    f"--set=network.decoder_blocks={list(RESTORER.decoder_blocks)}",
    f"--set=network.kernels={list(RESTORER.kernels)}",
    f"--set=network.condition={RESTORER.condition}",
    "--set=patch=64",
]


@pytest.fixture(scope="module", autouse=True)
def few_draws_to_standardise() -> Iterator[None]:
    """Runs of four steps need no good statistics, and there are many of them here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rirf_training.reasoner_task._STANDARDISING_DRAWS", 16)
        yield


@dataclass(frozen=True)
class Trained:
    """The folders that the two training commands left."""

    pictures: Path
    reasoner: Path
    restorer: Path


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    runs = tmp_path_factory.mktemp("runs")
    reasoner, restorer = runs / "reasoner", runs / "restorer"
    data = ["--data", str(pictures), *COMMON]
    # Rendering by processes, once; --workers=1 elsewhere renders in this one.
    more = [*REASONER_SET, "--workers=2"]
    assert main(["train", "reasoner", "--out", str(reasoner), *data, *more]) == 0
    more = ["--reasoner", str(reasoner), *RESTORER_SET]
    assert main(["train", "restorer", "--out", str(restorer), *data, *more]) == 0
    return Trained(pictures, reasoner, restorer)


@pytest.mark.parametrize("kind", ["reasoner", "restorer"])
def test_a_run_leaves_a_checkpoint_and_its_curves(trained: Trained, kind: str) -> None:
    folder: Path = getattr(trained, kind)
    config = json.loads((folder / "config.json").read_text())
    assert config["network"]["kind"] == kind
    provenance = config["provenance"]
    assert provenance["images"] == 8
    assert provenance["steps_done"] == 4
    assert provenance["run"]["loop"]["steps"] == 4
    assert provenance["validation"]
    assert load(folder / "curves.png").size > 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]


def test_the_reasoner_is_calibrated(trained: Trained) -> None:
    validation = json.loads((trained.reasoner / "config.json").read_text())["provenance"][
        "validation"
    ]
    assert {"fog_temperature", "noise_quantile", "fog_accuracy"} <= set(validation)


def test_both_runs_share_one_set_of_draws(trained: Trained) -> None:
    draws = trained.reasoner.parent / "draws"
    index = json.loads((draws / "index.json").read_text())
    assert len(index["names"]) == 8
    assert index["draws"] == 2
    # What the reasoner read off every draw is kept beside them.
    (readings,) = draws.glob("read-*.npz")
    with np.load(readings) as arrays:
        assert arrays["vectors"].shape == (16, 40)
        assert arrays["maps"].shape == (16, 32, 32)


def test_from_pictures_to_restored_pictures(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "mine.rirf"
    folders = [str(trained.reasoner), str(trained.restorer)]
    assert main(["export", *folders, "-o", str(bundle), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "onnx         restorer fp32" in printed
    assert f"bundle: {bundle}" in printed
    manifest = Bundle.open(bundle).manifest
    assert manifest.name == "mine"
    assert manifest.provenance["reasoner"]["images"] == 8
    assert manifest.provenance["restorer"]["run"]["patch"] == 64

    source = trained.pictures / "camvid" / "test"
    out = tmp_path / "restored"
    command = ["restore", str(source), "-o", str(out), "--bundle", str(bundle), "--compare"]
    assert main([*command, "--steps", "coarse", "--threads", "1"]) == 0
    for picture in sorted(source.iterdir()):
        assert load(out / f"{picture.stem}.png").shape == load(picture).shape
        assert load(out / f"{picture.stem}.compare.png").shape[1] > 160
        text = (out / f"{picture.stem}.diagnosis.json").read_text()
        assert Diagnosis.from_json(text).source == "edge"
    assert "restored 4 of 4 pictures" in capsys.readouterr().out


def train(pictures: Path, out: Path, *more: str, kind: str = "reasoner") -> int:
    sizes = REASONER_SET if kind == "reasoner" else RESTORER_SET
    where = ["--data", str(pictures), "--out", str(out)]
    return main(["train", kind, *where, *COMMON, *sizes, *more])


def test_a_finished_run_resumes_to_the_same_weights(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("reasoner", "restorer"):
        folder: Path = getattr(trained, kind)
        more = [] if kind == "reasoner" else ["--reasoner", str(trained.reasoner)]
        before = [(folder / name).read_bytes() for name in ("config.json", "model.safetensors")]
        assert train(trained.pictures, folder, "--resume", *more, kind=kind) == 0
        after = [(folder / name).read_bytes() for name in ("config.json", "model.safetensors")]
        assert after == before
        assert f"checkpoint: {folder}" in capsys.readouterr().out


def test_a_run_is_not_overwritten(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained.reasoner / "model.safetensors").read_bytes()
    assert train(trained.pictures, trained.reasoner) == 1
    assert "holds a run already; continue it with --resume" in capsys.readouterr().err
    assert (trained.reasoner / "model.safetensors").read_bytes() == before


def test_resume_with_another_configuration(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(trained.pictures, trained.reasoner, "--resume", "--set=seed=5") == 1
    assert "was started with another configuration" in capsys.readouterr().err


def test_other_draws_are_read_again(trained: Trained, tmp_path: Path) -> None:
    """The readings kept for two draws a picture are not those of three."""
    cache = trained.reasoner.parent / "draws"
    more = ["--set=draws=3", f"--cache={cache}", "--reasoner", str(trained.reasoner)]
    assert train(trained.pictures, tmp_path / "three", *more, kind="restorer") == 0
    (readings,) = cache.glob("read-*.npz")
    with np.load(readings) as arrays:
        assert len(arrays["vectors"]) == 24
    more[0] = "--set=draws=2"
    assert train(trained.pictures, tmp_path / "two", *more, kind="restorer") == 0
    weights = [
        torch.load(folder / "state.pt", weights_only=True)["ema"]
        for folder in (trained.restorer, tmp_path / "two")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_runs_on_fresh_draws(pictures: Path, tmp_path: Path) -> None:
    """Stopped, continued, and with another number of threads: the same weights."""
    fresh = ["--set=fresh=true", "--set=loop.precision=fp32"]
    cache = f"--cache={tmp_path / 'cache'}"
    for kind in ("reasoner", "restorer"):
        more = [*fresh, cache]
        if kind == "restorer":
            more += ["--reasoner", str(tmp_path / "reasoner"), "--set=predicted=0.5"]
        whole, halves = tmp_path / kind, tmp_path / f"{kind}-halves"
        assert train(pictures, whole, *more, kind=kind) == 0
        with pytest.MonkeyPatch.context() as patch:
            stop_after(2, patch)
            assert train(pictures, halves, *more, kind=kind) == 130
        assert train(pictures, halves, *more, "--resume", "--workers=3", kind=kind) == 0
        assert (whole / "model.safetensors").read_bytes() == (
            halves / "model.safetensors"
        ).read_bytes()
    # Only the pictures of the validation share are rendered, and read by the reasoner.
    held = tmp_path / "cache" / "held-out"
    assert len(json.loads((held / "index.json").read_text())["names"]) == 2
    (readings,) = held.glob("read-*.npz")
    with np.load(readings) as arrays:
        assert len(arrays["vectors"]) == 4
    assert len(list((tmp_path / "cache" / "decoded").glob("*.npz"))) == 6
    config = json.loads((tmp_path / "restorer" / "config.json").read_text())
    assert config["provenance"]["images"] == 8
    assert config["provenance"]["run"]["fresh"] is True
    assert "predicted_psnr" in config["provenance"]["validation"]


def stop_after(steps: int, patch: pytest.MonkeyPatch) -> None:
    """Interrupt a run, as a person would, after some of its steps."""
    import rirf_training.loop as loop

    done = 0
    average = loop._average

    def counted(*arguments: Any) -> None:
        nonlocal done
        if done == steps:
            raise KeyboardInterrupt
        done += 1
        average(*arguments)

    patch.setattr(loop, "_average", counted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set=loop.step=3"], "loop.step"),
        (["--set=colour=red"], "colour"),
        (["--set=loop.steps"], "expected key=value, e.g. loop.steps=2000"),
        (["--set=loop.steps=[1"], "the value is not YAML"),
        (["--config=none.yaml"], "none.yaml: cannot be read"),
        (["--set=validation_share=0.01"], "puts 0 of 8 images into the validation share"),
        (["--set=splits=[train]"], "no images found"),
    ],
)
def test_bad_settings(
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert train(pictures, tmp_path / "run", *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("rirf: error: ")
    assert message in error
    assert not (tmp_path / "run").exists()


def test_a_missing_data_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "none", tmp_path / "run") == 1
    assert "none: no such folder; --data takes a folder" in capsys.readouterr().err


def test_out_is_a_file(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").write_text("mine")
    assert train(pictures, tmp_path / "run") == 1
    assert "is a file; --out takes a folder" in capsys.readouterr().err
    assert (tmp_path / "run").read_text() == "mine"


def test_a_missing_reasoner(
    pictures: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = f"--cache={trained.reasoner.parent / 'draws'}"
    missing = ["--reasoner", str(tmp_path / "none")]
    assert train(pictures, tmp_path / "run", cache, *missing, kind="restorer") == 1
    assert "none: no reasoner checkpoint here" in capsys.readouterr().err
    assert train(pictures, tmp_path / "run", cache, kind="restorer") == 1
    assert "needs a reasoner: give --reasoner CHECKPOINT" in capsys.readouterr().err


def test_a_restorer_is_no_reasoner(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = f"--cache={trained.reasoner.parent / 'draws'}"
    wrong = ["--reasoner", str(trained.restorer)]
    assert train(trained.pictures, tmp_path / "run", cache, *wrong, kind="restorer") == 1
    assert "holds a restorer, expected a reasoner" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["painter"], ["reasoner"], ["reasoner", "--data", "x"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *arguments]) == 2
    assert "usage: rirf train" in capsys.readouterr().err


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def test_a_run_starts_with_given_weights(trained: Trained, tmp_path: Path) -> None:
    more = ["--start", str(trained.restorer), "--set=predicted=0", "--set=loop.steps=1"]
    more += ["--set=loop.learning_rate=1e-9", f"--cache={trained.reasoner.parent / 'draws'}"]
    out = tmp_path / "second"
    assert train(trained.pictures, out, *more, kind="restorer") == 0
    given, found = weights(trained.restorer), weights(out)
    assert given.keys() == found.keys()
    for name, value in given.items():
        torch.testing.assert_close(found[name], value, atol=1e-7, rtol=0)
    provenance = json.loads((out / "config.json").read_text())["provenance"]
    assert provenance["start_sha256"] == digest(trained.restorer)
    assert provenance["teacher_sha256"] == provenance["recorded_sha256"] == ""


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("option", ["--start", "--teacher"])
def test_a_restorer_that_is_none(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    for folder, message in (
        (tmp_path / "none", "none: no restorer checkpoint here"),
        (trained.reasoner, "holds a reasoner, expected a restorer"),
    ):
        more = [option, str(folder), f"--cache={trained.reasoner.parent / 'draws'}"]
        if option == "--start":
            more += ["--teacher", str(trained.restorer)]
        assert distill(trained, tmp_path / "run", *more) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_starting_with_another_network(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--start", str(trained.restorer), "--set=predicted=0", "--set=network.condition=8"]
    more += [f"--cache={trained.reasoner.parent / 'draws'}"]
    assert train(trained.pictures, tmp_path / "run", *more, kind="restorer") == 1
    error = capsys.readouterr().err
    assert "holds another network" in error
    assert "condition=16" in error
    assert "condition=8" in error


@pytest.fixture(scope="module")
def outputs(trained: Trained, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What another pair made of degraded frames, recorded; the truth of half of them."""
    folder = tmp_path_factory.mktemp("outputs")
    with rirf.load(tiny_bundle, threads=1) as pipeline:
        for number, file in enumerate(sorted((trained.pictures / "camvid/test").iterdir())):
            clean = read_image(file)
            frame = to_uint8(degrade(to_float(clean), seed=number).image)
            made = pipeline(frame, steps="coarse")
            assert made.diagnosis is not None
            truth = clean if number % 2 else None
            record(folder, file.stem, frame, made.image, made.diagnosis, truth)
    return folder


def distill(trained: Trained, out: Path, *more: str) -> int:
    where = ["--data", str(trained.pictures), "--out", str(out)]
    where += ["--reasoner", str(trained.reasoner)]
    return main(["distill", *where, *COMMON, *RESTORER_SET, *more])


def test_distilling_a_teacher_and_recorded_outputs(
    trained: Trained, outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped and continued too; with other outputs or another teacher it is another run."""
    sources = ["--teacher", str(trained.restorer), "--recorded", str(outputs)]
    more = ["--set=recorded=0.5", "--set=loop.precision=fp32", f"--cache={tmp_path / 'cache'}"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert distill(trained, whole, *sources, *more) == 0
    with pytest.MonkeyPatch.context() as patch:
        stop_after(2, patch)
        assert distill(trained, halves, *sources, *more) == 130
    assert distill(trained, halves, *sources, *more, "--resume") == 0
    assert (whole / "model.safetensors").read_bytes() == (halves / "model.safetensors").read_bytes()

    provenance = json.loads((whole / "config.json").read_text())["provenance"]
    assert provenance["teacher_sha256"] == digest(trained.restorer)
    assert len(provenance["recorded_sha256"]) == 64
    assert "predicted_psnr" in provenance["validation"]
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert all(row["train/teacher"] > 0 for row in rows)

    # Each source alone is another run, and leaves other weights.
    capsys.readouterr()
    assert distill(trained, halves, *sources[:2], *more, "--resume") == 1
    error = capsys.readouterr().err
    assert "recorded_sha256" in error
    assert "teacher_sha256" not in error
    for name, source in (("teacher", sources[:2]), ("recorded", sources[2:])):
        assert distill(trained, tmp_path / name, *source, *more) == 0
    folders = [whole, tmp_path / "teacher", tmp_path / "recorded"]
    assert len({digest(folder) for folder in folders}) == 3
    assert len(list((tmp_path / "cache" / "recorded").iterdir())) == 4


def test_outputs_that_changed(
    trained: Trained, outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "outputs"
    shutil.copytree(outputs, mine)
    more = ["--recorded", str(mine), "--set=recorded=0.5", "--set=predicted=0"]
    more += [f"--cache={trained.reasoner.parent / 'draws'}"]
    assert distill(trained, tmp_path / "run", *more) == 0
    next(mine.glob("*.clean.png")).unlink()
    assert distill(trained, tmp_path / "run", *more, "--resume") == 1
    assert "another configuration" in capsys.readouterr().err
    next(mine.glob("*.restored.png")).unlink()
    assert distill(trained, tmp_path / "run", *more, "--resume") == 1
    assert "record it again or delete what is left of it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "nothing to learn from: give --teacher CHECKPOINT, --recorded FOLDER or both"),
        (["--recorded", "none"], "none: cannot be listed"),
        (["--recorded", "{outputs}", "--set=recorded=0"], "recorded is 0.0, which is no patch"),
        (["--recorded", "{outputs}", "--set=recorded=1", "--set=patch=128"], "smaller than the"),
    ],
)
def test_bad_distillations(
    trained: Trained,
    outputs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    cache = f"--cache={trained.reasoner.parent / 'draws'}"
    filled = [argument.format(outputs=outputs) for argument in more]
    assert distill(trained, tmp_path / "run", cache, *filled) == 1
    assert message in capsys.readouterr().err


def test_distillation_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "--help"]) == 0
    out = capsys.readouterr().out
    for words in ("--teacher", "--recorded", "NAME.degraded.png", "loss.teacher"):
        assert words in out
    assert main(["distill", "--data", "x"]) == 2
    assert "usage: rirf distill" in capsys.readouterr().err


def test_a_step_that_breaks_is_written_down(
    trained: Trained, outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss that no number can hold: which draws and pairs it came from."""
    more = ["--recorded", str(outputs), "--set=recorded=0.5", "--set=predicted=0"]
    more += ["--set=bridge.share=1", "--set=bridge.weight=1e300", "--set=fresh=true"]
    out = tmp_path / "run"
    assert distill(trained, out, *more, f"--cache={tmp_path / 'cache'}") == 1
    assert "the loss became inf at step 0; its batch is described in" in capsys.readouterr().err
    record = json.loads((out / "failure.json").read_text())
    assert (record["step"], record["loss"]) == (0, "inf")
    (draw,) = record["draws"]
    assert draw["image"].startswith(("bsds500/test/", "camvid/test/"))
    assert isinstance(draw["seed"], int)
    assert isinstance(draw["mirrored"], bool)
    (name,) = record["recorded"]
    assert (outputs / f"{name}.degraded.png").exists()
