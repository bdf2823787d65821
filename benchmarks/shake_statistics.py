"""Can shake be read off second-order statistics of the crops that the reasoner sees?

The statistics of the eight native crops that the reasoner is given as well
(``rirf_training.networks.statistics``) go into a perceptron with two hidden layers, trained on
fresh draws of the training images. Its number of epochs is chosen on some of those images; the
held-out images are looked at once, with the final network, and the reasoner of a bundle reads the
same frames. Prints a table and, last, one JSON line.

Knows nothing of how a reasoner takes the statistics in: it only asks what they tell by themselves.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import rirf
from rirf.diagnosis import Diagnosis, ShakeDiagnosis
from rirf.evaluation.environment import describe
from rirf.views import CROP_SIZE, CROPS, extract
from rirf_training.config import ReasonerRun
from rirf_training.data.catalog import find_clean, held_out
from rirf_training.data.draw import Draw
from rirf_training.data.fresh import FreshDraws
from rirf_training.networks.statistics import CropStatistics

_LENGTH = 15.0  # pixels: brings the length's target near 1
# Share of the images up to which they choose the epochs; those below the run's share are held out.
CHOOSING_SHARE = 0.2
EPOCHS = (10, 20, 40, 80)
BATCH = 128
KINDS = ("neither", "rain only", "noise only", "both")
_AT_ONCE = 50

Array = NDArray[np.float32]


def statistics(module: CropStatistics, crops: Array) -> Array:
    """Statistics (296,) of a frame's crops (8, 3, 96, 96), RGB in [0, 1]."""
    with torch.no_grad():
        found: Array = module(torch.from_numpy(crops)[None])[0].numpy()
    return found


@dataclass(frozen=True)
class Collected:
    """Draws by their statistics.

    Attributes:
        images: place of each draw's clean image among its images.
        statistics: (N, 296).
        present: whether shake is there.
        targets: (N, 4): severity / 100, cosine and sine of twice the direction, length / 15 px.
        kinds: place in ``KINDS``.
        reasoner: whether the bundle's reasoner called shake present; empty where it was not asked.
        crops_ms, statistics_ms: medians a frame.
    """

    images: NDArray[np.int64]
    statistics: Array
    present: NDArray[np.bool_]
    targets: Array
    kinds: NDArray[np.int64]
    reasoner: NDArray[np.bool_]
    crops_ms: float
    statistics_ms: float


def _targets(shake: ShakeDiagnosis) -> list[float]:
    twice = np.deg2rad(2.0 * shake.direction_deg)
    return [
        shake.severity / 100.0,
        float(np.cos(twice)),
        float(np.sin(twice)),
        shake.length_px / _LENGTH,
    ]


def collect(
    fresh: FreshDraws,
    count: int,
    random: np.random.Generator,
    label: str,
    pipeline: rirf.Pipeline | None = None,
) -> Collected:
    """Make draws and keep their statistics; the pipeline, if given, reads the same frames."""
    module = CropStatistics(CROPS, CROP_SIZE)

    def look(draw: Draw, _: int) -> tuple[Array, Diagnosis, bool, float, float]:
        frame = np.ascontiguousarray(draw.degraded)
        start = time.perf_counter()
        crops = extract(frame).crops
        middle = time.perf_counter()
        found = statistics(module, crops)
        end = time.perf_counter()
        called = False
        if pipeline is not None:
            diagnosis = pipeline.read(frame).diagnosis
            called = diagnosis is not None and diagnosis.shake.present
        return found, draw.diagnosis, called, 1e3 * (middle - start), 1e3 * (end - middle)

    orders = fresh.orders(random, count)
    rows = []
    with tqdm(total=count, desc=label, unit="draw", disable=None) as bar:
        for first in range(0, count, _AT_ONCE):
            some = fresh.map(look, orders[first : first + _AT_ONCE])
            rows += some
            bar.update(len(some))
    truths = [row[1] for row in rows]
    asked = rows if pipeline is not None else []
    return Collected(
        images=np.array([order.image for order in orders]),
        statistics=np.stack([row[0] for row in rows]),
        present=np.array([truth.shake.present for truth in truths]),
        targets=np.array([_targets(truth.shake) for truth in truths], dtype=np.float32),
        kinds=np.array([2 * truth.noise.present + truth.rain.present for truth in truths]),
        reasoner=np.array([row[2] for row in asked], dtype=np.bool_),
        crops_ms=float(np.median([row[3] for row in rows])),
        statistics_ms=float(np.median([row[4] for row in rows])),
    )


