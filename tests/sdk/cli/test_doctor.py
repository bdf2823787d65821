"""``rirf doctor``: what it reports here, and what it says of broken installations."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rirf import __version__
from rirf.cli import main
from rirf.cli.doctor import examine, jetson_notes
from rirf.degradation import select_backend
from tests.sdk.pictures import rirf

pytestmark = pytest.mark.lean


def installed(folder: Path, *names: str) -> str:
    """A search path on which distributions of these names are installed first."""
    for name in names:
        info = folder / f"{name.replace('-', '_')}-9.9.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    return ":".join([str(folder), *filter(None, sys.path)])


def test_this_installation_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"rirf {__version__}, Python {sys.version.split()[0]}")
    assert "complete, every checksum right" in out
    assert "128 x 96 pixels" in out
    assert out.splitlines()[-1] == "rirf works here"


def test_what_degrades_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RIRF_DEGRADATION_BACKEND", raising=False)
    report = examine()
    assert report.degradation["backend"] == select_backend()
    assert "\ndegradation\n  kernels   " in report.to_text()
    folder = tmp_path / "packages" / "rirf_kernels"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("def build_info():\n    return {'abi': 99}\n")
    path = ":".join([str(folder.parent), *filter(None, sys.path)])
    done = rirf("doctor", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0
    assert "warning: rirf_kernels has ABI 99, this rirf expects 1: it is newer" in done.stdout
    assert "fix: make kernels" in done.stdout
    assert "\n  backend   numpy\n" in done.stdout


def test_without_the_kernels_numpy_degrades(tmp_path: Path) -> None:
    (tmp_path / "rirf_kernels.py").write_text(
        "raise ModuleNotFoundError('none here', name='rirf_kernels')\n"
    )
    path = ":".join([str(tmp_path), *filter(None, sys.path)])
    done = rirf("doctor", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0
    assert (
        "note: rirf_kernels is not installed; degradation and training run on NumPy" in done.stdout
    )


def test_a_backend_that_cannot_be_used_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RIRF_DEGRADATION_BACKEND", "gpu")
    report = examine()
    assert report.ok
    (finding,) = [item for item in report.findings if "degradation fails" in item.what]
    assert finding.level == "warning"
    assert "expected one of auto, numpy, native, cuda" in finding.what


def test_json_says_the_same(tmp_path: Path) -> None:
    done = rirf("doctor", "--json", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["rirf"] == __version__
    assert report["providers"]["CPUExecutionProvider"] == "works"
    assert report["cpu"]["environment"]["OMP_NUM_THREADS"] == "1"
    assert report["packages"]["numpy"]
    assert not [finding for finding in report["findings"] if finding["level"] == "problem"]


def test_torch_is_never_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    path = ":".join([str(tmp_path), *filter(None, sys.path)])
    assert rirf("doctor", cwd=tmp_path, PYTHONPATH=path).returncode == 0


def test_two_runtimes_are_a_conflict(tmp_path: Path) -> None:
    path = installed(tmp_path / "packages", "onnxruntime", "onnxruntime-gpu")
    done = rirf("doctor", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0  # it still answers here
    assert "onnxruntime and onnxruntime-gpu are installed side by side" in done.stdout
    assert "fix: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'rirf[" in done.stdout


def test_two_opencvs_are_a_conflict(tmp_path: Path) -> None:
    path = installed(tmp_path / "packages", "opencv-python", "opencv-python-headless")
    done = rirf("doctor", cwd=tmp_path, PYTHONPATH=path)
    assert (
        "fix: pip uninstall -y opencv-python opencv-python-headless && "
        "pip install opencv-python-headless" in done.stdout
    )


def test_a_contrib_opencv_is_kept(tmp_path: Path) -> None:
    path = installed(tmp_path / "packages", "opencv-contrib-python", "opencv-python-headless")
    done = rirf("doctor", cwd=tmp_path, PYTHONPATH=path)
    assert "&& pip install opencv-contrib-python-headless" in done.stdout


@pytest.mark.parametrize("module", ["cv2", "onnxruntime"])
def test_a_module_that_cannot_be_imported_is_a_problem(tmp_path: Path, module: str) -> None:
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / f"{module}.py").write_text("raise ImportError('libGL.so.1: cannot open')\n")
    path = ":".join([str(folder), *filter(None, sys.path)])
    done = rirf("doctor", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1
    assert f"problem: {module} cannot be imported: libGL.so.1: cannot open" in done.stdout
    assert "fix: pip " in done.stdout
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1].startswith("rirf does not work here")


def test_a_damaged_bundle_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--bundle", str(tmp_path / "none.rirf")]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    (problem,) = [item for item in report["findings"] if item["level"] == "problem"]
    assert "rirf.load() fails" in problem["what"]
    assert "none.rirf" in problem["what"]
    assert report["bundle"]["state"].startswith("cannot be used")


def test_a_gpu_without_a_provider_is_noted(tmp_path: Path) -> None:
    present = tmp_path / "nvidia0"
    assert "cannot use it" not in examine(gpu=[present]).to_text()
    present.touch()
    report = examine(gpu=[present])
    usable = any("CUDA" in name or "Tensor" in name for name in report.providers)
    assert usable or "pip install 'rirf[gpu]'" in report.to_text()


def test_a_jetson_is_recognised(tmp_path: Path) -> None:
    release = tmp_path / "nv_tegra_release"
    assert jetson_notes(release) == []
    release.write_text("# R36 (release), REVISION: 4.0, GCID: 1, BOARD: generic\nmore\n")
    findings = jetson_notes(release)
    assert "this is a Jetson (R36 (release), REVISION: 4.0" in findings[0].what
    assert "--system-site-packages" in findings[0].fix
    release.write_text("")
    assert jetson_notes(release) == []
