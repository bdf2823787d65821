from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rirf import conditioning, restorer
from rirf.bundle import MANIFEST, Bundle, file_digest
from rirf.engine import OnnxEngine
from rirf.errors import BundleError, EngineError, OutputError
from rirf.policy import FittedPolicy
from rirf_export import bundling
from rirf_export.bundling import BYPASS_BELOW, export_bundle, schedules_of
from rirf_export.graphs import COARSE
from rirf_export.parity import PARITY_MIN_DB, check_parity
from rirf_training.bridge import coarse, leap
from rirf_training.networks import Reasoner, load_network, save_network
from tests.networks import RESTORER, tiny_reasoner, tiny_restorer
from tests.sdk.pictures import files_below

# A checkpoint whose bridge was trained, as far as its provenance goes.
BRIDGED = {"images": 1, "run": {"bridge": {"share": 0.5, "weight": 0.5, "noise": 0.05}}}
FILES = ["MODEL_CARD.md", MANIFEST, "reasoner.onnx", "restorer.onnx"]


@pytest.fixture
def pair(tiny_checkpoints: Path) -> tuple[Path, Path]:
    return tiny_checkpoints / "reasoner", tiny_checkpoints / "restorer"


@pytest.fixture(scope="module")
def bridged_pair(
    tiny_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bridged") / "restorer"
    save_network(folder, tiny_restorer(), BRIDGED)
    return tiny_checkpoints / "reasoner", folder


@pytest.fixture(scope="module")
def bridged(
    bridged_pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, list[tuple[float, ...]]]:
    """A bundle with a bridge, and the (height, width, time, step) its parity was checked at."""
    seen: list[tuple[float, ...]] = []

    def watched(network: Any, engine: Any, samples: Any) -> dict[str, float]:
        if not isinstance(network, Reasoner):
            seen.extend((*each[0].shape[2:], each[4].item(), each[5].item()) for each in samples)
        return check_parity(network, engine, samples)

    out = tmp_path_factory.mktemp("bundles") / "bridged.rirf"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundling, "check_parity", watched)
        return export_bundle(*bridged_pair, out, progress=False), seen


def fitted(*modes: str, **provenance: Any) -> FittedPolicy:
    ladder = [{"above": 20.0 * place, "mode": mode} for place, mode in enumerate(modes)]
    return FittedPolicy.model_validate(
        {"bypass_below": 4.5, "ladder": ladder, "provenance": provenance}
    )


def left(folder: Path) -> list[str]:
    """Everything in a folder, hidden and temporary things too."""
    return sorted(path.name for path in folder.iterdir())


