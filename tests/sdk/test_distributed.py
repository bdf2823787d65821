"""``--ray`` on a real cluster of two nodes, with workers that are killed in the middle."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from rirf import distributed
from rirf.cli import main
from rirf.distributed import JOURNAL, Job, run_on_ray
from rirf.errors import ClusterError, RirfError
from rirf.files import Found, find_images
from tests.sdk.pictures import files_below, photo, rirf, save

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks for its workers in /proc"
)

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ray_is_there() -> None:
    pytest.importorskip("ray.data", reason="needs the extra ray: pip install 'rirf[ray]'")


@pytest.fixture(scope="module")
def cluster(ray_is_there: None) -> Iterator[str]:
    """The address of two nodes of one CPU each; workers can import this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(_ROOT), prepend=os.pathsep)
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        running = Cluster(
            initialize_head=True, head_node_args=node | {"ray_client_server_port": port}
        )
        try:
            running.add_node(**node)
            patch.setenv("RIRF_TEST_CLIENT", f"ray://127.0.0.1:{port}")
            yield running.address
        finally:
            running.shutdown()


def worker_pids() -> set[int]:
    """Ray's workers that do pictures."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            title = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if title.startswith(b"ray::MapWorker"):
            found.add(int(entry.name))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_below(folder) if name != JOURNAL}


def entries(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()[1:]]


def spoken(capsys: pytest.CaptureFixture[str], folder: str) -> tuple[list[str], list[str]]:
    """What a run prints, without its order, its folder and its times, and without Ray's logs."""
    captured = capsys.readouterr()
    lines = re.sub(r"\d+ ms", "", captured.out).replace(f"{folder}/", "").replace(folder, "")
    errors = [line for line in captured.err.splitlines() if line.startswith("rirf:")]
    return sorted(lines.splitlines()), sorted(errors)


