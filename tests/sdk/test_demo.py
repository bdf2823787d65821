"""The demonstration: with a packaged photograph, and with one of the user's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rirf.diagnosis import Diagnosis
from tests.sdk.pictures import files_below, load, photo, save


def demo(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rirf.demo", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_packaged_photograph(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image brings the photograph")
    from rirf.demo import degraded_photo
    from rirf.evaluation.metrics import measure

    done = demo(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = ["rocket.compare.png", "rocket.diagnosis.json", "rocket.input.png"]
    assert files_below(tmp_path / "demo") == [*names, "rocket.restored.png"]
    clean, frame = degraded_photo()
    np.testing.assert_array_equal(load(tmp_path / "demo/rocket.input.png"), frame)
    before = measure(frame, clean)
    after = measure(load(tmp_path / "demo/rocket.restored.png"), clean)
    assert f"PSNR {before.psnr:.2f} dB before, {after.psnr:.2f} dB after" in done.stdout
    assert f"SSIM {before.ssim:.3f} before, {after.ssim:.3f} after" in done.stdout
    assert after.psnr > before.psnr + 3
    assert after.ssim > before.ssim
    written = Diagnosis.from_json((tmp_path / "demo/rocket.diagnosis.json").read_bytes())
    assert done.stdout.startswith(written.to_text())
    for name in files_below(tmp_path / "demo"):
        assert f"demo/{name}" in done.stdout


@pytest.mark.lean
def test_a_photograph_of_the_users(tmp_path: Path) -> None:
    source = save(tmp_path / "holiday.png")
    before = source.read_bytes()
    done = demo(source, "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = ["holiday.compare.png", "holiday.diagnosis.json", "holiday.restored.png"]
    assert files_below(tmp_path / "out") == names
    assert load(tmp_path / "out/holiday.restored.png").shape == photo().shape
    assert json.loads((tmp_path / "out/holiday.diagnosis.json").read_text())["source"] == "edge"
    assert "PSNR" not in done.stdout
    assert source.read_bytes() == before


@pytest.mark.lean
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "missing.png: cannot be read"),
        (["words.png"], "words.png: cannot be decoded"),
        (["frame.png", "-o", "words.png"], "words.png: exists and is a file"),
        (["frame.png", "--bundle", "none.rirf"], "none.rirf: no such bundle"),
        (["frame.restored.png", "-o", "."], None),
    ],
)
def test_what_cannot_work_is_one_line(
    tmp_path: Path, arguments: list[str], message: str | None
) -> None:
    (tmp_path / "words.png").write_bytes(b"words")
    save(tmp_path / "frame.png")
    source = save(tmp_path / "frame.restored.png")
    before = source.read_bytes()
    done = demo(*arguments, cwd=tmp_path)
    if message is None:  # frame.restored.restored.png is another file
        assert done.returncode == 0
        assert source.read_bytes() == before
        return
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("rirf.demo: error: ")
    assert done.stderr.count("\n") == 1