def test_the_bundle_is_whole(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert files_below(tiny_bundle) == sorted(FILES)
    manifest = bundle.manifest
    assert manifest.name == "tiny"
    assert set(manifest.files) == set(FILES) - {MANIFEST}
    for name, digest in manifest.files.items():
        assert file_digest(tiny_bundle / name) == digest
    assert manifest.restorer.multiple == 2 ** len(RESTORER.channels)
    assert manifest.restorer.schedules == {"coarse": (COARSE,)}
    assert manifest.policy.bypass_below == BYPASS_BELOW
    assert manifest.metrics == {}
    assert left(tiny_bundle.parent) == ["tiny.rirf"]
    assert tiny_bundle.stat().st_mode & 0o777 == 0o755


def test_the_manifest_records_how_it_was_made(tiny_bundle: Path) -> None:
    provenance = Bundle.open(tiny_bundle).manifest.provenance
    assert provenance["exported_by"]["torch"] == torch.__version__
    assert provenance["parity_min_db"] == PARITY_MIN_DB
    assert provenance["reasoner"] == provenance["restorer"] == {"images": 1}
    for outputs in provenance["parity_db"].values():
        assert all(db is None or db >= PARITY_MIN_DB for db in outputs.values())


def test_no_machine_path_in_the_texts(tiny_bundle: Path, tiny_checkpoints: Path) -> None:
    for name in (MANIFEST, "MODEL_CARD.md"):
        text = (tiny_bundle / name).read_text()
        assert str(tiny_checkpoints) not in text
        assert str(tiny_bundle.parent) not in text
        assert str(Path.home()) not in text


def test_an_existing_bundle_is_kept(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "mine.rirf"
    out.mkdir()
    (out / "precious").write_text("mine")
    with pytest.raises(OutputError, match=r"mine\.rirf exists; give another -o, or --force"):
        export_bundle(*pair, out, progress=False)
    assert files_below(tmp_path) == ["mine.rirf/precious"]


def test_force_replaces_the_whole_bundle(
    pair: tuple[Path, Path], tiny_bundle: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(tiny_bundle, tmp_path / "mine.rirf"))
    (out / "left-over").write_text("old")
    metrics = {
        "protocol": "v1",
        "images": 3,
        **{
            condition: {"psnr": 20.0, "ssim": 0.5}
            for condition in ("input", "predicted", "true", "none", "shuffled")
        },
    }
    bundle = export_bundle(*pair, out, metrics=metrics, force=True, progress=False)
    assert files_below(tmp_path) == [f"mine.rirf/{name}" for name in sorted(FILES)]
    assert bundle.manifest.metrics == metrics
    assert "Protocol v1, 3 images" in (out / "MODEL_CARD.md").read_text()
    # The same networks give the same graphs.
    for name in ("reasoner.onnx", "restorer.onnx"):
        assert (out / name).read_bytes() == (tiny_bundle / name).read_bytes()


@pytest.mark.parametrize("force", [False, True])
def test_parity_below_the_constant_leaves_nothing(
    pair: tuple[Path, Path],
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    force: bool,
) -> None:
    monkeypatch.setattr("rirf_export.parity.PARITY_MIN_DB", math.inf)
    out = tmp_path / "mine.rirf"
    if force:
        shutil.copytree(tiny_bundle, out)
    with pytest.raises(EngineError, match=r"reasoner differs from torch.*nothing was written"):
        export_bundle(*pair, out, force=force, progress=False)
    assert left(tmp_path) == (["mine.rirf"] if force else [])
    if force:  # the older bundle is untouched
        assert Bundle.open(out).digest == Bundle.open(tiny_bundle).digest


def test_a_network_that_gives_nan_is_not_exported(pair: tuple[Path, Path], tmp_path: Path) -> None:
    network = tiny_reasoner()
    with torch.no_grad():
        network.temperature.fill_(torch.nan)
    save_network(tmp_path / "broken", network, {})
    with pytest.raises(EngineError, match="reasoner differs from torch: presence"):
        export_bundle(tmp_path / "broken", pair[1], tmp_path / "mine.rirf", progress=False)
    assert left(tmp_path) == ["broken"]


def test_checkpoints_in_the_wrong_order(pair: tuple[Path, Path], tmp_path: Path) -> None:
    reasoner, restorer = pair
    with pytest.raises(BundleError, match="restorer holds a restorer, expected a reasoner"):
        export_bundle(restorer, reasoner, tmp_path / "mine.rirf", progress=False)
    with pytest.raises(BundleError, match="reasoner holds a reasoner, expected a restorer"):
        export_bundle(reasoner, reasoner, tmp_path / "mine.rirf", progress=False)
    assert left(tmp_path) == []


def test_a_missing_checkpoint(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="none is no checkpoint this version can read"):
        export_bundle(tmp_path / "none", pair[1], tmp_path / "mine.rirf", progress=False)
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", ["mine", "mine.onnx", "mine.rirf.zip"])
def test_a_bundles_name_ends_in_rirf(pair: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"a bundle's name ends in \.rirf"):
        export_bundle(*pair, tmp_path / name, progress=False)
    assert left(tmp_path) == []


def test_a_file_in_the_way(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"mine\.rirf: cannot be written"):
        export_bundle(*pair, tmp_path / "file" / "mine.rirf", progress=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_the_weights_are_those_of_the_checkpoint(
    tiny_bundle: Path, pair: tuple[Path, Path]
) -> None:
    import onnx

    network, _ = load_network(pair[0])
    assert isinstance(network, Reasoner)
    graph = onnx.load(tiny_bundle / "reasoner.onnx").graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, value in network.state_dict().items():
        if name in stored:
            assert (stored[name] == value.numpy()).all(), name
    assert "thumbnail_stem.0.weight" in stored


def test_the_manifest_is_readable_json(tiny_bundle: Path) -> None:
    text = (tiny_bundle / MANIFEST).read_text()
    assert json.loads(text)["schema_version"] == 1
    assert text.endswith("}\n")
    assert "NaN" not in text
    assert "Infinity" not in text


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"run": None},
        {"run": {"loop": {}}},
        {"run": {"bridge": None}},
        {"run": {"bridge": {}}},
        {"run": {"bridge": {"share": 0.0, "weight": 0.5}}},
        {"run": {"bridge": {"share": "half"}}},
        {"run": {"bridge": {"share": True}}},
    ],
)
def test_without_a_trained_bridge_there_is_the_coarse_leap(provenance: dict[str, Any]) -> None:
    assert schedules_of(provenance) == {"coarse": ((-1.0, 1.0),)}


