"""One run of the shipped bundle over a small synthetic data root, shared by the tests here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import rirf
from rirf.evaluation.protocol import Protocol, load_protocol
from rirf.evaluation.runner import Evaluation, evaluate
from rirf.pipeline import Pipeline
from tests.sdk.evaluation.synthetic import data_root

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The ninth photograph, 1008.jpg, is one whose own seed draws no effect.
    return data_root(tmp_path_factory.mktemp("small"), photographs=9, streets=5)


@pytest.fixture(scope="session")
def small_protocol(small_root: Path) -> Protocol:
    return load_protocol(small_root)


@pytest.fixture(scope="session")
def pipeline() -> Iterator[Pipeline]:
    with rirf.load(threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def evaluation(pipeline: Pipeline, small_protocol: Protocol) -> Evaluation:
    return evaluate(pipeline, small_protocol)


@pytest.fixture(scope="session")
def real_root() -> Path:
    root = Path(os.environ.get("RIRF_DATA", ROOT.parent / "shared" / "data"))
    if not (root / "camvid").is_dir():
        pytest.skip("needs the real test sets: set RIRF_DATA to their folder")
    return root
