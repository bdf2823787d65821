"""The training loop: optimiser, averaged weights, progress, checkpoints, exact resume.

A batch is a function of (seed, step) alone, so a run that was killed at any moment continues as if
it had not been: nothing of the data order has to be stored. Knows no network and no loss; a
:class:`Task` brings both.
"""

from __future__ import annotations

import copy
import io
import json
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from rirf.files import write_atomic
from rirf_training.config import LoopConfig, TrainingError
from rirf_training.curves import plot_curves

__all__ = ["Batch", "Task", "generator", "train"]

Batch = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)
_FINAL_RATE = 0.01
_STATE = "state.pt"
_FAILURE = "failure.json"
_RECENT = 100  # losses that a new one is compared with
_METRICS = "metrics.jsonl"


class Task(Protocol[Network]):
    """What is trained: batches, loss, validation, and how the result is stored."""

    network: Network

    def batch(self, step: int) -> Batch:
        """The training batch of a step; the same step always gives the same batch."""

    def loss(self, network: Network, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The scalar loss and figures to show."""

    def validate(self, network: Network) -> dict[str, float]:
        """Figures on the validation share."""

    def save(self, folder: Path, network: Network, provenance: dict[str, Any]) -> None:
        """Write the network as a checkpoint."""

    def describe(self, step: int) -> dict[str, Any]:
        """Which draws a step's batch was made of, as JSON."""


def generator(seed: int, step: int) -> np.random.Generator:
    """The random numbers of one step: counter-based, so any step can be made on its own."""
    return np.random.Generator(np.random.Philox(key=[seed, step]))


class _Prefetch(Generic[Network]):
    """Makes the next batches on another thread; errors surface where the batch is taken."""

    def __init__(self, task: Task[Network], first: int, last: int) -> None:
        self._queue: Queue[Batch | BaseException] = Queue(maxsize=3)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(task, first, last), name="batches", daemon=True
        )
        self._thread.start()

    def _work(self, task: Task[Network], first: int, last: int) -> None:
        try:
            for step in range(first, last):
                if self._stop.is_set():
                    return
                self._queue.put(task.batch(step))
        except BaseException as error:  # handed over, raised in the training thread
            self._queue.put(error)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        self._stop.set()
        while not self._queue.empty():
            self._queue.get_nowait()


def _rate(step: int, config: LoopConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    span = max(1, config.steps - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - config.warmup) / span)))
    return _FINAL_RATE + (1 - _FINAL_RATE) * cosine


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("loop.device is cuda, but torch finds no CUDA device: use auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _differences(stored: Any, given: Any, path: str = "") -> list[str]:
    """Where two trees of settings differ, as ``path: stored, given``."""
    if isinstance(stored, dict) and isinstance(given, dict):
        found = []
        for key in sorted({*stored, *given}):
            inner = f"{path}.{key}" if path else key
            found += _differences(stored.get(key), given.get(key), inner)
        return found
    return [] if stored == given else [f"{path}: {stored}, {given}"]


def _average(ema: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    # Early on a long memory would keep the random start: the decay grows with the step.
    weight = 1.0 - min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for kept, new in zip(ema.parameters(), network.parameters(), strict=True):
            kept.lerp_(new, weight)


def _optimizer(network: nn.Module, config: LoopConfig) -> torch.optim.AdamW:
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99))


def _broken(task: Task[Network], out: Path, step: int, what: str, value: float) -> TrainingError:
    """Write down what a step that cannot be taken was made of; the error to raise."""
    record = {"step": step, what: str(value), **task.describe(step)}
    write_atomic(out / _FAILURE, json.dumps(record, indent=2).encode())
    return TrainingError(
        f"the {what} became {value} at step {step}; its batch is described in {out / _FAILURE}, "
        "and the last checkpoint is good: lower loop.learning_rate and start from it in a new --out"
    )


