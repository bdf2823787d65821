"""The C library: installed, used by the example, free of allocations, clean under sanitizers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.building import ROOT, Build, configure, run

EXAMPLE = ROOT / "kernels" / "examples"


@pytest.fixture(scope="module")
def prefix(plain: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library is installed, with all that find_package needs."""
    folder = tmp_path_factory.mktemp("prefix")
    plain.install(folder)
    return folder


@pytest.fixture(scope="module")
def example(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example program, built against the installed library alone."""
    folder = tmp_path_factory.mktemp("example")
    build = configure(EXAMPLE, folder, f"-DCMAKE_PREFIX_PATH={prefix}")
    build.make("degrade")
    return folder / "degrade"


def write_ppm(path: Path, picture: NDArray[np.uint8]) -> None:
    height, width, _ = picture.shape
    header = f"P6\n# a comment\n{width}\t{height}\n255\n"
    path.write_bytes(header.encode("ascii") + picture.tobytes())


def read_ppm(path: Path) -> NDArray[np.uint8]:
    magic, size, most, values = path.read_bytes().split(b"\n", 3)
    assert (magic, most) == (b"P6", b"255")
    width, height = map(int, size.split())
    return np.frombuffer(values, dtype=np.uint8).reshape(height, width, 3)


def numbers(text: str) -> dict[str, list[float]]:
    """The numbers of each line that the example prints, by the line's first word."""
    lines = (line.split(maxsplit=1) for line in text.splitlines())
    return {name: [float(n) for n in re.findall(r"\d+\.\d+", rest)] for name, rest in lines}


@pytest.mark.parametrize("seed", [0, 3, 2**64 - 1])
def test_the_example_gives_what_python_gives(example: Path, tmp_path: Path, seed: int) -> None:
    native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")
    picture = np.random.default_rng(1).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    write_ppm(tmp_path / "in.ppm", picture)
    done = run(example, str(seed), tmp_path / "out.ppm", tmp_path / "in.ppm")
    degraded, truths = native.degrade(
        picture.astype(np.float32) / np.float32(255), native.sample([seed])
    )
    expected = (degraded * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    np.testing.assert_array_equal(read_ppm(tmp_path / "out.ppm"), expected)
    truth = truths[0]
    printed = numbers(done.stdout)
    parts = {
        "fog": [truth["transmission_mean"]],
        "shake": [truth["direction_deg"], truth["blur_length_px"]],
        "rain": [truth["coverage"]],
        "noise": [truth["variance"]],
    }
    for index, (name, rest) in enumerate(parts.items()):
        assert printed[name] == pytest.approx([truth["severity"][index], *rest], abs=1e-4)


def test_the_example_makes_its_own_picture(example: Path, tmp_path: Path) -> None:
    run(example, "5", tmp_path / "out.ppm")
    made = read_ppm(tmp_path / "out.ppm")
    assert made.shape == (240, 320, 3)
    assert made.std() > 5.0


@pytest.mark.parametrize("content", [None, b"P5\n3 3\n255\n123456789", b"P6\n3 3\n255\nshort", b""])
def test_the_example_refuses_what_is_no_picture(
    example: Path, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "in.ppm").write_bytes(content)
    arguments = [str(example), "1", str(tmp_path / "out.ppm"), str(tmp_path / "in.ppm")]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "in.ppm: " in done.stderr
    assert not (tmp_path / "out.ppm").exists()


def test_the_package_has_the_python_packages_version(prefix: Path) -> None:
    native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")
    (found,) = prefix.rglob("rirf_kernels-config-version.cmake")
    versions = re.findall(r'PACKAGE_VERSION "([\d.]+)"', found.read_text(encoding="utf-8"))
    assert versions[0] == native.__version__
    header = (prefix / "include" / "rirf_kernels.h").read_text(encoding="utf-8")
    assert f"#define RIRF_KERNELS_ABI {native.build_info()['abi']}\n" in header


def test_no_allocation_in_the_steady_state(plain: Build) -> None:
    plain.make("allocations")
    lines = run(plain.folder / "allocations").stdout.splitlines()
    counts = {name: [int(n) for n in rest] for name, *rest in map(str.split, lines)}
    _, total = counts.pop("threads")
    assert len(counts) >= 15
    assert {name: second for name, (_, second, _) in counts.items() if second} == {}
    # The counter sees what there is to see: scratch memory, again after it was given back.
    first, _, released = counts["degrade"]
    assert first > 0
    assert released > 0
    # 300 calls on three threads: each thread's scratch memory once, no more.
    assert 0 < total <= 80


ADDRESS = "address,undefined"
HALT = {
    "ASAN_OPTIONS": "detect_leaks=1",
    "TSAN_OPTIONS": "halt_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


@pytest.mark.slow
@pytest.mark.parametrize(("sanitizer", "rounds"), [(ADDRESS, 60), ("thread", 25)])
def test_sanitizers_are_content_under_stress(
    sanitized: Callable[[str], Build], sanitizer: str, rounds: int
) -> None:
    """Random sizes, strides, recipes and threads, three callers at once."""
    build = sanitized(sanitizer)
    build.make("stress")
    done = run(build.folder / "stress", str(rounds), **HALT)
    assert done.stdout.startswith(f"{rounds} rounds, 0 failures")
    assert "Sanitizer" not in done.stderr
    assert "runtime error" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("level", ["baseline", "x86-64-v3"])
def test_other_instruction_sets_are_clean_too(
    sanitized: Callable[[str], Build], level: str
) -> None:
    build = sanitized(ADDRESS)
    build.make("stress")
    done = run(build.folder / "stress", "15", "7", RIRF_KERNELS_ISA=level, **HALT)
    assert done.stdout.startswith("15 rounds, 0 failures")


@pytest.mark.slow
def test_fuzzed_arguments_give_a_status_and_never_a_crash(
    sanitized: Callable[[str], Build],
) -> None:
    build = sanitized(ADDRESS)
    build.make("fuzz")
    done = run(build.folder / "fuzz", "6000", **HALT)
    counts = re.match(r"(\d+) cases, (\d+) of them bad, (\d+) failures", done.stdout)
    assert counts is not None
    cases, bad, failures = map(int, counts.groups())
    assert (cases, failures) == (6000, 0)
    assert 2000 < bad < 5000  # good calls were tried as well as bad ones
    assert "runtime error" not in done.stderr
