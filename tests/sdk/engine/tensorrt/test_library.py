from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from rirf.engine.tensorrt.library import Library, find_library, tidy
from rirf.errors import EngineError, MissingExtraError

pytestmark = pytest.mark.lean


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Make these modules importable at these versions, or not at all."""
    for name, version in versions.items():
        module = None
        if version is not None:
            module = ModuleType(name)
            module.__dict__["__version__"] = version
        monkeypatch.setitem(sys.modules, name, module)


def test_tensorrt_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, tensorrt="10.3.0", tensorrt_rtx="1.7.1.116")
    found = find_library()
    assert (found.flavour, found.version, found.major) == ("tensorrt", "10.3.0", 10)
    assert str(found) == "TensorRT 10.3.0"
    assert str(find_library("tensorrt-rtx")) == "TensorRT-RTX 1.7.1.116"


def test_tensorrt_rtx_is_taken_where_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, tensorrt=None, tensorrt_rtx="1.7.1.116")
    assert find_library().flavour == "tensorrt-rtx"
    with pytest.raises(MissingExtraError, match=r"Jetson.*pip install 'rirf\[tensorrt\]'"):
        find_library("tensorrt")


def test_without_either_both_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, tensorrt=None, tensorrt_rtx=None)
    with pytest.raises(MissingExtraError) as caught:
        find_library()
    assert "'rirf[tensorrt]'" in str(caught.value)
    assert "'rirf[tensorrt-rtx]'" in str(caught.value)


def test_a_missing_shared_library_is_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "tensorrt.py").write_text("import ctypes; ctypes.CDLL('libnowhere_at_all.so')")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match=r"libnowhere_at_all\.so"):
        find_library("tensorrt")


def test_weakly_typed_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, tensorrt="8.6.1")
    with pytest.raises(EngineError, match=r"got TensorRT 8\.6\.1, expected 10\.0 or newer"):
        find_library()


def test_unknown_flavours_are_refused() -> None:
    unknown: Any = "openvino"
    with pytest.raises(EngineError, match="'openvino'; expected one of tensorrt, tensorrt-rtx"):
        find_library(unknown)


def test_tidy_keeps_each_line_once_and_drops_echoes() -> None:
    text = "one\n  two \n\n[checkMacros.cpp::catchCudaError::250] Error Code 1\none"
    assert tidy(text) == "one; two"


def test_libraries_are_equal_by_what_they_are() -> None:
    module = ModuleType("tensorrt")
    assert Library("tensorrt", "10.3.0", module) == Library("tensorrt", "10.3.0", module)
    assert "module" not in repr(Library("tensorrt", "10.3.0", module))