@dataclass(frozen=True)
class Trained:
    """A perceptron and the standardisation of its inputs."""

    network: nn.Sequential
    mean: Array
    spread: Array

    def inputs(self, found: Array) -> Tensor:
        return torch.from_numpy((found - self.mean) / self.spread)

    def __call__(self, found: Array) -> Array:
        """(N, 5): presence logit, then what :class:`Collected` has as targets."""
        self.network.eval()
        with torch.no_grad():
            read: Array = self.network(self.inputs(found)).numpy()
        return read


def loss_of(raw: Tensor, present: Tensor, targets: Tensor) -> Tensor:
    presence = F.binary_cross_entropy_with_logits(raw[:, 0], present)
    return presence + 4.0 * ((raw[:, 1:] - targets).abs() * present[:, None]).mean()


def train(
    found: Array, present: NDArray[np.bool_], targets: Array, epochs: int, seed: int
) -> Trained:
    """A perceptron trained for that many epochs, its rate falling to zero along a half cosine."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(found.shape[1], 256),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Linear(128, 5),
    )
    trained = Trained(network, found.mean(axis=0), found.std(axis=0) + np.float32(1e-6))
    inputs, truth = trained.inputs(found), torch.from_numpy(targets)
    shaken = torch.from_numpy(present.astype(np.float32))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in tqdm(range(epochs), desc=f"train {epochs}", unit="epoch", disable=None):
        network.train()
        order = torch.randperm(len(inputs))
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            loss = loss_of(network(inputs[batch]), shaken[batch], truth[batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimiser.step()
        schedule.step()
    return trained


def choose_epochs(draws: Collected, choosing: NDArray[np.bool_], seed: int) -> dict[int, float]:
    """Loss on the choosing draws after training on the others, by number of epochs."""
    losses = {}
    fitted = ~choosing
    for epochs in EPOCHS:
        trained = train(
            draws.statistics[fitted], draws.present[fitted], draws.targets[fitted], epochs, seed
        )
        raw = torch.from_numpy(trained(draws.statistics[choosing]))
        present = torch.from_numpy(draws.present[choosing].astype(np.float32))
        losses[epochs] = float(loss_of(raw, present, torch.from_numpy(draws.targets[choosing])))
    return losses


def presence_figures(called: NDArray[np.bool_], draws: Collected) -> dict[str, float | None]:
    """Shares of frames whose presence is told right; None where there is no such frame."""
    right = called == draws.present
    groups = {
        "all": np.ones_like(right),
        **{kind: draws.kinds == place for place, kind in enumerate(KINDS)},
        "present": draws.present,
        "absent": ~draws.present,
    }
    return {
        name: float(right[inside].mean()) if inside.any() else None
        for name, inside in groups.items()
    }


def _angle(targets: Array) -> Array:
    angle: Array = np.arctan2(targets[:, 2], targets[:, 1])
    return angle


def parameter_errors(read: Array, truth: Array) -> dict[str, float]:
    """Mean absolute errors of the shaken frames (N, 4): severity in points, degrees, pixels."""
    turned = np.abs(np.angle(np.exp(1j * (_angle(read) - _angle(truth)))))
    severity = np.clip(100.0 * read[:, 0], 0.0, 100.0)
    return {
        "severity": float(np.abs(severity - 100.0 * truth[:, 0]).mean()),
        "direction_deg": float(np.rad2deg(turned).mean() / 2.0),
        "length_px": float(_LENGTH * np.abs(read[:, 3] - truth[:, 3]).mean()),
    }


def evaluate(trained: Trained, training: Collected, held: Collected) -> dict[str, Any]:
    """The held-out figures beside those of a prior: what one would say without looking."""
    read = trained(held.statistics)
    shaken = held.present
    usual = np.median(training.targets[training.present], axis=0).astype(np.float32)
    prior = np.tile(usual, (int(shaken.sum()), 1))
    mostly = np.full_like(shaken, training.present.mean() >= 0.5)
    return {
        "presence": {
            "statistics": presence_figures(read[:, 0] > 0.0, held),
            "reasoner": presence_figures(held.reasoner, held),
            "prior": presence_figures(mostly, held),
        },
        "errors": {
            "statistics": parameter_errors(read[shaken, 1:], held.targets[shaken]),
            "prior": parameter_errors(prior, held.targets[shaken]),
        },
    }


def show(record: dict[str, Any]) -> None:
    presence, errors = record["presence"], record["errors"]
    print(
        f"{'presence right, held-out images':<32} {'frames':>7}"
        + "".join(f"{n:>12}" for n in presence)
    )
    for group, frames in record["frames"].items():
        shares = [presence[name][group] for name in presence]
        cells = "".join("           –" if s is None else f"{100 * s:>10.1f} %" for s in shares)
        print(f"{group:<32} {frames:>7}{cells}")
    print(f"\n{'mean absolute error, shaken':<32}" + "".join(f"{name:>12}" for name in errors))
    for figure, unit in (
        ("severity", "points"),
        ("direction_deg", "degrees"),
        ("length_px", "pixels"),
    ):
        cells = "".join(f"{errors[name][figure]:>12.2f}" for name in errors)
        print(f"{figure.partition('_')[0] + ', ' + unit:<32}{cells}")
    tried = ", ".join(f"{epochs}: {loss:.3f}" for epochs, loss in record["epochs_tried"].items())
    print(f"\nepochs: {record['epochs']} (loss on the choosing images {tried})")
    print(
        f"a frame: crops {record['crops_ms']:.2f} ms (the reasoner has them already), "
        f"their statistics {record['statistics_ms']:.2f} ms; {record['device']}"
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    run = ReasonerRun()
    images = find_clean(arguments.data, run.splits)
    test = [clean for clean in images if held_out(clean.name, run.validation_share)]
    rest = [clean for clean in images if not held_out(clean.name, run.validation_share)]
    chooses = np.array([held_out(clean.name, CHOOSING_SHARE) for clean in rest], dtype=np.bool_)
    if not test or not chooses.any() or chooses.all():
        raise SystemExit(
            f"{arguments.data}: got {len(images)} images, {len(test)} of them held out and "
            f"{int(chooses.sum())} to choose the epochs; expected some of each and some to train "
            "on: give a folder with more images"
        )
    decoded = arguments.cache / "decoded"
    # One thread makes the draws: the times are of a frame that has the core to itself.
    training = collect(
        FreshDraws(decoded, rest, workers=1),
        arguments.draws,
        np.random.default_rng([arguments.seed, 0]),
        "training",
    )
    choosing = chooses[training.images]
    if not choosing.any() or choosing.all():
        raise SystemExit(
            f"--draws {arguments.draws}: {int(choosing.sum())} of them choose the epochs; expected "
            "some to choose and some to train on: give a larger number"
        )
    with rirf.load(arguments.bundle, threads=1) as pipeline:
        held = collect(
            FreshDraws(decoded, test, workers=1),
            arguments.held,
            np.random.default_rng([arguments.seed, 1]),
            "held out",
            pipeline,
        )
        where = describe(pipeline, 1)
    if not held.present.any() or not training.present.any():
        raise SystemExit("no draw is shaken: give larger --draws and --held")
    losses = choose_epochs(training, choosing, arguments.seed)
    epochs = min(losses, key=losses.__getitem__)
    final = train(training.statistics, training.present, training.targets, epochs, arguments.seed)
    kinds = {kind: int((held.kinds == place).sum()) for place, kind in enumerate(KINDS)}
    shaken = int(held.present.sum())
    return {
        "benchmark": "shake_statistics",
        "images": {"training": len(rest), "choosing": int(chooses.sum()), "held_out": len(test)},
        "draws": arguments.draws,
        "held": arguments.held,
        "seed": arguments.seed,
        "statistics": held.statistics.shape[1],
        "crop_size": CROP_SIZE,
        "epochs_tried": losses,
        "epochs": epochs,
        "frames": {
            "all": arguments.held,
            **kinds,
            "present": shaken,
            "absent": arguments.held - shaken,
        },
        **evaluate(final, training, held),
        "crops_ms": held.crops_ms,
        "statistics_ms": held.statistics_ms,
        "torch": str(torch.__version__),
        **where,
    }


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text}")
    return number


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data folder of rirf train")
    parser.add_argument(
        "--draws", type=_positive, default=6000, help="of training images (default: 6000)"
    )
    parser.add_argument(
        "--held", type=_positive, default=1500, help="draws of held-out images (default: 1500)"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/fresh"), help="cache folder of rirf train"
    )
    parser.add_argument("--bundle", type=Path, help="a .rirf bundle (default: the one shipped)")
    parser.add_argument("--seed", type=int, default=0, help="of draws and training (default: 0)")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    arguments = parser.parse_args(argv)
    before = torch.get_num_threads()
    # Sums over several threads differ in the last digit, and training amplifies that.
    torch.set_num_threads(1)
    try:
        record = measure(arguments)
    finally:
        torch.set_num_threads(before)
    if not arguments.json:
        show(record)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
