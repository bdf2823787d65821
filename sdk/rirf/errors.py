"""Every error the SDK raises on purpose. Each message says: got, expected, how to mend."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = [
    "BundleError",
    "ClusterError",
    "DiagnosisError",
    "EngineError",
    "ImageError",
    "MissingExtraError",
    "OutputError",
    "RirfError",
    "require",
]


class RirfError(Exception):
    """Base of all errors raised on purpose by rirf; catch it to catch them all."""


class ImageError(RirfError):
    """An image is unreadable or breaks the image contract (uint8, H x W x 3, H and W >= 16)."""


class DiagnosisError(RirfError):
    """A diagnosis text or JSON cannot be understood."""


class BundleError(RirfError):
    """A bundle is missing, incomplete, tampered with, or of a schema this version cannot read."""


class EngineError(RirfError):
    """An inference engine cannot be loaded or was given tensors that do not fit its graph."""


class ClusterError(RirfError):
    """A cluster does not answer, or its machines cannot do the work."""


class OutputError(RirfError):
    """A result cannot be written where it was asked for."""


class MissingExtraError(RirfError):
    """An optional dependency is not installed; the message names the pip command."""


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency or name the extra that brings it.

    Args:
        module: dotted module name, e.g. ``"onnxruntime"``.
        extra: the extra of this distribution that installs it, e.g. ``"cpu"``.
        purpose: what it is needed for, as the tail of "needed to ...".

    Raises:
        MissingExtraError: when the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a package whose shared library is missing
        raise MissingExtraError(
            f"{module} is needed to {purpose}, but cannot be imported ({error}); "
            f"install it with: pip install 'rirf[{extra}]'"
        ) from error
