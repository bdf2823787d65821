from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data
from torch import Tensor

import rirf
from rirf.degradation import degrade
from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.errors import BundleError
from rirf.images import to_float
from rirf.reasoner import decode
from rirf.views import extract
from rirf_training.config import TrainingError
from rirf_training.networks import Reasoner, load_network, save_network
from rirf_training.networks.reasoner import OUTPUTS
from rirf_training.rl.reward import (
    BundleSeverity,
    NetworkSeverity,
    frames,
    open_severity,
    severity_reward,
)
from tests.networks import tiny_reasoner

SIDE = 192


def photo(number: int) -> NDArray[np.uint8]:
    """A patch, uint8 BGR."""
    picture = (data.astronaut(), data.coffee(), data.chelsea())[number]
    return np.ascontiguousarray(picture[60 : 60 + SIDE, 80 : 80 + SIDE, ::-1])


def tensor(images: list[NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2))


def points(diagnosis: Diagnosis) -> float:
    return sum(diagnosis.effect(name).severity for name in EFFECTS)


@pytest.fixture(scope="module")
def patches() -> tuple[Tensor, Tensor]:
    """Clean patches and ones that are degraded by 60 points in all."""
    clean, degraded = [to_float(photo(number)) for number in range(3)], []
    for number, image in enumerate(clean):
        draws = (degrade(image, 100 * number + seed) for seed in range(100))
        heavy = (draw for draw in draws if points(draw.diagnosis) > 60)
        degraded.append(next(heavy).image)
    return tensor(clean), tensor(degraded)


def test_images_become_frames() -> None:
    picture = photo(0)
    (frame,) = frames(tensor([to_float(picture)]))
    np.testing.assert_array_equal(frame, picture)
    # Rounded and clipped, as the runtime's output is.
    (grey,) = frames(torch.full((1, 3, 4, 4), 0.5017))
    assert np.unique(grey).tolist() == [128]
    (outside,) = frames(torch.tensor([-0.2, 0.0, 1.3])[None, :, None, None].expand(1, 3, 4, 4))
    assert outside[0, 0].tolist() == [255, 0, 0]


def test_a_network_is_read_as_the_runtime_reads_it(patches: tuple[Tensor, Tensor]) -> None:
    network = tiny_reasoner()
    _, degraded = patches
    found = NetworkSeverity(network, workers=2)(degraded)
    for row, frame in zip(found, frames(degraded), strict=True):
        views = extract(frame)
        with torch.no_grad():
            values = network(
                torch.from_numpy(views.thumbnail)[None], torch.from_numpy(views.crops)[None]
            )
        outputs = {name: value[0].numpy() for name, value in zip(OUTPUTS, values, strict=True)}
        diagnosis = decode(outputs).diagnosis
        assert diagnosis is not None
        for score, name in zip(row, EFFECTS, strict=True):
            effect = diagnosis.effect(name)
            if effect.present:
                expected = effect.probability * effect.severity / 100
                assert float(score) == pytest.approx(expected, abs=1e-3)
            assert 0 <= float(score) <= 1


def test_mixed_precision_around_it_changes_nothing(patches: tuple[Tensor, Tensor]) -> None:
    severity = NetworkSeverity(tiny_reasoner())
    plain = severity(patches[1])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(severity(patches[1]), plain)
    assert not plain.requires_grad


def test_the_clean_patch_earns_more_than_the_degraded(
    patches: tuple[Tensor, Tensor], shipped: Path
) -> None:
    clean, degraded = patches
    severity = BundleSeverity(shipped)
    before = severity(degraded)
    assert not severity_reward(before, before).any()
    assert (severity_reward(before, severity(clean)) > 0.2).all()


def test_a_bundle_is_read_through_the_runtime(
    patches: tuple[Tensor, Tensor], shipped: Path
) -> None:
    found = BundleSeverity(shipped)(patches[1])
    with rirf.load(shipped) as pipeline:
        for row, frame in zip(found, frames(patches[1]), strict=True):
            diagnosis = pipeline.diagnose(frame)
            effects = [diagnosis.effect(name) for name in EFFECTS]
            expected = [effect.probability * effect.severity / 100 for effect in effects]
            assert row.tolist() == pytest.approx(expected, abs=1e-4)


# What may be the judge.


def test_a_checkpoint_as_judge(tiny_checkpoints: Path, tmp_path: Path) -> None:
    reward = tiny_checkpoints / "reasoner"
    save_network(tmp_path / "other", tiny_reasoner(seed=1), {})
    judge, digest = open_severity(tmp_path / "other", reward)
    assert isinstance(judge, NetworkSeverity)
    assert len(digest) == 64
    save_network(tmp_path / "third", tiny_reasoner(seed=2), {})
    assert open_severity(tmp_path / "third", reward)[1] != digest


def test_a_bundle_as_judge(tiny_checkpoints: Path, shipped: Path) -> None:
    judge, digest = open_severity(shipped, tiny_checkpoints / "reasoner")
    assert isinstance(judge, BundleSeverity)
    assert len(digest) == 64


def test_the_reward_cannot_judge_itself(
    tiny_checkpoints: Path, tmp_path: Path, shipped: Path
) -> None:
    reward = tiny_checkpoints / "reasoner"
    network, _ = load_network(reward)
    assert isinstance(network, Reasoner)
    save_network(tmp_path / "copy", network, {"renamed": True})
    for judge in (reward, tmp_path / "copy"):
        with pytest.raises(TrainingError, match="is the reasoner that gives the reward"):
            open_severity(judge, reward)
    # A bundle that was exported from it, which its provenance tells.
    provenance = BundleSeverity(shipped).provenance
    assert isinstance(provenance, dict)
    save_network(tmp_path / "shipped", network, provenance)
    with pytest.raises(TrainingError, match="is the reasoner that gives the reward"):
        open_severity(shipped, tmp_path / "shipped")


def test_what_is_no_judge(tiny_checkpoints: Path, tmp_path: Path) -> None:
    reward = tiny_checkpoints / "reasoner"
    with pytest.raises(TrainingError, match="holds a restorer; --judge takes a bundle or a reason"):
        open_severity(tiny_checkpoints / "restorer", reward)
    with pytest.raises(BundleError, match="no checkpoint this version can read"):
        open_severity(tmp_path / "none", reward)