def test_with_a_trained_bridge_there_are_its_steps(
    bridged: tuple[Bundle, list[tuple[float, ...]]],
) -> None:
    assert bridged[0].manifest.restorer.schedules == {
        "coarse": ((-1.0, 1.0),),
        "1": ((-1.0, 1.0), (0.0, 1.0)),
        "2": ((-1.0, 1.0), (0.0, 0.5), (0.5, 0.5)),
        "4": ((-1.0, 1.0), (0.0, 0.25), (0.25, 0.25), (0.5, 0.25), (0.75, 0.25)),
    }
    assert [rung.mode for rung in bridged[0].manifest.policy.ladder] == ["coarse"]
    assert "Modes: bypass, coarse, 1, 2, 4." in (bridged[0].folder / "MODEL_CARD.md").read_text()


def test_parity_is_checked_at_every_moment_of_the_schedules(
    bridged: tuple[Bundle, list[tuple[float, ...]]],
) -> None:
    bundle, seen = bridged
    used = {pair for pairs in bundle.manifest.restorer.schedules.values() for pair in pairs}
    assert len(used) == 8
    sizes = {each[:2] for each in seen}
    assert len(sizes) == 4
    assert sorted(seen) == sorted((*s, *pair) for s, pair in itertools.product(sizes, used))


def test_a_graph_that_is_wrong_on_the_bridge_alone_is_noticed(
    bridged_pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(OnnxEngine):
        """Right at time -1; ignores later times."""

        def run(self, inputs: Any) -> Any:
            if "time" in inputs and inputs["time"][0] >= 0.0:
                inputs = {**inputs, "time": np.array([-1.0], np.float32)}
            return super().run(inputs)

    monkeypatch.setattr(bundling, "OnnxEngine", Late)
    with pytest.raises(EngineError, match="restorer differs from torch: update"):
        export_bundle(*bridged_pair, tmp_path / "mine.rirf", progress=False)
    # The coarse leap is all that an older checkpoint is used for, and it is right.
    save_network(tmp_path / "older", tiny_restorer(), {})
    export_bundle(bridged_pair[0], tmp_path / "older", tmp_path / "old.rirf", progress=False)


@pytest.mark.parametrize(("mode", "steps"), [("coarse", 0), ("1", 1), ("2", 2), ("4", 4)])
def test_a_schedule_takes_the_steps_that_were_trained(
    bridged: tuple[Bundle, list[tuple[float, ...]]], mode: Any, steps: int
) -> None:
    bundle = bridged[0]
    graph = bundle.manifest.restorer
    frame = np.random.default_rng(steps).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    transmission = np.full((32, 48), 0.7, np.float32)
    with torch.no_grad():
        network = tiny_restorer()
        planes = np.ascontiguousarray(frame[..., ::-1].transpose(2, 0, 1))[None]
        batch = {
            "degraded": torch.from_numpy(planes) / 255.0,
            "transmission": torch.from_numpy(transmission)[None, None],
            "condition": torch.from_numpy(conditioning.encode(None))[None],
        }
        state = leap(network, batch, coarse(network, batch), steps)
    expected = (state[0].clamp(0, 1) * 255.0 + 0.5).byte().numpy().transpose(1, 2, 0)[..., ::-1]
    engine = OnnxEngine(bundle.path(graph), threads=1)
    got = restorer.restore(
        engine, frame, None, transmission, graph.schedules[mode], multiple=graph.multiple
    )
    engine.close()
    # Rounding may fall to the other side of a half.
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= 1
    assert np.abs(got.astype(int) - frame.astype(int)).max() > 1


def test_a_fitted_policy_is_kept_with_its_provenance(
    bridged_pair: tuple[Path, Path],
    bridged: tuple[Bundle, list[tuple[float, ...]]],
    tmp_path: Path,
) -> None:
    graphs = {name: bridged[0].manifest.files[name] for name in ("reasoner.onnx", "restorer.onnx")}
    policy = fitted("coarse", "2", graphs=graphs, cases=7)
    out = tmp_path / "mine.rirf"
    manifest = export_bundle(*bridged_pair, out, policy=policy, progress=False).manifest
    assert manifest.policy == policy.thresholds
    expected = {"graphs": graphs, "cases": 7, "fitted_on_these_graphs": True}
    assert manifest.provenance["policy"] == expected
    other = fitted("coarse", graphs={**graphs, "restorer.onnx": "0" * 64})
    bundle = export_bundle(*bridged_pair, out, policy=other, force=True, progress=False)
    assert bundle.manifest.provenance["policy"]["fitted_on_these_graphs"] is False
    assert "with another export than this one" in (out / "MODEL_CARD.md").read_text()


def test_a_policy_with_a_mode_the_restorer_cannot_do(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        BundleError, match=r"the policy uses 2, 4, this restorer can do coarse: .*train its bridge"
    ):
        export_bundle(
            *pair, tmp_path / "mine.rirf", policy=fitted("coarse", "2", "4"), progress=False
        )
    assert left(tmp_path) == []
