from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from rirf.bundle import MANIFEST, Bundle, file_digest
from rirf.errors import BundleError, EngineError, OutputError
from rirf_export.bundling import BYPASS_BELOW, COARSE, export_bundle
from rirf_export.parity import PARITY_MIN_DB
from rirf_training.networks import Reasoner, load_network, save_network
from tests.networks import RESTORER, tiny_reasoner
from tests.sdk.pictures import files_below

FILES = ["MODEL_CARD.md", MANIFEST, "reasoner.onnx", "restorer.onnx"]


@pytest.fixture
def pair(tiny_checkpoints: Path) -> tuple[Path, Path]:
    return tiny_checkpoints / "reasoner", tiny_checkpoints / "restorer"


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
    assert manifest.restorer.schedules == {"coarse": COARSE}
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
