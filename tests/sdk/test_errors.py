from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

import rirf.errors
from rirf.errors import MissingExtraError, RirfError, require

pytestmark = pytest.mark.lean


def test_every_error_is_a_rirf_error() -> None:
    named = [getattr(rirf.errors, name) for name in rirf.errors.__all__ if name.endswith("Error")]
    assert len(named) >= 7
    for error in named:
        assert issubclass(error, RirfError)
        assert error.__doc__


def test_all_lists_every_error_of_the_module() -> None:
    defined = {
        name
        for name, value in vars(rirf.errors).items()
        if isinstance(value, type) and issubclass(value, RirfError)
    }
    assert defined | {"require"} == set(rirf.errors.__all__)


def test_require_returns_the_module() -> None:
    assert require("json", "cpu", "read JSON") is json


def test_require_imports_dotted_names() -> None:
    assert require("importlib.util", "cpu", "look") is importlib.import_module("importlib.util")


def test_a_missing_module_names_module_purpose_and_command() -> None:
    with pytest.raises(MissingExtraError) as caught:
        require("rirf_has_no_such_module", "tensorrt", "run an engine")
    message = str(caught.value)
    assert "rirf_has_no_such_module is needed to run an engine" in message
    assert "pip install 'rirf[tensorrt]'" in message
    assert isinstance(caught.value.__cause__, ImportError)


def test_an_installed_module_whose_own_import_fails_is_reported_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rirf_broken_probe.py").write_text("from math import no_such_function\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match="no_such_function"):
        require("rirf_broken_probe", "cpu", "try")
    assert "rirf_broken_probe" not in sys.modules
