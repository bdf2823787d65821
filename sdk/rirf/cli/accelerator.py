"""What ``rirf doctor`` says of TensorRT, the GPU and a Jetson's power mode.

Starts each library, asks the driver for the GPU, and runs engines only when told to, because
building them takes from seconds to minutes. Changes nothing but the engine cache.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import get_args

from rirf.errors import MissingExtraError, RirfError

__all__ = ["engines", "gpu", "jetson", "libraries"]

_MODEL = Path("/proc/device-tree/model")
_SECONDS = 10


def libraries() -> dict[str, str]:
    """Each TensorRT library that is installed: its version once its builder started, or why not."""
    from rirf.engine.tensorrt import Flavour, find_library

    found = {}
    for flavour in get_args(Flavour):
        try:
            library = find_library(flavour)
            library.module.Builder(library.module.Logger(library.module.Logger.ERROR))
        except MissingExtraError:
            continue
        except Exception as error:  # a broken installation fails in any way it likes
            found[flavour] = f"does not start: {' '.join(str(error).split())}"
        else:
            found[flavour] = f"{library.version}, its builder starts"
    return found


def gpu() -> str:
    """The GPU as the driver describes it, or why there is none."""
    from rirf.engine.tensorrt import find_gpu

    try:
        found = find_gpu()
    except RirfError as error:
        return f"not known: {error}"
    return f"{found.name}, {found.architecture}, driver for CUDA {found.cuda}"


def jetson(model: Path = _MODEL) -> dict[str, str]:
    """Model and power mode of a Jetson, empty elsewhere.

    Args:
        model: the file in which the device tree names the board.
    """
    try:
        # Device trees end their texts with a zero.
        board = model.read_text(encoding="utf-8", errors="replace").rstrip("\0\n")
    except OSError:
        return {}
    if "jetson" not in board.lower():
        return {}
    return {"model": board, "power mode": _power_mode()}


def _power_mode() -> str:
    tool = shutil.which("nvpmodel")
    if tool is None:
        return "not known: nvpmodel is not installed"
    try:
        done = subprocess.run(
            [tool, "-q"], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not known: {error}"
    for line in done.stdout.splitlines():
        name, colon, value = line.partition(":")
        if colon and "power mode" in name.lower():
            return value.strip()
    said = " ".join((done.stderr or done.stdout).split())
    return f"not known: nvpmodel -q said {said or 'nothing'}"


def engines(bundle: Path | None, flavours: list[str]) -> dict[str, str]:
    """One frame through the pair on each library, engines built where the cache holds none."""
    import numpy as np

    import rirf

    frame = np.full((96, 128, 3), 127, dtype=np.uint8)
    found = {}
    for flavour in flavours:
        try:
            with rirf.load(bundle, backend=flavour) as pipeline:  # type: ignore[arg-type]  # names of backends
                result = pipeline(
                    frame, steps=next(iter(pipeline.bundle.manifest.restorer.schedules))
                )
        except Exception as error:  # as above
            found[flavour] = f"does not work: {' '.join(str(error).split())}"
        else:
            found[flavour] = f"works, {1000 * result.timings['total']:.0f} ms the first time"
    return found
