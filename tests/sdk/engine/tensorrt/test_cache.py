"""Engines on disk: found again, refused or rebuilt with the reason, never half-written."""

from __future__ import annotations

import json
import logging
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rirf.engine.tensorrt import (
    CachedEngine,
    EngineKey,
    Gpu,
    Library,
    Profile,
    cache,
    load_or_build,
)
from rirf.errors import EngineError, OutputError
from tests.sdk.engine.tensorrt import graphs

PROFILES = {"x": Profile((1, 64, 16, 16), (1, 64, 32, 32), (1, 64, 64, 64))}
WIDER = {"x": Profile((1, 64, 16, 16), (1, 64, 32, 32), (1, 64, 128, 128))}
ORIN = Gpu("Orin", "sm87", "12.6")
Load = Callable[..., CachedEngine]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return graphs.fp32(tmp_path / "tiny.onnx")


@pytest.fixture
def load(rtx: Library, tiny: Path) -> Load:
    def call(library: Library = rtx, **options: Any) -> CachedEngine:
        profiles = options.pop("profiles", PROFILES)
        return load_or_build(tiny, library, profiles, **{"precision": "fp32", **options})

    return call


def refuse(*step: object) -> None:
    raise AssertionError("a build was started")


def describing(engine: CachedEngine) -> Path:
    return engine.path.with_name(engine.path.name + ".json")


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes: what a full disk does to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_built_once_then_read(load: Load, tiny: Path, rtx: Library) -> None:
    first = load()
    again = load(rebuild=False, progress=refuse)
    assert (first.built, again.built) == (True, False)
    assert again.plan == first.plan == first.path.read_bytes()
    assert first.path.parent == tiny.parent / "cache"
    assert first.path.name.startswith(f"tiny-fp32-tensorrt-rtx-{rtx.version}-sm80+-")
    key = json.loads(describing(first).read_text())["key"]
    assert (key["cuda"], key["gpu"], key["architecture"]) == ("portable", "portable", "sm80+")
    assert key["profiles"]["x"][2] == [1, 64, 64, 64]


def test_each_graph_precision_and_shape_has_an_engine_of_its_own(load: Load, tiny: Path) -> None:
    first = load()
    others = [load(profiles=WIDER), load(precision="fp16"), load(gpu=Gpu("T4", "sm75", "12.6"))]
    graphs.fp16(tiny)
    others.append(load())
    assert all(other.built for other in others)
    assert len({first.path, *(other.path for other in others)}) == 5
    assert load(gpu=ORIN).path == others[-1].path  # portable: any other GPU's name does not count


def test_without_a_build_allowed_nothing_is_built(load: Load, tiny: Path) -> None:
    with pytest.raises(EngineError, match=r"no engine of this graph.*rebuild=True"):
        load(rebuild=False, progress=refuse)
    assert not (tiny.parent / "cache").exists()


def test_another_version_is_found_before_loading(
    load: Load, rtx: Library, caplog: pytest.LogCaptureFixture
) -> None:
    old = load(replace(rtx, version="1.0.0.21"))
    with pytest.raises(EngineError) as caught:
        load(rebuild=False)
    assert f"library '1.0.0.21' (expected '{rtx.version}')" in str(caught.value)
    assert f"built by TensorRT-RTX {rtx.version}" in str(caught.value)
    with caplog.at_level(logging.WARNING, "rirf.engine.tensorrt"):
        new = load()
    assert "library '1.0.0.21'" in caplog.text
    assert new.built
    assert old.path.read_bytes() == old.plan  # another device of a shared folder may use it


def test_another_gpu_is_found_before_loading(load: Load, as_tensorrt: Library) -> None:
    here = load(as_tensorrt, gpu=ORIN)
    assert f"tiny-fp32-tensorrt-{as_tensorrt.version}-sm87-" in here.path.name
    for gpu, reason in (
        (Gpu("Orin", "sm87", "13.0"), r"cuda '12\.6' \(expected '13\.0'\)"),
        (Gpu("Orin Nano", "sm87", "12.6"), r"gpu 'Orin' \(expected 'Orin Nano'\)"),
        (Gpu("Thor", "sm110", "12.6"), r"architecture 'sm87' \(expected 'sm110'\), gpu"),
    ):
        with pytest.raises(EngineError, match=reason):
            load(as_tensorrt, gpu=gpu, rebuild=False, progress=refuse)
    with pytest.raises(EngineError, match=r"got no GPU; TensorRT 10\.3\.0 builds for the GPU it"):
        load(as_tensorrt)


