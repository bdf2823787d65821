"""Building C and C++ in a test: CMake, compilers and sanitizers, or the reason why not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tool(name: str) -> str | None:
    """A program of this environment (pip's cmake and ninja lie there), else of the system."""
    here = Path(sysconfig.get_path("scripts")) / name
    return str(here) if here.exists() else shutil.which(name)


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program; a failure shows what it said."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    if done.returncode != 0:
        said = f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
        pytest.fail(f"{arguments} gave {done.returncode}:\n{said}", pytrace=False)
    return done


@dataclass(frozen=True)
class Build:
    """A folder in which CMake has configured a project."""

    folder: Path

    def make(self, *targets: str) -> None:
        chosen = [word for target in targets for word in ("--target", target)]
        run(cmake(), "--build", self.folder, "--parallel", "2", *chosen)

    def install(self, prefix: Path) -> None:
        run(cmake(), "--install", self.folder, "--prefix", prefix)


def cmake() -> str:
    found = tool("cmake")
    if found is None:
        pytest.skip("needs CMake: pip install cmake")
    return found


def configure(source: Path, folder: Path, *options: str) -> Build:
    """Configure a project, or skip where there is no compiler."""
    if tool("c++") is None and tool("g++") is None:
        pytest.skip("needs a C++ compiler")
    ninja = tool("ninja")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    run(cmake(), "-S", source, "-B", folder, *generator, *options)
    return Build(folder)


def skip_without(sanitizer: str, folder: Path) -> None:
    """Skip where a program with this sanitizer cannot be built or does not start."""
    compiler = tool("c++") or tool("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    source, program = folder / "empty.cpp", folder / "empty"
    source.write_text("int main() { return 0; }\n", encoding="utf-8")
    flags = [f"-fsanitize={sanitizer}", str(source), "-o", str(program)]
    built = subprocess.run([compiler, *flags], check=False, capture_output=True, text=True)
    if built.returncode != 0:
        pytest.skip(f"the compiler has no runtime for -fsanitize={sanitizer}")
    started = subprocess.run([program], check=False, capture_output=True, text=True)
    if started.returncode != 0:
        pytest.skip(f"-fsanitize={sanitizer} does not run here: {started.stderr.strip()[:200]}")
