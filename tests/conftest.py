"""Fixtures shared by all tests. Torch is imported inside them: the lean tier runs without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rirf.bundle import SHIPPED


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The bundle that ships with the package; a part of it, so its absence is a failure."""
    return SHIPPED


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``reasoner`` and ``restorer`` with small random networks that do something."""
    from rirf_training.networks import save_network
    from tests.networks import tiny_reasoner, tiny_restorer

    folder = tmp_path_factory.mktemp("checkpoints")
    save_network(folder / "reasoner", tiny_reasoner(), {"images": 1})
    save_network(folder / "restorer", tiny_restorer(), {"images": 1})
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoints as a bundle; exporting takes seconds, so once for all tests."""
    from rirf_export.bundling import export_bundle

    out = tmp_path_factory.mktemp("bundles") / "tiny.rirf"
    reasoner, restorer = tiny_checkpoints / "reasoner", tiny_checkpoints / "restorer"
    return export_bundle(reasoner, restorer, out, progress=False).folder
