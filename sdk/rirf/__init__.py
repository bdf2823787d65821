"""rirf: say what is wrong with an outdoor frame, then restore it with that knowledge.

``rirf.load()`` gives a :class:`Pipeline`; ``pipeline(frame)`` gives a :class:`Result` with the
restored image and its :class:`Diagnosis`. Names are imported on first use, so that ``import rirf``
costs nothing until something is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rirf._version import __version__

if TYPE_CHECKING:
    from rirf.bundle import Bundle
    from rirf.diagnosis import Diagnosis
    from rirf.errors import (
        BundleError,
        DiagnosisError,
        EngineError,
        ImageError,
        MissingExtraError,
        OutputError,
        RirfError,
    )
    from rirf.pipeline import Pipeline, Result, load
    from rirf.reasoner import Reading

__all__ = [
    "Bundle",
    "BundleError",
    "Diagnosis",
    "DiagnosisError",
    "EngineError",
    "ImageError",
    "MissingExtraError",
    "OutputError",
    "Pipeline",
    "Reading",
    "Result",
    "RirfError",
    "__version__",
    "load",
]

_HOMES = {
    "Bundle": "rirf.bundle",
    "Diagnosis": "rirf.diagnosis",
    "Pipeline": "rirf.pipeline",
    "Reading": "rirf.reasoner",
    "Result": "rirf.pipeline",
    "load": "rirf.pipeline",
    **{name: "rirf.errors" for name in __all__ if name.endswith("Error")},
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'rirf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
