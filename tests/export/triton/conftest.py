"""The shipped bundle as a repository, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from rirf.bundle import Bundle
from rirf_export.triton import write_repository


@pytest.fixture(scope="session")
def repository(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(Bundle.open(shipped), tmp_path_factory.mktemp("triton") / "models")
