"""The Python package: what it says of itself, its types, and that it needs nothing but NumPy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")

SNIPPET = """
from __future__ import annotations

import numpy as np

import rirf_kernels
from rirf_kernels import _cpu

image = np.zeros((2, 32, 32, 3), dtype=np.float32)
rows = rirf_kernels.sample([1, 2])
degraded, truth = rirf_kernels.degrade(image, rows, threads=2)
mask, covered = rirf_kernels.rain_mask(rows, 32, 32)
total: float = float(covered.sum()) + float(truth["severity"].sum())
info = rirf_kernels.build_info()
isa: str = info["isa"]
abi: int = _cpu.abi()
"""
MISTAKES = {
    'rirf_kernels.degrade(image, rows, threads="two")': "arg-type",
    "rirf_kernels.degrade(image)": "call-arg",
    'number: int = info["isa"]': "assignment",
    "_cpu.snow()": "attr-defined",
    "rirf_kernels.snow(image)": "attr-defined",
}


def check_types(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "snippet.py").write_text(code, encoding="utf-8")
    # Away from the checkout, so that the installed package and its stubs are what is read.
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", ".cache", "snippet.py"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


def test_build_info_tells_what_was_built() -> None:
    info = native.build_info()
    assert set(info) == {"abi", "isa", "cuda", "cuda_architectures"}
    assert info["abi"] == 1
    assert info["isa"] in ("baseline", "x86-64-v3", "x86-64-v4")
    has_cuda = importlib.util.find_spec("rirf_kernels._cuda") is not None
    assert info["cuda"] is has_cuda
    assert bool(info["cuda_architectures"]) is has_cuda


def test_the_structures_have_the_sizes_of_the_header() -> None:
    assert native.RECIPE.itemsize == 112
    assert native.TRUTH.itemsize == 88


def test_stubs_and_marker_are_installed() -> None:
    folder = Path(inspect.getfile(native)).parent
    assert (folder / "py.typed").exists()
    stub = (folder / "_cpu.pyi").read_text(encoding="utf-8")
    compiled = importlib.import_module("rirf_kernels._cpu")
    functions = [name for name in dir(compiled) if not name.startswith("_")]
    assert [name for name in functions if f"def {name}(" not in stub] == []
    assert len(functions) > 15


@pytest.mark.slow
def test_a_users_code_passes_strict_type_checks(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="the type checker is what is asked here")
    good = check_types(tmp_path, SNIPPET)
    assert good.returncode == 0, good.stdout
    bad = check_types(tmp_path, SNIPPET + "\n".join(MISTAKES))
    for mistake, code in MISTAKES.items():
        line = (SNIPPET + "\n".join(MISTAKES)).split("\n").index(mistake) + 1
        assert any(
            said.startswith(f"snippet.py:{line}: error:") and f"[{code}]" in said
            for said in bad.stdout.splitlines()
        ), f"{mistake}:\n{bad.stdout}"


def test_public_names_are_documented() -> None:
    for name in native.__all__:
        if callable(getattr(native, name)):
            assert inspect.getdoc(getattr(native, name)), name


def test_it_imports_without_anything_of_ours() -> None:
    code = (
        "import sys, rirf_kernels\n"
        "extra = {'rirf', 'torch', 'cv2', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(', '.join(extra) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_is_a_distribution_of_its_own() -> None:
    try:
        found = importlib.metadata.distribution("rirf-kernels")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("on the search path without having been installed")
    assert found.version == native.__version__
    names = {need.split(">")[0].strip() for need in found.requires or []}
    assert names == {"numpy"}


def test_importing_starts_no_threads() -> None:
    code = (
        "from pathlib import Path\n"
        "import sys, numpy\n"
        "before = len(list(Path('/proc/self/task').iterdir()))\n"
        "import rirf_kernels\n"
        "sys.exit(len(list(Path('/proc/self/task').iterdir())) - before)"
    )
    if not Path("/proc/self/task").exists():
        pytest.skip("counts threads as Linux shows them")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_results_are_numpy_arrays_of_the_documented_types() -> None:
    rows = native.sample([1, 2])
    image = np.zeros((2, 20, 24, 3), dtype=np.float32)
    degraded, truth = native.degrade(image, rows)
    assert (degraded.dtype, degraded.shape) == (np.float32, image.shape)
    assert (truth.dtype, truth.shape) == (native.TRUTH, (2,))
    psf, moments = native.shake_kernels(rows)
    assert (psf.dtype, psf.shape) == (np.float32, (2, 31, 31))
    assert moments.dtype == native.TRUTH
    assert native.means(image[..., 0]).dtype == np.float64
