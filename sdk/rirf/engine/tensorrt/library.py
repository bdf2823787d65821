"""Finds TensorRT or TensorRT-RTX and listens to what it says.

Both have the same Python API under different names. Knows no graph and no GPU.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeAlias

from rirf.errors import EngineError, MissingExtraError, require

__all__ = ["DTYPES", "FLAVOURS", "Flavour", "Library", "find_library", "listener", "said", "tidy"]

Flavour: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]
# By preference: TensorRT tunes for the GPU it is on. The extras are called like the flavours.
FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")
_MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
# Strong typing, which puts precision into the graph, came with TensorRT 10.
_OLDEST: dict[Flavour, int] = {"tensorrt": 10, "tensorrt-rtx": 1}
# NumPy dtype of each of the library's tensor types that NumPy has.
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
_LOG = logging.getLogger(__name__)
_KEPT = 20
# Without a GPU, every error is followed by this one, which is no reason for it.
_ECHO = "[checkMacros.cpp::catchCudaError"


@dataclass(frozen=True)
class Library:
    """TensorRT or TensorRT-RTX as imported: ``flavour``, ``version`` (``"10.3.0"``), ``module``."""

    flavour: Flavour
    version: str
    module: Any = field(repr=False)

    def __str__(self) -> str:
        return f"{'TensorRT' if self.flavour == 'tensorrt' else 'TensorRT-RTX'} {self.version}"

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.partition(".")[0])


def find_library(flavour: Flavour | None = None) -> Library:
    """Import the library, or the first that is there when ``flavour`` is None.

    Raises:
        MissingExtraError: it is not installed, or its shared libraries are missing.
        EngineError: it is too old for strongly typed networks, or the flavour is unknown.
    """
    if flavour is not None:
        return _import(flavour)
    missing = []
    for name in FLAVOURS:
        try:
            return _import(name)
        except MissingExtraError as error:
            missing.append(str(error))
    raise MissingExtraError("; or ".join(missing))


def _import(flavour: Flavour) -> Library:
    if flavour not in _MODULES:
        raise EngineError(f"flavour is {flavour!r}; expected one of {', '.join(FLAVOURS)}")
    purpose = f"build and run {flavour} engines"
    if flavour == "tensorrt":
        purpose += " (a Jetson has it already: make the environment with --system-site-packages)"
    module = require(_MODULES[flavour], flavour, purpose)
    library = Library(flavour, str(module.__version__), module)
    if library.major < _OLDEST[flavour]:
        raise EngineError(
            f"got {library}, expected {_OLDEST[flavour]}.0 or newer, which has strongly typed "
            f"networks; upgrade it: pip install -U 'rirf[{flavour}]', or JetPack on a Jetson"
        )
    return library


@cache
def listener(library: Library) -> Any:
    """The library's logger, one a process: the library keeps the first it is given.

    Warnings and errors go to this module's logger as information, because what matters of them is
    raised; the last errors are kept for :func:`said`.
    """
    base: Any = library.module.ILogger

    # The base is a compiled class without stubs.
    class Listener(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: deque[str] = deque(maxlen=_KEPT)

        def log(self, severity: Any, text: str) -> None:
            if severity in (base.ERROR, base.INTERNAL_ERROR):
                self.errors.append(text)
            elif severity != base.WARNING:
                return  # thousands of lines a build
            _LOG.info("%s: %s", library, text)

    return Listener()


def said(library: Library) -> str:
    """The errors reported since the last call, as one text; they are forgotten."""
    errors: deque[str] = listener(library).errors
    text = tidy("\n".join(errors))
    errors.clear()
    return text or "no reason given"


def tidy(text: str) -> str:
    """The library's lines as one, without repetitions and echoes."""
    lines = (line.strip() for line in text.splitlines())
    return "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith(_ECHO)))
