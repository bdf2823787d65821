"""Files and folders: finding pictures, writing whole files or nothing.

Files are written under a temporary name and renamed, so that nobody ever sees half of one. Knows
paths only, nothing of what is in a file.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rirf.errors import ImageError, OutputError

__all__ = ["READABLE", "Found", "find_images", "prepare_folder", "write_atomic"]

# Suffixes taken from a folder; a file named outright is read whatever it is called.
READABLE = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file or nothing: temporary file in the same folder, flush to disk, rename.

    An existing regular file is replaced; until the rename it stays as it was.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, or the path is a
            folder or a device. No temporary file stays behind.
    """
    path = Path(path)
    # A short name of its own, because the final name may already be as long as names can be.
    temporary = path.with_name(f".rirf-{secrets.token_hex(8)}.tmp")
    try:
        # A rename would put a plain file in the place of a device such as /dev/null.
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise OutputError(f"{path}: cannot be written, it is {kind}; choose another path")
        try:
            _write_through(temporary, data)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}; choose a folder that exists, "
            f"is writable and has {len(data)} bytes free"
        ) from error


def _write_through(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # Makes the rename itself survive a power cut, where the system lets folders be opened.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """Make an output folder where needed and prove that files can be made in it.

    Raises:
        OutputError: the path is a file, or the folder cannot be made or written to.
    """
    folder = Path(folder)
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(
                f"{folder}: exists and is a file; expected a folder for the results, name another "
                "one"
            )
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".rirf-{secrets.token_hex(8)}.tmp"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be used for the results: {error.strerror or error}; "
            "choose a folder that can be created and written to"
        ) from error
    return folder


@dataclass(frozen=True)
class Found:
    """A picture file: its ``path``, and the ``relative`` path that names its results."""

    path: Path
    relative: Path


def find_images(
    sources: Iterable[str | os.PathLike[str]],
    *,
    skip: str | os.PathLike[str] | None = None,
    outputs: Callable[[Path], Sequence[Path]] = lambda relative: (relative.with_suffix(""),),
) -> list[Found]:
    """Picture files from files and folders, folders recursively, each folder sorted by name.

    A file is named by its own name. A folder's files keep their path below it; where several
    sources are given, below the folder's own name. Hidden files and folders are left out, and a
    file reached twice is taken once.

    Args:
        sources: files (of any name) and folders (files with a suffix of ``READABLE``).
        skip: a folder left out when it lies inside a source, typically where results go.
        outputs: the relative paths of the results of one relative path; by default its stem.

    Raises:
        ImageError: no source, a missing one, or a folder without pictures.
        OutputError: two pictures would write the same result.
    """
    given = [Path(source) for source in sources]
    if not given:
        raise ImageError("got no picture; expected at least one file or folder")
    skipped = None if skip is None else Path(skip).resolve()
    found: dict[Path, Found] = {}
    for source in given:
        try:
            is_folder, exists = source.is_dir(), source.exists()
        except OSError as error:
            raise ImageError(f"{source}: cannot be read: {error.strerror or error}") from error
        if is_folder:
            base = Path(source.resolve().name) if len(given) > 1 else Path()
            files = [(file, base / file.relative_to(source)) for file in _walk(source, skipped)]
            if not files:
                raise ImageError(
                    f"{source}: no pictures in this folder; expected files that end in "
                    f"{', '.join(READABLE)}"
                )
        elif exists:
            files = [(source, Path(source.name))]
        else:
            raise ImageError(f"{source}: no such file or folder; check the spelling")
        for file, relative in files:
            found.setdefault(file.resolve(), Found(file, relative))
    writers: dict[Path, Path] = {}
    for item in found.values():
        for result in outputs(item.relative):
            other = writers.setdefault(result, item.path)
            if other != item.path:
                raise OutputError(
                    f"{other} and {item.path} would both write {result}; rename one of them, or "
                    "run them one after the other into different folders"
                )
    return list(found.values())


def _walk(folder: Path, skipped: Path | None) -> list[Path]:
    def fail(error: OSError) -> None:
        raise ImageError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    files: list[Path] = []
    for here, folders, names in os.walk(folder, onerror=fail):
        parent = Path(here)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (parent / name).resolve() != skipped
        )
        files += [
            parent / name
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in READABLE
        ]
    return files
