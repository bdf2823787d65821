"""What must not change a result: instruction sets, concurrent callers, a fork."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.kernels.layouts import pixels

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")

LEVELS = ("baseline", "x86-64-v3", "x86-64-v4")

# Degrades a fixed batch and leaves image, mask and words behind.
CHILD = """
import sys
import numpy as np
import rirf_kernels as native

image = np.load(sys.argv[1])
rows = native.sample(range(len(image)))
rows["present"] = 15
mask = np.empty(image.shape[:3], dtype=np.float32)
degraded, truth = native.degrade(image, rows, mask=mask)
words = native.words(3, 1, 1, 1001)
np.savez(sys.argv[2], isa=native.build_info()["isa"], degraded=degraded, mask=mask, words=words,
         severity=truth["severity"], normals=native.normals(3, 4, 1, 4001))
"""


def all_present(seeds: list[int]) -> Any:
    rows = native.sample(seeds)
    rows["present"] = 15
    return rows


def test_instruction_sets_agree(tmp_path: Any) -> None:
    image = pixels(8, 4, 61, 75, 3)
    np.save(tmp_path / "image.npy", image)
    found = {}
    for level in (*LEVELS, "a level that is not there"):
        arguments = [sys.executable, "-c", CHILD, tmp_path / "image.npy", tmp_path / "out.npz"]
        subprocess.run(arguments, check=True, env={**os.environ, "RIRF_KERNELS_ISA": level})
        with np.load(tmp_path / "out.npz") as loaded:
            found[level] = dict(loaded)
    best = str(found[LEVELS[-1]]["isa"])
    assert str(found["baseline"]["isa"]) == "baseline"
    for level in LEVELS:
        # Only downwards: a level that the machine lacks leaves the best.
        expected = level if level in LEVELS[: LEVELS.index(best) + 1] else best
        assert str(found[level]["isa"]) == expected
    assert str(found["a level that is not there"]["isa"]) == best
    for level in LEVELS[1:]:
        one, other = found["baseline"], found[level]
        np.testing.assert_array_equal(one["words"], other["words"])
        np.testing.assert_array_equal(one["mask"], other["mask"])
        # Products and sums are fused or not. Measured: normals 2.4e-7, images 3.0e-7, severities
        # 4.6e-6.
        np.testing.assert_allclose(one["normals"], other["normals"], rtol=0, atol=2e-6)
        np.testing.assert_allclose(one["degraded"], other["degraded"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(one["severity"], other["severity"], rtol=0, atol=1e-4)


def test_concurrent_callers_get_what_they_get_alone() -> None:
    jobs = [(pixels(i, 1 + i % 3, 40 + i, 51, 3), list(range(i, i + 1 + i % 3))) for i in range(12)]
    alone = [native.degrade(image, all_present(seeds), threads=1) for image, seeds in jobs]
    expected = [(image.tobytes(), truth.tobytes()) for image, truth in alone]

    def work(index: int) -> tuple[bytes, bytes]:
        image, seeds = jobs[index % len(jobs)]
        degraded, truth = native.degrade(image, all_present(seeds), threads=1 + index % 4)
        return degraded.tobytes(), truth.tobytes()

    with ThreadPoolExecutor(6) as callers:
        for index, found in enumerate(callers.map(work, range(60))):
            assert found == expected[index % len(jobs)]


def test_the_gil_is_released_while_a_kernel_runs() -> None:
    """Python goes on in another thread during one call."""
    image = pixels(1, 4, 700, 700, 3)
    rows = all_present([1, 2, 3, 4])
    spans: list[tuple[float, float]] = []

    def call() -> None:
        began = time.perf_counter()
        native.degrade(image, rows, threads=1)
        spans.append((began, time.perf_counter()))

    worker = threading.Thread(target=call)
    ticks = []
    worker.start()
    while worker.is_alive():
        ticks.append(time.perf_counter())
        time.sleep(0.001)
    worker.join()
    began, ended = spans[0]
    # With the GIL held there would be none in the middle of the span.
    quarter = (ended - began) / 4
    assert any(began + quarter < tick < ended - quarter for tick in ticks)


def digest(seed: int) -> str:
    degraded, truth = native.degrade(pixels(seed, 1, 70, 90, 3), all_present([seed]), threads=3)
    return hashlib.sha256(degraded.tobytes() + truth.tobytes()).hexdigest()


def _answer(queue: Any, seed: int) -> None:
    queue.put(digest(seed))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_of_a_fork_makes_its_own_threads() -> None:
    expected = digest(5)  # the parent's pool is there, with threads that the child does not get
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_answer, args=(queue, 5)) for _ in range(3)]
    for child in children:
        child.start()
    try:
        found = [queue.get(timeout=60) for _ in children]
    finally:
        for child in children:
            child.join(timeout=10)
            if child.is_alive():
                child.kill()
    assert found == [expected] * 3
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert digest(5) == expected  # and the parent's pool still works


def test_scratch_memory_can_be_given_back_at_any_time() -> None:
    expected = digest(6)
    native.release_scratch()
    assert digest(6) == expected
    native.release_scratch()
    native.release_scratch()


def test_more_threads_than_there_is_work_for() -> None:
    image = pixels(1, 1, 5, 6, 3)
    rows = all_present([3])
    expected, _ = native.degrade(image, rows, threads=1)
    before = threading.active_count()
    for threads in (-1, 100, 2**31 - 1):
        np.testing.assert_array_equal(native.degrade(image, rows, threads=threads)[0], expected)
    assert threading.active_count() == before