def test_tensorrt_keeps_its_timing_cache_there(load: Load, as_tensorrt: Library) -> None:
    engine = load(as_tensorrt, gpu=ORIN)
    assert (engine.path.parent / "timing-10.3.0-sm87.bin").stat().st_size > 0


def edit(engine: CachedEngine, **changes: str) -> None:
    file = describing(engine)
    description = json.loads(file.read_text())
    description["key"] |= changes
    file.write_text(json.dumps(description))


DAMAGES: dict[str, tuple[Callable[[CachedEngine], Any], str]] = {
    "torn": (
        lambda engine: engine.path.write_bytes(engine.plan[:-1]),
        r"torn: \d+ bytes, expected \d+",
    ),
    "altered": (
        lambda engine: engine.path.write_bytes(engine.plan[:-1] + bytes([engine.plan[-1] ^ 1])),
        r"altered: SHA-256 .*, expected",
    ),
    "gone": (lambda engine: engine.path.unlink(), "the engine is not"),
    "a folder": (
        lambda engine: (engine.path.unlink(), engine.path.mkdir()),
        "cannot be read .*directory",
    ),
    "of another version": (
        lambda engine: edit(engine, library="0.9"),
        r"its description is of another engine: library '0\.9'",
    ),
    "described by half": (
        lambda engine: describing(engine).write_text(describing(engine).read_text()[:99]),
        "is no description of an engine",
    ),
    "not described": (lambda engine: describing(engine).unlink(), "no engine of this graph"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_before_loading_and_mended(load: Load, damage: str) -> None:
    engine = load()
    harm, reason = DAMAGES[damage]
    harm(engine)
    with pytest.raises(EngineError, match=reason):
        load(rebuild=False, progress=refuse)
    if damage == "a folder":
        with pytest.raises(OutputError, match="it is a folder"):
            load()
        engine.path.rmdir()
    assert load().built
    assert not load().built


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system nobody can write")
def test_a_read_only_cache_is_refused_before_the_build(load: Load) -> None:
    with pytest.raises(OutputError, match=r"cannot be used.*choose a folder"):
        load(cache=Path("/proc/self/engines"), progress=refuse)


def test_a_read_only_cache_can_be_read(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    built = load()

    def forbidden(*_: object) -> None:
        raise AssertionError("something was written")

    # Root may write everywhere, so this watches the writes.
    for name in ("prepare_folder", "write_atomic", "_alone"):
        monkeypatch.setattr(cache, name, forbidden)
    assert load().plan == built.plan


def test_a_full_disk_leaves_nothing_half_written(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    with at_most(1000), pytest.raises(OutputError, match="cannot be written: File too large"):
        load(cache=folder)
    assert [file.stat().st_size for file in folder.iterdir()] == [0]  # the lock
    assert load(cache=folder).built


def test_an_engine_that_cannot_be_described_is_not_left(load: Load) -> None:
    engine = load()
    engine.path.unlink()
    describing(engine).unlink()
    describing(engine).mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        load()
    assert not engine.path.exists()


WANT_ONE = """
import logging, sys
from pathlib import Path
from rirf.engine.tensorrt import Profile, find_library, load_or_build
logging.basicConfig(level=logging.WARNING, format="%(message)s")
shapes = Profile((1, 64, 16, 16), (1, 64, 32, 32), (1, 64, 64, 64))
found = load_or_build(
    Path(sys.argv[1]), find_library("tensorrt-rtx"), {"x": shapes}, precision="fp32"
)
print(found.built)
"""


def test_of_two_processes_one_builds_and_the_other_waits(
    load: Load, rtx: Library, tiny: Path
) -> None:
    key = EngineKey.of(tiny, rtx, PROFILES, "fp32", None)
    folder = tiny.parent / "cache"
    folder.mkdir()
    with cache._alone(folder / key.file_name):
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WANT_ONE, str(tiny)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for worker in workers:
            assert worker.stderr is not None
            assert "another process is building it: waiting" in worker.stderr.readline()
        assert not list(folder.glob("*.engine"))
    built = []
    for worker in workers:
        out, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
        built.append(out.strip())
    assert sorted(built) == ["False", "True"]
    assert not load(rebuild=False).built


def test_a_killed_builder_holds_nobody_up(load: Load, tiny: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WANT_ONE, str(tiny)], stderr=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stderr is not None
        assert "building it" in worker.stderr.readline()
        worker.kill()
    started = time.monotonic()
    load()
    assert time.monotonic() - started < 60
    names = [file.name for file in (tiny.parent / "cache").iterdir()]
    assert len([name for name in names if name.endswith(".engine")]) == 1
