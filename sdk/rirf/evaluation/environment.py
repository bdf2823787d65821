"""Where figures were measured: bundle, device, provider, threads, versions. No machine's name."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from rirf._version import __version__
from rirf.pipeline import Pipeline

__all__ = ["describe", "device_name"]

_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "scikit-image")
_CPU_PROVIDER = "CPUExecutionProvider"


def device_name(provider: str) -> str:
    """The processor's model for the CPU provider, ``gpu`` for any other."""
    if provider != _CPU_PROVIDER:
        return "gpu"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def describe(pipeline: Pipeline, threads: int | None) -> dict[str, Any]:
    """Everything a published figure has to name.

    Args:
        pipeline: the one that is measured.
        threads: what it was loaded with.
    """
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # another build of the same library, or none
            continue
    bundle, provider = pipeline.bundle, pipeline.restorer.device
    return {
        "bundle": bundle.manifest.name,
        "bundle_digest": bundle.digest,
        "precision": bundle.manifest.restorer.precision,
        "device": device_name(provider),
        "provider": provider,
        "threads": "auto" if threads is None else threads,
        "cores": os.cpu_count(),
        "rirf": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": versions,
    }
