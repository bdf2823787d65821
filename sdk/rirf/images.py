"""Frames at the SDK's border: the image contract, finding, reading and writing picture files.

Outside, a frame is uint8 BGR (H, W, 3) with H and W >= 16; inside, float32 RGB in [0, 1]. This is
the only module that knows both. Files are written under a temporary name and renamed, so that
nobody ever sees half of one. Knows nothing of diagnoses or of what is done to a frame.
"""

from __future__ import annotations

import os
import re
import secrets
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf.errors import ImageError, OutputError

__all__ = [
    "MIN_SIDE",
    "READABLE",
    "WRITABLE",
    "Found",
    "check_frame",
    "encode_image",
    "find_images",
    "prepare_folder",
    "read_image",
    "to_float",
    "to_uint8",
    "write_atomic",
    "write_image",
]

MIN_SIDE = 16
# Suffixes taken from a folder; a file named outright is read whatever it is called.
READABLE = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_JPEG_QUALITY = 95
_ENCODINGS: dict[str, tuple[int, ...]] = {
    ".bmp": (),
    ".jpeg": (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY),
    ".jpg": (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY),
    ".png": (),
    ".tif": (),
    ".tiff": (),
}
WRITABLE = tuple(_ENCODINGS)

_CONTRACT = f"uint8 BGR of shape (H, W, 3) with H and W >= {MIN_SIDE}"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
# A byte after 0xFF that ends entropy-coded data: not a stuffed zero, a restart or a fill byte.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOS, _EOI = 0xDA, 0xD9


def to_float(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 BGR (H, W, 3) to float32 RGB (H, W, 3) in [0, 1]."""
    rgb: NDArray[Any] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    return rgb.astype(np.float32) * np.float32(1.0 / 255.0)


def to_uint8(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 RGB (H, W, 3) in [0, 1] to uint8 BGR, rounded to nearest, clipped."""
    scaled = np.clip(image, 0.0, 1.0) * np.float32(255.0) + np.float32(0.5)
    bgr: NDArray[Any] = cv2.cvtColor(scaled.astype(np.uint8), cv2.COLOR_RGB2BGR)
    return bgr.astype(np.uint8, copy=False)


def check_frame(image: object) -> NDArray[np.uint8]:
    """Return the frame, C-contiguous, if it keeps the contract.

    Args:
        image: anything; a frame is a uint8 array (H, W, 3), H and W >= 16.

    Raises:
        ImageError: it does not; the message names the conversion to do.
    """
    if not isinstance(image, np.ndarray):
        mend = "read a file with rirf.images.read_image(path), convert others with np.asarray"
        raise ImageError(f"expected a frame, {_CONTRACT}, got {type(image).__name__}; {mend}")
    got = f"got {image.dtype} of shape {image.shape}"
    if image.size == 0:
        raise ImageError(f"expected a frame, {_CONTRACT}, {got}, which is empty")
    mends = [mend for mend in (_mend_dtype(image), _mend_shape(image.shape)) if mend]
    if mends:
        raise ImageError(
            f"expected a frame, {_CONTRACT}, {got}; convert it: {', then '.join(mends)}"
        )
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"expected a frame, {_CONTRACT}, got one of {width} x {height} pixels, which is too "
            f"small to diagnose; take a larger picture or a larger crop of it"
        )
    return np.ascontiguousarray(image, dtype=np.uint8)


def _mend_dtype(image: NDArray[Any]) -> str:
    if image.dtype == np.uint8:
        return ""
    if image.dtype == np.uint16:
        return "8 bits with cv2.convertScaleAbs(image, alpha=255 / 65535)"
    if image.dtype.kind == "f":
        return "8 bits from [0, 1] with np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)"
    if image.dtype.kind == "b":
        return "8 bits with image.astype(np.uint8) * 255"
    return "8 bits from 0..255 with np.clip(image, 0, 255).astype(np.uint8)"


