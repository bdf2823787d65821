"""``rirf restore`` through the real command line: results, and every bad input of a batch."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import rirf as library
from rirf.bundle import SHIPPED
from rirf.cli import main
from rirf.cli.restore import read_diagnosis
from rirf.degradation import degrade
from rirf.diagnosis import Diagnosis
from rirf.errors import DiagnosisError
from rirf.images import encode_image, to_float, to_uint8
from tests.sdk.pictures import files_below, load, photo, rirf, save, start

pytestmark = pytest.mark.lean


def run(*arguments: object) -> int:
    return main(["restore", *map(str, arguments)])


def bad(seed: int = 3, height: int = 64, width: int = 80) -> np.ndarray:
    """A degraded picture."""
    return to_uint8(degrade(to_float(photo(height, width, seed)), seed).image)


@pytest.fixture
def truth() -> Diagnosis:
    return degrade(to_float(photo()), 3).diagnosis


def test_restores_one_picture(tmp_path: Path) -> None:
    source = save(tmp_path / "frame.png", bad())
    done = rirf("restore", source, "-o", "out", "--compare", "--steps", "coarse", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    names = ["frame.compare.png", "frame.diagnosis.json", "frame.png"]
    assert files_below(tmp_path / "out") == names
    with library.load() as pipeline:
        expected = pipeline(bad(), steps="coarse")
    np.testing.assert_array_equal(load(tmp_path / "out/frame.png"), expected.image)
    written = Diagnosis.from_json((tmp_path / "out/frame.diagnosis.json").read_text())
    assert written == expected.diagnosis
    assert load(tmp_path / "out/frame.compare.png").shape[1] >= 960
    first, last = done.stdout.splitlines()
    assert first.startswith(f"{source} -> out/frame.png  (")
    assert "coarse, " in first
    assert last == "restored 1 of 1 pictures into out"


def test_a_folder_keeps_its_subfolders_and_a_second_run_replaces(tmp_path: Path) -> None:
    save(tmp_path / "in/a.jpg", bad())
    save(tmp_path / "in/deep/er/b.png", bad(4, 33, 47))
    for _ in range(2):
        assert run(tmp_path / "in", "-o", tmp_path / "in/out", "--format", "jpg", "--quiet") == 0
        assert files_below(tmp_path / "in/out") == [
            "a.diagnosis.json",
            "a.jpg",
            "deep/er/b.diagnosis.json",
            "deep/er/b.jpg",
        ]
    assert load(tmp_path / "in/out/deep/er/b.jpg").shape == (33, 47, 3)


def test_bypass_returns_the_picture(tmp_path: Path) -> None:
    source = save(tmp_path / "frame.png", bad())
    assert run(source, "-o", tmp_path / "out", "--steps", "bypass", "--threads", 1) == 0
    np.testing.assert_array_equal(load(tmp_path / "out/frame.png"), bad())


def test_the_check_is_printed_and_written(
    tmp_path: Path, truth: Diagnosis, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save(tmp_path / "frame.png", bad())
    assert run(source, "-o", tmp_path / "out", "--steps", "coarse", "--check") == 0
    with library.load() as pipeline:
        found = pipeline(bad(), steps="coarse", consistency=True).consistency
    assert found is not None
    assert f"; {found.to_text()})" in capsys.readouterr().out
    written = json.loads((tmp_path / "out/frame.consistency.json").read_text())
    assert written == pytest.approx(found.to_dict(), abs=1e-4)
    # Without --check it is printed all the same, but not when quiet.
    assert run(source, "-o", tmp_path / "other", "--steps", "coarse") == 0
    assert found.to_text() in capsys.readouterr().out
    assert files_below(tmp_path / "other") == ["frame.diagnosis.json", "frame.png"]
    assert run(source, "-o", tmp_path / "third", "--check", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "third/frame.consistency.json").is_file()


def test_quiet_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save(tmp_path / "frame.png", bad())
    assert run(source, "-o", tmp_path / "out", "--steps", "bypass", "--quiet") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("form", ["text", "json", "record"])
def test_a_given_diagnosis_is_used(tmp_path: Path, truth: Diagnosis, form: str) -> None:
    path = tmp_path / ("d.txt" if form == "text" else "d.json")
    record = json.dumps({"seed": 3, "diagnosis": truth.model_dump(mode="json")})
    path.write_text({"text": truth.to_text(), "json": truth.to_json(), "record": record}[form])
    assert read_diagnosis(path) == truth
    source = save(tmp_path / "frame.png", bad())
    options = ["--diagnosis", path, "--steps", "coarse"]
    assert run(source, "-o", tmp_path / "out", *options) == 0
    written = Diagnosis.from_json((tmp_path / "out/frame.diagnosis.json").read_text())
    assert written == truth
    with library.load() as pipeline:
        expected = pipeline(bad(), diagnosis=truth, steps="coarse").image
    np.testing.assert_array_equal(load(tmp_path / "out/frame.png"), expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.json", "{", "not a diagnosis"),
        ("d.json", "[]", "not a diagnosis"),
        ("d.txt", "Fog: present", "expected 7 lines"),
        ("d.yaml", "fog: 1", "expected .json or .txt"),
        ("d", "", "nameless"),
        ("d.json", None, "cannot be read"),
    ],
)
def test_a_bad_diagnosis_is_refused_before_anything_is_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str | None,
    message: str,
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(DiagnosisError):
        read_diagnosis(path)
    source = save(tmp_path / "frame.png", bad())
    assert run(source, "-o", tmp_path / "out", "--diagnosis", path) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith(f"rirf: error: {path}: ")
    assert not (tmp_path / "out").exists()


def test_bad_pictures_among_good_ones_are_reported_and_the_rest_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    save(folder / "a-good.png", bad())
    save(folder / "z-good.jpg", bad())
    whole = save(folder / "cut.jpg", bad(5, 200, 200)).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.png").write_bytes(encode_image(bad(), ".png")[:300])
    (folder / "empty.png").write_bytes(b"")
    (folder / "words.png").write_bytes(b"these are words")
    save(folder / "grey.png", photo()[..., 0])
    save(folder / "alpha.png", np.dstack([photo(), photo()[..., :1]]))
    deep = np.full((40, 40, 3), 999, np.uint16)
    (folder / "deep.png").write_bytes(encode_image(deep, ".png"))
    save(folder / "dot.png", np.zeros((1, 1, 3), np.uint8))
    save(folder / "small.png", photo(15, 64))
    reasons = {
        "alpha.png": "COLOR_BGRA2BGR",
        "deep.png": "convertScaleAbs",
        "dot.png": "1 x 1 pixels",
        "empty.png": "empty file",
        "grey.png": "COLOR_GRAY2BGR",
        "small.png": "64 x 15 pixels",
        "words.png": "cannot be decoded",
    }
    # cut.jpg and cut.png would share results, so they are given in two runs.
    (tmp_path / "second").mkdir()
    (folder / "cut.png").rename(tmp_path / "second/cut.png")
    done = rirf("restore", "in", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert files_below(tmp_path / "out") == [
        "a-good.diagnosis.json",
        "a-good.png",
        "z-good.diagnosis.json",
        "z-good.png",
    ]
    lines = done.stderr.splitlines()
    for name, reason in {**reasons, "cut.jpg": "cut short"}.items():
        (line,) = [line for line in lines if line.startswith(f"rirf: in/{name}: ")]
        assert reason in line
    assert len(lines) == len(reasons) + 1
    assert done.stdout.splitlines()[-1] == "restored 2 of 10 pictures into out; 8 failed"
    second = rirf("restore", "second/cut.png", "-o", "out", cwd=tmp_path)
    assert second.returncode == 1
    assert "rirf: second/cut.png: this PNG is cut short" in second.stderr


@pytest.mark.parametrize(
    ("sources", "output", "message"),
    [
        (["missing.png"], "out", "missing.png: no such file or folder"),
        (["empty-folder"], "out", "empty-folder: no pictures in this folder"),
        (["frame.png"], "a-file", "a-file: exists and is a file"),
        (["frame.png"], "a-file/below", "a-file/below: cannot be used for the results"),
        (["frame.png"], "/proc/results", "/proc/results: cannot be used for the results"),
        (["frame.png"], ".", "never overwritten"),
        (["frame.png", "frame.jpg"], "out", "would both write frame.png"),
    ],
)
def test_what_cannot_work_is_refused_before_the_networks_are_loaded(
    tmp_path: Path, sources: list[str], output: str, message: str
) -> None:
    (tmp_path / "empty-folder").mkdir()
    (tmp_path / "a-file").write_bytes(b"keep")
    frame = save(tmp_path / "frame.png", bad()).read_bytes()
    save(tmp_path / "frame.jpg", bad())
    # A bundle that is not there: whatever loads it first says so.
    done = rirf("restore", *sources, "-o", output, "--bundle", "none.rirf", cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("rirf: error: ")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "a-file").read_bytes() == b"keep"
    assert (tmp_path / "frame.png").read_bytes() == frame
    assert files_below(tmp_path) == ["a-file", "frame.jpg", "frame.png"]


def test_a_full_disk_is_reported_and_leaves_no_half_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    save(tmp_path / "in/large.png", rng.integers(0, 256, (256, 256, 3), dtype=np.uint8))
    save(tmp_path / "in/plain.png", np.full((64, 64, 3), 120, np.uint8))

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    done = rirf("restore", "in", "-o", "out", "--steps", "bypass", cwd=tmp_path, before=little_room)
    assert done.returncode == 1
    assert "rirf: in/large.png: out/large.png: cannot be written: File too large" in done.stderr
    assert files_below(tmp_path / "out") == ["plain.diagnosis.json", "plain.png"]


@pytest.mark.parametrize("damage", ["missing", "altered", "incomplete", "no-manifest", "words"])
def test_a_damaged_bundle_is_refused(tmp_path: Path, damage: str) -> None:
    bundle = tmp_path / "own.rirf"
    if damage != "missing":
        shutil.copytree(SHIPPED, bundle)
    if damage == "altered":
        path = bundle / "restorer.onnx"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "incomplete":
        (bundle / "reasoner.onnx").unlink()
    elif damage == "no-manifest":
        (bundle / "manifest.json").unlink()
    elif damage == "words":
        (bundle / "manifest.json").write_text("words")
    save(tmp_path / "frame.png", bad())
    done = rirf("restore", "frame.png", "-o", "out", "--bundle", "own.rirf", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("rirf: error: own.rirf")
    assert done.stderr.count("\n") == 1
    assert files_below(tmp_path / "out") == []


def test_a_bundle_elsewhere_works(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "own.rirf")
    source = save(tmp_path / "frame.png", bad())
    assert run(source, "-o", tmp_path / "out", "--bundle", tmp_path / "own.rirf") == 0


def test_a_shipped_bundle_goes_by_its_name(tmp_path: Path) -> None:
    save(tmp_path / "frame.png", bad())
    for name in ("edge", None):
        option = [] if name is None else ["--bundle", name]
        done = rirf("restore", "frame.png", "-o", f"out-{name}", *option, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, other = (tmp_path / f"out-{name}" / "frame.png" for name in ("edge", None))
    assert one.read_bytes() == other.read_bytes()


def test_the_backend_is_passed_on(tmp_path: Path) -> None:
    save(tmp_path / "frame.png", bad())
    options = ["--backend", "tensorrt", "--threads", "1"]
    done = rirf("restore", "frame.png", "-o", "out", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert "threads and providers are ONNX Runtime's" in done.stderr


def test_a_name_outside_ascii(tmp_path: Path) -> None:
    source = save(tmp_path / "Straße – 雾.png", bad())
    assert run(source, "-o", tmp_path / "aus gabe") == 0
    assert load(tmp_path / "aus gabe/Straße – 雾.png").shape == bad().shape


def test_a_killed_run_leaves_no_half_picture(tmp_path: Path) -> None:
    for number in range(60):
        save(tmp_path / "in" / f"{number:02}.png", bad(number, 192, 192))
    out = tmp_path / "out"
    with start("restore", "in", "-o", "out", "--compare", "--quiet", cwd=tmp_path) as process:
        deadline = time.monotonic() + 100
        while len(list(out.glob("*.compare.png"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    pictures = list(out.glob("*.png"))
    assert 4 <= len(pictures) < 120
    for path in pictures:
        assert load(path).size
    for path in out.glob("*.json"):
        Diagnosis.from_json(path.read_bytes())
