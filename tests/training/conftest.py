"""A small data root and its rendered draws, made once; one thread, so that sums come out equal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rirf_training.data import DrawSet, FreshDraws

# Puts one photograph and one street of the data root into the validation share.
SHARE = 0.3


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs and four labelled streets, in a split called ``test``."""
    from tests.sdk.evaluation.synthetic import data_root

    return data_root(tmp_path_factory.mktemp("pictures"), photographs=4, streets=4)


@pytest.fixture(scope="session")
def draws(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> DrawSet:
    """Four draws of each picture."""
    from rirf_training.data import find_clean, render

    root = tmp_path_factory.mktemp("draws")
    return render(root, find_clean(pictures, ("test",)), 4, workers=1, progress=False)


@pytest.fixture(scope="session")
def fresh(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> FreshDraws:
    """Fresh draws of the six pictures outside the validation share."""
    from rirf_training.data import FreshDraws, find_clean
    from rirf_training.data.catalog import held_out

    images = [clean for clean in find_clean(pictures, ("test",)) if not held_out(clean.name, SHARE)]
    return FreshDraws(tmp_path_factory.mktemp("decoded"), images, workers=2, progress=False)
