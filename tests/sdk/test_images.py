"""The image contract, reading of good and bad files, encoding by suffix."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rirf.errors import ImageError, OutputError
from rirf.images import (
    MIN_SIDE,
    check_frame,
    encode_image,
    read_image,
    to_float,
    to_uint8,
    write_image,
)
from tests.sdk.pictures import files_below, load, photo, save

pytestmark = pytest.mark.lean


def exif(orientation: int) -> bytes:
    """An APP1 segment whose only entry is the orientation."""
    tiff = b"II*\x00\x08\x00\x00\x00" + b"\x01\x00"
    tiff += b"\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([orientation, 0, 0, 0]) + b"\0\0\0\0"
    body = b"Exif\x00\x00" + tiff
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


def test_float_and_back_is_lossless() -> None:
    frame = photo()
    image = to_float(frame)
    assert image.dtype == np.float32
    assert image[0, 0, 0] == pytest.approx(frame[0, 0, 2] / 255)
    np.testing.assert_array_equal(to_uint8(image), frame)


def test_a_frame_passes_unchanged() -> None:
    frame = photo(MIN_SIDE, MIN_SIDE)
    assert check_frame(frame) is frame


def test_a_view_with_negative_strides_becomes_contiguous() -> None:
    view = photo()[:, :, ::-1]
    frame = check_frame(view)
    assert frame.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(frame, view)


@pytest.mark.parametrize(
    ("image", "mend"),
    [
        (photo()[..., 0], "cv2.COLOR_GRAY2BGR"),
        (photo()[..., :1], "cv2.COLOR_GRAY2BGR"),
        (np.dstack([photo(), photo()[..., 0]]), "cv2.COLOR_BGRA2BGR"),
        (photo().astype(np.uint16) * 257, "cv2.convertScaleAbs(image, alpha=255 / 65535)"),
        (photo().astype(np.float32) / 255, "image * 255 + 0.5"),
        (photo().astype(np.int64), "np.clip(image, 0, 255).astype(np.uint8)"),
        (photo() > 9, "image.astype(np.uint8) * 255"),
        (photo().transpose(2, 0, 1), "image.transpose(1, 2, 0)"),
        (photo()[None], "image[0]"),
        (np.zeros((0, 40, 3), np.uint8), "empty"),
        (photo(MIN_SIDE - 1, 80), f"80 x {MIN_SIDE - 1} pixels"),
        (photo(80, MIN_SIDE - 1), f"{MIN_SIDE - 1} x 80 pixels"),
        (np.zeros((1, 1, 3), np.uint8), "1 x 1 pixels"),
        ("photo.png", "read_image"),
        ([[1, 2, 3]], "np.asarray"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_frame_is_refused_with_the_conversion(image: Any, mend: str) -> None:
    with pytest.raises(ImageError) as caught:
        check_frame(image)
    assert mend in str(caught.value)
    assert "uint8 BGR of shape (H, W, 3)" in str(caught.value)


def test_the_named_conversions_give_frames() -> None:
    frame = photo()
    grey = cv2.cvtColor(frame[..., 0], cv2.COLOR_GRAY2BGR)
    deep = cv2.convertScaleAbs(frame.astype(np.uint16) * 257, alpha=255 / 65535)
    real = np.clip(frame.astype(np.float32) / 255 * 255 + 0.5, 0, 255).astype(np.uint8)
    check_frame(grey)
    np.testing.assert_array_equal(check_frame(deep), frame)
    np.testing.assert_array_equal(check_frame(real), frame)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".jpg", ".webp"])
def test_reads_what_was_written(tmp_path: Path, suffix: str) -> None:
    frame = cv2.GaussianBlur(photo(), (0, 0), 2)
    read = read_image(save(tmp_path / f"picture{suffix}", np.asarray(frame)))
    assert read.shape == frame.shape
    lossy = suffix in (".jpg", ".webp")
    assert np.abs(read.astype(int) - frame).mean() <= (4 if lossy else 0)


def test_reads_a_path_outside_ascii(tmp_path: Path) -> None:
    path = save(tmp_path / "Straße im Nebel – 雾.png")
    np.testing.assert_array_equal(read_image(str(path)), photo())


def test_a_jpegs_orientation_is_applied(tmp_path: Path) -> None:
    frame = photo(48, 96)
    plain = save(tmp_path / "plain.jpg", frame).read_bytes()
    (tmp_path / "turned.jpg").write_bytes(plain[:2] + exif(6) + plain[2:])
    turned = read_image(tmp_path / "turned.jpg")
    np.testing.assert_array_equal(
        turned, cv2.rotate(read_image(tmp_path / "plain.jpg"), cv2.ROTATE_90_CLOCKWISE)
    )


def test_a_thumbnails_end_marker_does_not_hide_a_truncation(tmp_path: Path) -> None:
    data = save(tmp_path / "whole.jpg").read_bytes()
    thumbnail = b"\xff\xe2" + (len(data) + 2).to_bytes(2, "big") + data
    whole = data[:2] + thumbnail + data[2:]
    (tmp_path / "whole.jpg").write_bytes(whole)
    np.testing.assert_array_equal(read_image(tmp_path / "whole.jpg").shape, photo().shape)
    (tmp_path / "cut.jpg").write_bytes(whole[:-40])
    with pytest.raises(ImageError, match="cut short"):
        read_image(tmp_path / "cut.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp", ".ppm"])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.9])
def test_truncated_files_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, share: float
) -> None:
    path = save(tmp_path / f"cut{suffix}", photo(128, 128))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    if suffix in (".jpg", ".png"):
        assert "cut short" in str(caught.value)
        assert capfd.readouterr().err == ""


def test_every_truncation_of_a_jpeg_and_a_png_is_noticed(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png"):
        path = save(tmp_path / f"picture{suffix}", photo(24, 24))
        data = path.read_bytes()
        for length in range(1, len(data), 7):
            path.write_bytes(data[:length])
            with pytest.raises(ImageError):
                read_image(path)


def test_a_damaged_png_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "damaged.png")
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ImageError, match="checksum of its IDAT chunk"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"\xff\xd8\xff", "cut short"),
        (b"\xff\xd8\xff\xd9", "no picture"),
        (b"\x89PNG\r\n\x1a\n", "cut short"),
        (b"just some words, not a picture at all", "cannot be decoded"),
        (os.urandom(4096).replace(b"\xff\xd8\xff", b"abc"), "cannot be decoded"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "picture", "mend"),
    [
        ("grey.png", photo()[..., 0], "COLOR_GRAY2BGR"),
        ("grey.jpg", photo()[..., 0], "COLOR_GRAY2BGR"),
        ("alpha.png", np.dstack([photo(), photo()[..., 0]]), "COLOR_BGRA2BGR"),
        ("deep.png", photo().astype(np.uint16) * 257, "convertScaleAbs"),
        ("dot.png", np.zeros((1, 1, 3), np.uint8), "1 x 1 pixels"),
        ("float.tif", photo().astype(np.float32) / 255, "image * 255"),
    ],
)
def test_pictures_that_are_no_frames_are_refused(
    tmp_path: Path, name: str, picture: Any, mend: str
) -> None:
    path = save(tmp_path / name, picture)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert mend in str(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="directory"):
        read_image(tmp_path)


def test_reading_leaves_opencvs_log_level_alone(tmp_path: Path) -> None:
    logging: Any = cv2.utils.logging
    before = logging.getLogLevel()
    (tmp_path / "bad.tif").write_bytes(b"II*\x00 nothing behind it")
    with pytest.raises(ImageError):
        read_image(tmp_path / "bad.tif")
    assert logging.getLogLevel() == before


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tiff"])
def test_writes_losslessly_by_suffix(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"out{suffix}", photo())
    np.testing.assert_array_equal(load(tmp_path / f"out{suffix}"), photo())
    assert files_below(tmp_path) == [f"out{suffix}"]


def test_writes_sixteen_bits(tmp_path: Path) -> None:
    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    write_image(tmp_path / "t.png", levels)
    np.testing.assert_array_equal(load(tmp_path / "t.png"), levels)


@pytest.mark.parametrize("name", ["out.gif", "out", "out.txt"])
def test_unknown_suffix_is_refused_before_anything_is_touched(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"expected one of \.bmp"):
        write_image(tmp_path / name, photo())
    assert files_below(tmp_path) == []


def test_what_a_format_cannot_hold_is_refused() -> None:
    with pytest.raises(OutputError):
        encode_image(np.zeros((20, 20, 5), np.uint8), ".png")
