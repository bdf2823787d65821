"""The look for rirf_kernels: absent, broken, of another ABI, here."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rirf import native
from rirf.errors import MissingExtraError
from rirf.native import ABI, cuda_kernels, kernels, require_kernels, why_not

pytestmark = pytest.mark.lean


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing remembered before, nothing left after; the real package comes back."""
    for name in loaded():
        monkeypatch.delitem(sys.modules, name)
    native._look.cache_clear()
    yield
    for name in loaded():  # a fake; monkeypatch then puts the real one back
        del sys.modules[name]
    native._look.cache_clear()


def loaded() -> list[str]:
    return [name for name in sys.modules if name.split(".")[0] == "rirf_kernels"]


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A package of that name with this text, found first."""
    (folder / "rirf_kernels").mkdir()
    (folder / "rirf_kernels" / "__init__.py").write_text(body)
    monkeypatch.syspath_prepend(str(folder))


def built(abi: str, cuda: bool = False) -> str:
    return f"def build_info():\n    return {{'abi': {abi}, 'isa': 'none', 'cuda': {cuda}}}\n"


def test_importing_rirf_does_not_import_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "rirf_kernels.py").write_text("raise SystemExit('it was imported')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import rirf, rirf.degradation"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_fitting_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(tmp_path, monkeypatch, built(str(ABI)))
    module = kernels()
    assert module is not None
    assert module.build_info()["isa"] == "none"
    assert require_kernels("test") is module
    assert why_not() == ("", True)
    assert not caplog.records


def test_no_package(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "rirf_kernels", None)
    assert kernels() is None
    assert why_not() == ("rirf_kernels is not installed", False)
    message = r"needed to restore, but rirf_kernels is not installed; install it with: make kernels"
    with pytest.raises(MissingExtraError, match=message):
        require_kernels("restore")
    assert not caplog.records  # optional: nothing to warn about


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (built(str(ABI + 1)), f"has ABI {ABI + 1}, this rirf expects {ABI}: it is newer"),
        (built(str(ABI - 1)), f"has ABI {ABI - 1}, this rirf expects {ABI}: it is too old"),
        ("import no_such_module\n", "is installed but cannot be imported .*no_such_module"),
        ("from rirf_kernels import _cpu\n", "is installed but cannot be imported .*_cpu"),
        ("raise OSError('libcudart.so: no such file')\n", "cannot be imported .*libcudart"),
        ("", "is installed but cannot be imported .*build_info"),
    ],
)
def test_a_package_that_does_not_fit_is_said_once(
    body: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install(tmp_path, monkeypatch, body)
    with caplog.at_level(logging.WARNING):
        assert kernels() is None
        assert kernels() is None
    (record,) = caplog.records
    assert "Fix: make kernels, or pip install ./kernels" in record.getMessage()
    assert why_not()[1] is True
    with pytest.raises(MissingExtraError, match=reason):
        require_kernels("test")


def test_cuda_without_a_cuda_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, built(str(ABI)))
    with pytest.raises(MissingExtraError, match=r"needed to test, but this build has none; .*nvcc"):
        cuda_kernels("test")


@pytest.mark.parametrize(
    ("half", "message"),
    [
        ("raise OSError('libcuda.so.1: cannot open')\n", r"cannot be used here \(libcuda\.so\.1"),
        ("def device_count():\n    return 0\n", "but none is visible"),
    ],
)
def test_cuda_without_a_device(
    half: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, built(str(ABI), cuda=True))
    (tmp_path / "rirf_kernels" / "cuda.py").write_text(half)
    with pytest.raises(MissingExtraError, match=message):
        cuda_kernels("test")


def test_cuda_with_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, built(str(ABI), cuda=True))
    (tmp_path / "rirf_kernels" / "cuda.py").write_text("def device_count():\n    return 1\n")
    assert cuda_kernels("test").device_count() == 1
