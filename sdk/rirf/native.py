"""The optional native kernels: whether ``rirf_kernels`` is here and fits, and why not.

Everything in the SDK with a native twin asks here, so that the package is looked for once, never
when ``rirf`` is imported, and a version that does not fit is said once. Knows nothing of what the
kernels compute.
"""

from __future__ import annotations

import functools
import importlib
import logging
from dataclasses import dataclass
from types import ModuleType

from rirf.errors import MissingExtraError

__all__ = ["ABI", "INSTALL", "cuda_kernels", "kernels", "require_kernels", "why_not"]

ABI = 1
"""The binary interface this version calls: ``RIRF_KERNELS_ABI`` of ``rirf_kernels.h``."""

INSTALL = "make kernels, or pip install ./kernels in a checkout of rirf"

_NAME = "rirf_kernels"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Found:
    """The module, or why there is none; ``installed`` says whether something is there at all."""

    module: ModuleType | None
    reason: str
    installed: bool


@functools.lru_cache(maxsize=1)
def _look() -> _Found:
    try:
        module = importlib.import_module(_NAME)
        abi = module.build_info()["abi"]
    except ModuleNotFoundError as error:
        if error.name == _NAME:
            return _Found(None, f"{_NAME} is not installed", installed=False)
        return _unfit(f"{_NAME} is installed but cannot be imported ({error})")
    except Exception as error:  # a broken installation fails in any way it likes
        return _unfit(f"{_NAME} is installed but cannot be imported ({error})")
    if abi != ABI:
        older = isinstance(abi, int) and abi < ABI
        mend = "it is too old" if older else "it is newer than this rirf"
        return _unfit(f"{_NAME} has ABI {abi}, this rirf expects {ABI}: {mend}")
    return _Found(module, "", installed=True)


def _unfit(reason: str) -> _Found:
    _LOG.warning("%s; NumPy does its work. Fix: %s", reason, INSTALL)
    return _Found(None, reason, installed=True)


def kernels() -> ModuleType | None:
    """The ``rirf_kernels`` module if it is installed with the ABI this version calls, else None.

    A package that is there but cannot be used is warned about once.
    """
    return _look().module


def why_not() -> tuple[str, bool]:
    """Why :func:`kernels` gives None ("" when it does not), and whether a package is installed."""
    found = _look()
    return found.reason, found.installed


def require_kernels(purpose: str) -> ModuleType:
    """The module of :func:`kernels`, or an error that names the install.

    Args:
        purpose: what it is needed for, as the tail of "needed to ...".

    Raises:
        MissingExtraError: it is missing or of another ABI.
    """
    found = _look()
    if found.module is None:
        raise MissingExtraError(
            f"{_NAME} is needed to {purpose}, but {found.reason}; install it with: {INSTALL}"
        )
    return found.module


def cuda_kernels(purpose: str) -> ModuleType:
    """The CUDA half, ``rirf_kernels.cuda``, with a device that answers.

    Raises:
        MissingExtraError: the kernels are missing, were built without CUDA, or see no device.
    """
    module = require_kernels(purpose)
    if not module.build_info()["cuda"]:
        raise MissingExtraError(
            f"the CUDA half of {_NAME} is needed to {purpose}, but this build has none; install "
            f"the CUDA toolkit (nvcc), then: {INSTALL}"
        )
    try:
        half = importlib.import_module(f"{_NAME}.cuda")
        devices = half.device_count()
    except Exception as error:  # no driver, or a library that cannot be loaded
        raise MissingExtraError(
            f"the CUDA half of {_NAME} is needed to {purpose}, but cannot be used here ({error}); "
            "it needs an NVIDIA driver and a GPU, otherwise choose native or numpy"
        ) from error
    if devices < 1:
        raise MissingExtraError(
            f"a CUDA device is needed to {purpose}, but none is visible; it needs an NVIDIA driver "
            "and a GPU (is CUDA_VISIBLE_DEVICES empty?), otherwise choose native or numpy"
        )
    return half
