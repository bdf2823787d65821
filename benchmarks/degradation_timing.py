"""Times candidates against each other: in turn, in one process, ratios from the same rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter, sleep
from typing import Any

__all__ = ["Candidate", "Timer", "compare", "host_timer", "ratio"]

# One timing lasts about this long, so that the clock's grain and a call's overhead do not count.
_TIMING_S = 0.02
_REPEATS_MAX = 100
# A slow peer's share of the whole run; it gets fewer rounds, but not fewer than three.
_BUDGET_S = 15.0
_ROUNDS_MIN = 3
# Worker threads of OpenMP keep spinning for a moment after a call and would slow whoever is next.
_SETTLE_S = 0.005

Timer = Callable[[Callable[[], object], int], float]
"""``timer(call, repeats)``: seconds that one of ``repeats`` calls in a row takes."""


@dataclass(frozen=True)
class Candidate:
    """What is timed: a call, or why there is none.

    Attributes:
        target: ours must be at least this many times faster; None where there is nothing to hold.
        images: how many images one call works on.
    """

    name: str
    provider: str
    note: str
    call: Callable[[], object] | None
    images: int
    target: float | None = None
    missing: str = ""


def host_timer(call: Callable[[], object], repeats: int) -> float:
    """By the wall clock, for calls that are done when they return."""
    start = perf_counter()
    for _ in range(repeats):
        call()
    return (perf_counter() - start) / repeats


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Median over the rounds that both took part in of their time over ours.

    A round's ratio compares two times taken one after the other, so a load or a clock that drifts
    between rounds drops out.
    """
    shared = min(len(theirs), len(ours))
    if shared == 0:
        raise ValueError("expected at least one round that both took part in")
    return median(a / b for a, b in zip(theirs[:shared], ours[:shared], strict=True))


def compare(
    candidates: Sequence[Candidate],
    rounds: int,
    timer: Timer,
    progress: Callable[[str], object],
) -> list[dict[str, Any]]:
    """Time every candidate against the first, and return one row each.

    A row has ``ms`` (median, an image), ``ratio`` (:func:`ratio` to the first), ``target``, ``ok``
    (None without a target or a ratio), ``seconds`` (a round each, a call) and ``note``; one that
    could not be measured has ``measured`` False and says why in ``note``. The first may be missing,
    but must not fail.
    """
    calls: dict[int, Callable[[], object]] = {}
    repeats: dict[int, int] = {}
    planned: dict[int, int] = {}
    why = {place: each.missing for place, each in enumerate(candidates)}
    for place, each in enumerate(candidates):
        if each.call is None:
            continue
        try:
            each.call()
            once = timer(each.call, 1)
        except Exception as error:
            if place == 0:
                raise
            why[place] = f"its call fails: {type(error).__name__}: {error}"
            continue
        calls[place] = each.call
        repeats[place] = max(1, min(_REPEATS_MAX, math.ceil(_TIMING_S / max(once, 1e-9))))
        affordable = max(_ROUNDS_MIN, int(_BUDGET_S / max(once, _TIMING_S)))
        planned[place] = rounds if place == 0 else min(rounds, affordable)
    times: dict[int, list[float]] = {place: [] for place in calls}
    for number in range(rounds):
        order = [place for place in calls if number < planned[place]]
        # Whoever goes first in a round changes, so that no place in it is an advantage.
        turn = number % len(order) if order else 0
        for place in order[turn:] + order[:turn]:
            sleep(_SETTLE_S)
            if repeats[place] > 1:
                calls[place]()  # brings its data and threads back after the others
            times[place].append(timer(calls[place], repeats[place]))
            progress(candidates[place].name)
    return [
        _row(each, times.get(place), times.get(0), repeats.get(place, 0), why[place], place == 0)
        for place, each in enumerate(candidates)
    ]


def _row(
    candidate: Candidate,
    times: list[float] | None,
    ours: list[float] | None,
    repeats: int,
    why: str,
    is_ours: bool,
) -> dict[str, Any]:
    compared = ratio(times, ours) if times and ours and not is_ours else None
    target = candidate.target
    return {
        "name": candidate.name,
        "measured": times is not None,
        "ms": median(times) * 1e3 / candidate.images if times else None,
        "ratio": compared,
        "target": target,
        "ok": None if compared is None or target is None else compared >= target,
        "provider": candidate.provider or "-",
        "batch": candidate.images,
        "rounds": len(times or ()),
        "repeats": repeats,
        "seconds": times or [],
        "note": candidate.note if times else f"not measured: {why}",
    }
