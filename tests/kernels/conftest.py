"""Builds of the C library for the tests that need one: plain, and with sanitizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernels.building import Build, configure, skip_without

PROGRAMS = Path(__file__).resolve().parent / "programs"


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The shared C library, CPU only, and the test programs' build rules."""
    build = configure(PROGRAMS, tmp_path_factory.mktemp("plain"), "-DRIRF_CUDA=OFF")
    build.make("all")
    return build


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Build]:
    """Builds with a sanitizer, the library a static one; made once each."""
    builds: dict[str, Build] = {}

    def build(sanitizer: str) -> Build:
        if sanitizer not in builds:
            folder = tmp_path_factory.mktemp(sanitizer.replace(",", "-"))
            skip_without(sanitizer, folder)
            builds[sanitizer] = configure(
                PROGRAMS,
                folder / "build",
                "-DRIRF_CUDA=OFF",
                "-DBUILD_SHARED_LIBS=OFF",
                f"-DRIRF_SANITIZE={sanitizer}",
            )
        return builds[sanitizer]

    return build
