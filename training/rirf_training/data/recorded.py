"""Recorded outputs of another restorer: what it was given, what it made, with which diagnosis.

A folder of NAME.degraded.png, NAME.restored.png, NAME.json (the diagnosis, as JSON) and, where the
clean frame is known, NAME.clean.png; other files are left alone. Knows no restorer: any may have
written them.

Pictures are decoded once, to ``<key>.npy`` (uint8, all pictures of a pair) in a folder of its own;
the key is a hash of their bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rirf.diagnosis import Diagnosis
from rirf.errors import DiagnosisError, ImageError
from rirf.images import read_image
from rirf_training.data.draw import save_array

__all__ = ["Pair", "RecordedPairs"]

_DEGRADED, _RESTORED, _CLEAN = ".degraded.png", ".restored.png", ".clean.png"
_DIAGNOSIS = ".json"


@dataclass(frozen=True)
class Pair:
    """What a restorer made of a frame; pictures are uint8 BGR (H, W, 3) of one size.

    Attributes:
        degraded: what it was given.
        restored: what it made.
        clean: the truth, None where it is not known.
    """

    degraded: NDArray[np.uint8]
    restored: NDArray[np.uint8]
    clean: NDArray[np.uint8] | None


@dataclass(frozen=True)
class _Record:
    diagnosis: Diagnosis
    pictures: Path  # (2 or 3, H, W, 3)
    digest: str


class RecordedPairs:
    """All pairs of a folder, in order of their names.

    Args:
        folder: see the module's text.
        decoded: where decoded pictures are kept; what is there is used.
        workers: threads that decode.
        progress: show a bar while pictures are decoded.

    Raises:
        ImageError: no pairs; a pair lacks one of its files; a picture cannot be read or is of
            another size than its partner.
        DiagnosisError: a JSON file is no diagnosis.
    """

    def __init__(
        self, folder: Path, decoded: Path, *, workers: int = 2, progress: bool = True
    ) -> None:
        self.names = _names(folder)
        decoded.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(max(1, workers), thread_name_prefix="recorded") as pool:
            found = pool.map(lambda name: _read(folder, name, decoded), self.names)
            total = len(self.names)
            bar = tqdm(found, total=total, desc="recorded", unit="pair", disable=not progress)
            self._records = list(bar)
        digests = (
            f"{name}\0{record.digest}\n"
            for name, record in zip(self.names, self._records, strict=True)
        )
        self.sha256 = hashlib.sha256("".join(digests).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def diagnoses(self) -> Sequence[Diagnosis]:
        """What each frame was restored with."""
        return [record.diagnosis for record in self._records]

    def pair(self, position: int) -> Pair:
        """The pictures of a pair, as read-only memory maps."""
        pictures: NDArray[np.uint8] = np.load(self._records[position].pictures, mmap_mode="r")
        degraded, restored, *clean = pictures
        return Pair(degraded, restored, clean[0] if clean else None)


def _names(folder: Path) -> tuple[str, ...]:
    try:
        files = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ImageError(
            f"{folder}: cannot be listed ({error.strerror}); expected a folder of recorded outputs"
        ) from error
    ends = (_DEGRADED, _RESTORED, _CLEAN)
    names = {file.removesuffix(end) for end in ends for file in files if file.endswith(end)}
    if not names:
        raise ImageError(
            f"{folder}: no recorded outputs here; expected NAME{_DEGRADED}, NAME{_RESTORED} and "
            f"NAME{_DIAGNOSIS} for each"
        )
    for name in sorted(names):
        needed = [name + end for end in (_DEGRADED, _RESTORED, _DIAGNOSIS)]
        missing = [file for file in needed if file not in files]
        if missing:
            raise ImageError(
                f"{folder}: {name} lacks {' and '.join(missing)}; record it again or delete what "
                "is left of it"
            )
    return tuple(sorted(names))


def _read(folder: Path, name: str, decoded: Path) -> _Record:
    text = folder / f"{name}{_DIAGNOSIS}"
    paths = [folder / f"{name}{end}" for end in (_DEGRADED, _RESTORED)]
    clean = folder / f"{name}{_CLEAN}"
    if clean.exists():
        paths.append(clean)
    try:
        content = text.read_bytes()
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    except OSError as error:
        raise ImageError(f"{error.filename}: cannot be read: {error.strerror}") from error
    try:
        diagnosis = Diagnosis.from_json(content)
    except DiagnosisError as error:
        raise DiagnosisError(f"{text}: {error}") from error
    key = hashlib.sha256("".join(hashes).encode()).hexdigest()
    file = decoded / f"{key[:24]}.npy"
    if not file.exists():
        pictures = [read_image(path) for path in paths]
        for path, picture in zip(paths[1:], pictures[1:], strict=True):
            if picture.shape != pictures[0].shape:
                raise ImageError(
                    f"{path} is {_size(picture)}, but {paths[0].name} is {_size(pictures[0])}; "
                    "expected one size: record them without scaling or cropping"
                )
        save_array(file, np.stack(pictures))
    return _Record(diagnosis, file, hashlib.sha256(key.encode() + content).hexdigest())


def _size(picture: NDArray[np.uint8]) -> str:
    height, width = picture.shape[:2]
    return f"{width}x{height}"