def _read_metrics(file: Path, before: int) -> list[dict[str, float]]:
    """Metric rows up to a step; rows a killed run wrote after its last checkpoint are dropped."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line a kill cut off
        if row["step"] <= before:
            rows.append(row)
    return rows


def train(
    task: Task[Network],
    config: LoopConfig,
    out: Path,
    *,
    provenance: dict[str, Any],
    resume: bool,
    progress: bool = True,
) -> dict[str, float]:
    """Train to the end of the schedule; returns the last validation figures.

    ``out`` receives ``state.pt`` (everything a resume needs), ``model.safetensors`` +
    ``config.json`` (averaged weights), ``metrics.jsonl`` and ``curves.png``.

    Raises:
        TrainingError: ``out`` holds a run and ``resume`` is False; the stored run does not fit; or
            the loss or its gradient is no longer finite, or the loss explodes. ``failure.json``
            says then at which step, and what its batch was made of.
    """
    out.mkdir(parents=True, exist_ok=True)
    # Channels-last is the layout the CPU's and the GPU's convolutions run fastest in.
    device = _device(config.device)
    task.network.to(device)
    network = task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    ema = copy.deepcopy(network)
    optimizer = _optimizer(network, config)
    done, rows = 0, []
    state_file = out / _STATE
    if state_file.exists():
        if not resume:
            raise TrainingError(f"{out} holds a run already; continue it with --resume")
        state = torch.load(state_file, map_location=device, weights_only=True)
        different = _differences(
            json.loads(state["provenance"]), json.loads(json.dumps(provenance))
        )
        if different:
            raise TrainingError(
                f"{out} was started with another configuration; give the same one, or another "
                "--out. Different (stored, now): " + "; ".join(different)
            )
        network.load_state_dict(state["network"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        done = int(state["step"])
        rows = _read_metrics(out / _METRICS, done)

    def checkpoint(step: int) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "network": network.state_dict(),
                "ema": ema.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "provenance": json.dumps(provenance, sort_keys=True),
            },
            buffer,
        )
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomic(out / _METRICS, text.encode())
        task.save(out, ema, {**provenance, "steps_done": step})
        write_atomic(state_file, buffer.getvalue())

    # A finished run that is resumed has no step left: its last figures are the result.
    prefix = "validation/"
    figures = {
        key.removeprefix(prefix): figure
        for key, figure in (rows[-1] if rows else {}).items()
        if key.startswith(prefix)
    }
    batches = _Prefetch(task, done, config.steps)
    bar = tqdm(total=config.steps, initial=done, desc="train", unit="step", disable=not progress)
    started, window = time.monotonic(), []
    recent: deque[float] = deque(maxlen=_RECENT)
    try:
        for step, batch in zip(range(done, config.steps), batches, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _rate(step, config)
            network.train()
            mixed = config.precision == "bf16"
            moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            torch.manual_seed(step)  # what dropout drops is the step's alone, as its batch is
            with torch.autocast(device.type, torch.bfloat16, mixed):
                loss, shown = task.loss(network, moved)
            value = float(loss.detach())
            exploded = len(recent) == _RECENT and value > config.explode * max(recent)
            if not math.isfinite(value) or exploded:
                raise _broken(task, out, step, "loss", value)
            recent.append(abs(value))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
            norm = float(nn.utils.clip_grad_norm_(network.parameters(), config.clip))
            # A finite loss can have a gradient that is not; its step would spoil every weight.
            if not math.isfinite(norm):
                raise _broken(task, out, step, "gradient", norm)
            optimizer.step()
            _average(ema, network, config.ema, step)
            window.append({"loss": value, **shown})
            bar.update()
            reached = step + 1
            last = reached == config.steps
            if reached % config.validate_every == 0 or last:
                ema.eval()
                with torch.no_grad():
                    figures = task.validate(ema)
                means = {key: float(np.mean([w[key] for w in window])) for key in window[0]}
                rows.append(
                    {
                        "step": reached,
                        "seconds": time.monotonic() - started,
                        **{f"train/{key}": mean for key, mean in means.items()},
                        **{f"validation/{key}": figure for key, figure in figures.items()},
                    }
                )
                window = []
                plot_curves(rows, out / "curves.png")
                bar.set_postfix({key: f"{figure:.3g}" for key, figure in figures.items()})
            if reached % config.checkpoint_every == 0 or last:
                checkpoint(reached)
    finally:
        batches.close()
        bar.close()
    return figures