def test_restore_is_the_same_and_a_second_run_does_what_is_missing(
    cluster: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        save(tmp_path / f"in/{number}.png", photo(48 + number, 64, number))
    save(tmp_path / "in/deep/Nebel über Köln.png", photo(50, 70, 9))
    (tmp_path / "in/empty.png").write_bytes(b"")
    (tmp_path / "in/words.png").write_bytes(b"these are words")
    command = ["restore", "in", "--check", "--steps", "coarse", "-o"]
    assert main([*command, "here"]) == 1
    expected = spoken(capsys, "here")
    assert main([*command, "there", "--ray", cluster]) == 1
    assert spoken(capsys, "there") == expected
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert len(contents(tmp_path / "there")) == 3 * 6

    # One result is lost, one picture has changed; both that failed are tried again.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "there").rglob("*.png")}
    (tmp_path / "there/1.diagnosis.json").unlink()
    save(tmp_path / "in/2.png", photo(40, 64, 77))
    save(tmp_path / "in/empty.png", photo(44, 44, 5))
    assert main([*command, "there", "--ray", cluster]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "4 of 8 pictures were done before" in lines
    assert lines[-1] == "restored 7 of 8 pictures into there; 1 failed"
    again = {path.name for path, then in before.items() if path.stat().st_mtime_ns != then}
    assert again == {"1.png", "2.png"}
    shutil.rmtree("here")
    assert main([*command, "here"]) == 1
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_killed_worker_costs_nothing(
    cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(24):
        save(tmp_path / f"in/{number:02}.png", photo(400, 400, number))
    (tmp_path / "in/07.png").write_bytes(b"")
    out = tmp_path / "there"
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 100
        while len(list(out.glob("*.json"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        for pid in sorted(worker_pids())[:1]:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    command = ["degrade", str(tmp_path / "in"), "--seed", "3", "--save-stages", "-o"]
    assert main([*command, str(out), "--ray", cluster]) == 1
    killer.join()
    assert killed
    assert len(list(out.glob("*.degradation.json"))) == 23
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == f"degraded 23 of 24 pictures into {out}; 1 failed"
    assert captured.err.count("07.png: is an empty file") == 1
    # Each picture once: in the results or among the failures.
    assert captured.out.count(" -> ") == 23
    noted = Counter(str(entry["picture"]) for entry in entries(out))
    assert noted == Counter(f"{number:02}.png" for number in range(24))
    assert [entry["picture"] for entry in entries(out) if "error" in entry] == ["07.png"]
    assert main([*command, str(tmp_path / "here")]) == 1
    assert contents(out) == contents(tmp_path / "here")


def shown(item: Found) -> str:
    return "did " + os.fsencode(item.path.stem).decode(errors="replace")


@contextmanager
def deadly(folder: Path, threads: int | None) -> Iterator[Callable[[Found], str]]:
    """Work that one picture kills, one breaks and one warns of."""
    assert threads == 1

    def work(item: Found) -> str:
        if item.path.stem == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if item.path.stem == "broken":
            raise ZeroDivisionError("by design")
        if item.path.stem.startswith("slow"):
            logging.getLogger("rirf.engine").warning("a slower engine")
        (folder / item.relative.name).write_bytes(b"done")
        return shown(item)

    yield work


def job(folder: Path, inputs: Path, **changes: object) -> Job:
    opened: Callable[[int | None], AbstractContextManager[Callable[[Found], str]]] = partial(
        deadly, folder
    )
    return Job(
        label="test",
        folder=folder,
        opened=opened,
        complete=lambda relative: (folder / relative).is_file(),
        settings=changes,
        inputs=[inputs],
    )


def test_a_picture_that_kills_its_worker_is_reported_and_takes_no_other_along(
    cluster: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(distributed, "_RETRIES", 0)  # so that it takes two deaths, not six
    for name in (
        "a",
        os.fsdecode(b"no-\xff-text"),
        "broken",
        "c",
        "deadly",
        *(f"slow{n}" for n in range(15)),
    ):
        save(tmp_path / f"in/{name}.png")  # one name is no text
    out = tmp_path / "out"
    out.mkdir()
    found = find_images([tmp_path / "in"])
    assert run_on_ray(cluster, found, job(out, tmp_path / "in")) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("rirf:")]
    broken = f"rirf: {tmp_path / 'in/broken.png'}: ZeroDivisionError: by design; please report"
    assert errors[0].startswith(broken)
    assert errors[1].startswith(f"rirf: {tmp_path / 'in/deadly.png'}: its worker died each time")
    assert len(errors) == 2
    # Ray, too, says on standard output that a worker died.
    lines = sorted(line for line in captured.out.splitlines() if line.startswith("did "))
    failed = {"broken", "deadly"}
    assert lines == sorted(shown(item) for item in found if item.path.stem not in failed)
    assert len(list(out.glob("*.png"))) == 18
    assert [record.getMessage() for record in caplog.records].count("a slower engine") == 1


def test_through_ray_client(cluster: str, tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"in/{number}.png")
    command = ["degrade", "in", "--seed", "1", "-o"]
    done = rirf(*command, "there", "--ray", os.environ["RIRF_TEST_CLIENT"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "degraded 3 of 3 pictures into there"
    assert main(["degrade", str(tmp_path / "in"), "--seed", "1", "-o", str(tmp_path / "here")]) == 0
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_worker_that_does_not_see_the_files_is_an_error_before_the_job(
    cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "in/a.png")
    # A path that leads somewhere in this process alone.
    mine = Path(f"/proc/self/task/{os.getpid()}/root") / tmp_path.relative_to("/")
    out = ["-o", str(tmp_path / "out")]
    assert main(["degrade", str(mine / "in"), *out, "--seed", "1", "--ray", cluster]) == 1
    error = capsys.readouterr().err
    assert f"does not see {mine / 'in'}; workers need the same storage" in error
    seen = ["degrade", str(tmp_path / "in"), "-o", str(mine / "out"), "--seed", "1"]
    assert main([*seen, "--ray", cluster]) == 1
    assert f"does not see the output folder {mine / 'out'}" in capsys.readouterr().err
    assert files_below(tmp_path / "out") == [JOURNAL]


def test_too_many_threads_and_other_versions_are_errors(
    cluster: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(tmp_path / "in/a.png")
    command = ["restore", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--ray", cluster]
    assert main([*command, "--threads", "7"]) == 1
    assert "room for a worker of 7 CPUs; expected one (they have 1, 1 CPUs)" in (
        capsys.readouterr().err
    )
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "__version__", "99.1")
        assert main(command) == 1
        assert ", expected 99.1 as on the machine of the command" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("ray.__version__", "1.0.0")
        assert main(command) == 1
        assert "Version mismatch" in capsys.readouterr().err


@pytest.mark.usefixtures("ray_is_there")
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("somewhere", "expected auto, local, HOST:PORT or ray://HOST:PORT"),
        ("http://a:1", "expected auto, local, HOST:PORT or ray://HOST:PORT"),
        ("host:port", "expected auto, local, HOST:PORT or ray://HOST:PORT"),
        ("127.0.0.1:1", "the cluster does not answer"),
    ],
)
def test_a_cluster_that_is_not_there(tmp_path: Path, address: str, message: str) -> None:
    save(tmp_path / "in/a.png")
    with pytest.raises(ClusterError, match=re.escape(message)):
        run_on_ray(address, find_images([tmp_path / "in"]), job(tmp_path, tmp_path / "in"))


def test_without_ray_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    source = save(tmp_path / "a.png")
    assert main(["restore", str(source), "-o", str(tmp_path / "out"), "--ray", "auto"]) == 2
    assert "pip install 'rirf[ray]'" in capsys.readouterr().err


def test_ray_is_imported_only_when_asked_for(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png")
    script = (
        "import sys, rirf.distributed; from rirf.cli import main\n"
        f"assert main(['restore', {str(source)!r}, '-o', {str(tmp_path / 'out')!r}]) == 0\n"
        "assert not {'ray', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.usefixtures("ray_is_there")
def test_the_journal_is_another_jobs_when_a_setting_differs(tmp_path: Path) -> None:
    source = save(tmp_path / "in/a.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"done")
    found = find_images([tmp_path / "in"])
    state = source.stat()
    same = job(out, tmp_path / "in", steps="1")
    with distributed._Journal.open(same) as journal:
        assert not journal.has(found[0])
    with (out / JOURNAL).open("a") as file:
        seen = [str(source), state.st_size, state.st_mtime_ns]
        file.write(json.dumps({"picture": "a.png", "source": seen}) + '\n{"picture": "b')
    # Nothing is left to do, so no cluster is asked; the torn line is dropped.
    assert run_on_ray("127.0.0.1:1", found, same) == 0
    assert [entry["picture"] for entry in entries(out)] == ["a.png"]
    with pytest.raises(RirfError, match="does not answer"):
        run_on_ray("127.0.0.1:1", found, job(out, tmp_path / "in", steps="2"))
    assert entries(out) == []
