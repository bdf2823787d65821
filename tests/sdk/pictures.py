"""Pictures made of arithmetic, and the command line as a process; nothing beyond base + cpu."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def photo(height: int = 64, width: int = 80, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth scene with some edges, uint8 BGR."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    sky = 200 - 80 * rows / height
    picture = np.stack([sky, 0.8 * sky + 0.2 * columns, 140 + 40 * np.sin(columns / 9)], axis=-1)
    picture[rows > 0.6 * height] *= 0.5
    picture[height // 3 : height // 2, width // 4 : width // 2] = rng.uniform(20, 230, 3)
    clipped: NDArray[np.uint8] = np.clip(picture, 0, 255).astype(np.uint8)
    return clipped


def save(path: Path, picture: NDArray[np.uint8] | None = None) -> Path:
    """Write a picture, by default :func:`photo`, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, photo() if picture is None else picture)
    assert done
    path.write_bytes(data.tobytes())
    return path


def load(path: Path) -> NDArray[Any]:
    """Read a file that must be a whole picture, as stored."""
    picture = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None, f"{path} is not a picture"
    return np.asarray(picture)


def _heed_interrupts() -> None:
    # A shell starts background jobs with the signal ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """Start ``python -m rirf``, open to interrupts however the tests themselves were started."""
    return subprocess.Popen(
        [sys.executable, "-m", "rirf", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_interrupts,  # noqa: PLW1509 (the tests start no threads before this)
    )


def rirf(
    *arguments: str | Path,
    cwd: Path,
    before: Callable[[], None] | None = None,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m rirf`` to its end; ``before`` runs in the child first."""
    return subprocess.run(
        [sys.executable, "-m", "rirf", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=before,
        env=os.environ | environment,
    )


def files_below(folder: Path) -> list[str]:
    """Relative paths of all files, hidden ones too, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
