"""Finding pictures, and writing whole files or nothing."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rirf.errors import ImageError, OutputError
from rirf.files import find_images, prepare_folder, write_atomic
from tests.sdk.pictures import files_below, save

pytestmark = pytest.mark.lean


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes: what a full disk does to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_existing_file_is_replaced_and_has_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_longest_name_a_folder_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".png")
    write_atomic(path, b"whole")
    assert path.is_file()


@pytest.mark.parametrize("target", ["missing/file.png", "a-file/file.png", "n" * 300])
def test_unwritable_targets_are_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "a-file").write_bytes(b"x")
    with pytest.raises(OutputError, match="cannot be written"):
        write_atomic(tmp_path / target, b"data")
    assert files_below(tmp_path) == ["a-file"]


def test_a_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.png").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        write_atomic(tmp_path / "out.png", b"data")


def test_a_device_is_never_replaced() -> None:
    with pytest.raises(OutputError, match="not a regular file"):
        write_atomic("/dev/null", b"data")
    assert not Path("/dev/null").is_file()


def test_a_full_disk_leaves_the_old_file_and_no_half(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with at_most(1000), pytest.raises(OutputError, match="cannot be written: File too large"):
        write_atomic(path, b"x" * 5000)
    assert path.read_bytes() == b"old"
    assert files_below(tmp_path) == ["file.bin"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            write_atomic(tmp_path / "file", b"x")
        with pytest.raises(OutputError, match="Permission denied"):
            prepare_folder(tmp_path)
    finally:
        tmp_path.chmod(0o700)


WRITER = """
import sys
from pathlib import Path
from rirf.files import write_atomic
while True:
    for letter in (b"a", b"b"):
        write_atomic(sys.argv[1], letter * 4_000_000)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    for attempt in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
            deadline = time.monotonic() + 60
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.013 * (attempt + 1))
            writer.send_signal(signal.SIGKILL)
        data = path.read_bytes()
        assert len(data) == 4_000_000
        assert len(set(data)) == 1
    assert [name for name in files_below(tmp_path) if not name.startswith(".rirf-")] == ["file.bin"]


def test_prepare_folder_makes_parents_and_leaves_nothing(tmp_path: Path) -> None:
    assert prepare_folder(tmp_path / "a" / "b").is_dir()
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("name", ["a-file", "a-file/below", "n" * 300])
def test_prepare_folder_refuses_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "a-file").write_bytes(b"keep")
    with pytest.raises(OutputError):
        prepare_folder(tmp_path / name)
    assert (tmp_path / "a-file").read_bytes() == b"keep"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system nobody can write")
def test_prepare_folder_refuses_a_file_system_that_cannot_be_written() -> None:
    with pytest.raises(OutputError, match="cannot be used for the results"):
        prepare_folder("/proc/results")
    with pytest.raises(OutputError, match="cannot be used for the results"):
        prepare_folder("/proc/self")


def test_folders_are_searched_in_order_and_keep_their_subfolders(tmp_path: Path) -> None:
    names = ["b.png", "a.JPG", "sub/c.tiff", "sub/deep/d.webp", ".hidden/e.png", "._a.jpg"]
    for name in [*names, "notes.txt", "sub/data.json"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = find_images([tmp_path])
    relative = [str(item.relative) for item in found]
    assert relative == ["a.JPG", "b.png", "sub/c.tiff", "sub/deep/d.webp"]
    assert [item.path for item in found] == [tmp_path / name for name in relative]


def test_a_named_file_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "frame.raw").write_bytes(b"x")
    assert find_images([tmp_path / "frame.raw"])[0].relative == Path("frame.raw")


def test_several_folders_keep_their_own_names(tmp_path: Path) -> None:
    for name in ("day1/f.png", "day2/f.png", "f.png"):
        save(tmp_path / name)
    found = find_images([tmp_path / "day1", tmp_path / "day2", tmp_path / "f.png"])
    assert [str(item.relative) for item in found] == ["day1/f.png", "day2/f.png", "f.png"]


def test_a_picture_given_twice_is_taken_once(tmp_path: Path) -> None:
    path = save(tmp_path / "f.png")
    assert len(find_images([path, path, tmp_path / "." / "f.png"])) == 1


@pytest.mark.parametrize("names", [("a/f.png", "b/f.png"), ("f.png", "f.jpg")])
def test_two_pictures_never_write_the_same_result(tmp_path: Path, names: tuple[str, str]) -> None:
    paths = [save(tmp_path / name) for name in names]
    with pytest.raises(OutputError, match="would both write f") as caught:
        find_images(paths)
    assert all(str(path) in str(caught.value) for path in paths)


def test_the_results_folder_is_not_searched(tmp_path: Path) -> None:
    save(tmp_path / "f.png")
    save(tmp_path / "out" / "f.png")
    assert [str(item.relative) for item in find_images([tmp_path], skip=tmp_path / "out")] == [
        "f.png"
    ]
    inside = find_images([tmp_path / "out"], skip=tmp_path / "out")
    assert [str(item.relative) for item in inside] == ["f.png"]


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x")
    with pytest.raises(ImageError, match="no pictures in this folder"):
        find_images([tmp_path])
    with pytest.raises(ImageError, match="no such file or folder"):
        find_images([tmp_path / "missing"])
    with pytest.raises(ImageError, match="File name too long"):
        find_images([tmp_path / ("n" * 300)])
    with pytest.raises(ImageError, match="got no picture"):
        find_images([])