def _mend_shape(shape: tuple[int, ...]) -> str:
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 1):
        return "grey to colour with cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)"
    if len(shape) == 3 and shape[2] == 3:
        return ""
    if len(shape) == 3 and shape[2] == 4:
        return "without alpha with cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)"
    if len(shape) == 3 and shape[0] == 3:
        return "channels last with image.transpose(1, 2, 0)"
    if len(shape) == 4:
        return "one frame at a time, for example image[0]"
    return "three channels, last"


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a picture file as uint8 BGR (H, W, 3).

    A JPEG's EXIF orientation is applied; other formats are taken as stored, so that an alpha
    channel or 16 bits are seen and refused rather than dropped.

    Raises:
        ImageError: missing, unreadable, empty, truncated or damaged, not a picture, or not a
            frame (see :func:`check_frame`). The message starts with the path.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not data:
        raise ImageError(f"{path}: is an empty file (0 bytes); expected a picture")
    is_jpeg = data.startswith(_JPEG_SIGNATURE)
    if is_jpeg:
        _check_jpeg(path, data)
    elif data.startswith(_PNG_SIGNATURE):
        _check_png(path, data)
    # IMREAD_UNCHANGED ignores the EXIF orientation; the two ANY flags keep depth and grey.
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH if is_jpeg else cv2.IMREAD_UNCHANGED
    image: NDArray[Any] | None
    try:
        with _silent_opencv():
            image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"{path}: cannot be decoded: {error.err or error}") from error
    if image is None:
        known = ", ".join(suffix[1:] for suffix in READABLE)
        raise ImageError(
            f"{path}: cannot be decoded as a picture: damaged, cut short or of another format; "
            f"expected one of {known}"
        )
    try:
        return check_frame(image)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _check_jpeg(path: Path, data: bytes) -> None:
    """Walk the segments: a whole JPEG has an end marker after its last scan.

    Thumbnails inside APP segments have markers of their own, hence the walk.
    """
    position, scans = 2, 0
    while True:
        match = _JPEG_MARKER.search(data, position)
        if match is None:
            raise _truncated(path, "JPEG", "no end-of-image marker")
        marker = data[match.end() - 1]
        position = match.end()
        if marker == _EOI:
            if not scans:
                raise ImageError(f"{path}: this JPEG holds no picture; get the file again")
            return
        if marker == 0x01 or marker == 0xD8:  # TEM and SOI stand alone
            continue
        if position + 2 > len(data):
            raise _truncated(path, "JPEG", "a segment breaks off")
        position += int.from_bytes(data[position : position + 2], "big")
        scans += marker == _SOS


def _check_png(path: Path, data: bytes) -> None:
    """Walk the chunks up to IEND and verify each checksum."""
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        kind = data[position + 4 : position + 8]
        if zlib.crc32(memoryview(data)[position + 4 : end]) != int.from_bytes(
            data[end : end + 4], "big"
        ):
            name = kind.decode("ascii", errors="replace")
            raise ImageError(
                f"{path}: this PNG is damaged (the checksum of its {name} chunk is wrong); "
                "get the file again"
            )
        if kind == b"IEND":
            return
        position = end + 4
    raise _truncated(path, "PNG", "no IEND chunk")


def _truncated(path: Path, kind: str, what: str) -> ImageError:
    return ImageError(f"{path}: this {kind} is cut short ({what}); get the whole file again")


# The log level belongs to the process, so two decodes at once must not restore each other's.
_LOG_LOCK = threading.Lock()
_log_users = 0
_log_level = 0


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """OpenCV's own messages off: the error that is raised says it better."""
    global _log_users, _log_level  # noqa: PLW0603  a process-wide setting needs process-wide state
    logging: Any = cv2.utils.logging
    with _LOG_LOCK:
        if _log_users == 0:
            _log_level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        _log_users += 1
    try:
        yield
    finally:
        with _LOG_LOCK:
            _log_users -= 1
            if _log_users == 0:
                logging.setLogLevel(_log_level)


def encode_image(image: NDArray[Any], suffix: str) -> bytes:
    """Encode a picture in the format of a suffix.

    Args:
        image: uint8 BGR (H, W, 3), or one channel of 8 or 16 bits.
        suffix: one of ``WRITABLE``; JPEG is written with quality 95.

    Raises:
        OutputError: the suffix is unknown, or the format cannot hold the picture.
    """
    parameters = _ENCODINGS.get(suffix.lower())
    if parameters is None:
        raise OutputError(
            f"got the file type {suffix or '(none)'!r}; expected one of {', '.join(WRITABLE)}"
        )
    try:
        with _silent_opencv():
            done, encoded = cv2.imencode(suffix.lower(), image, list(parameters))
    except cv2.error as error:
        raise OutputError(f"cannot encode a {suffix} picture: {error.err or error}") from error
    if not done:
        raise OutputError(
            f"cannot encode {image.dtype} of shape {image.shape} as {suffix}; use .png"
        )
    return bytes(encoded)


def write_image(path: str | os.PathLike[str], image: NDArray[Any]) -> None:
    """Encode by the path's suffix and write with :func:`write_atomic`.

    Args:
        path: where; the suffix is one of ``WRITABLE``.
        image: uint8 BGR (H, W, 3), or one channel of 8 or 16 bits.

    Raises:
        OutputError: unknown suffix (nothing is touched), or the file cannot be written.
    """
    path = Path(path)
    try:
        data = encode_image(image, path.suffix)
    except OutputError as error:
        raise OutputError(f"{path}: {error}") from error
    write_atomic(path, data)


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
