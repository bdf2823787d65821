"""Frames at the SDK's border: the image contract, reading and writing picture files.

Outside, a frame is uint8 BGR (H, W, 3) with H and W >= 16; inside, float32 RGB in [0, 1]. This is
the only module that knows both. Knows nothing of diagnoses or of what is done to a frame.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf.errors import ImageError, OutputError
from rirf.files import READABLE, write_atomic

__all__ = [
    "MIN_SIDE",
    "WRITABLE",
    "check_frame",
    "encode_image",
    "read_image",
    "to_float",
    "to_uint8",
    "write_image",
]

MIN_SIDE = 16
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
    """Encode by the path's suffix and write with :func:`rirf.files.write_atomic`.

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
