from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from rirf.errors import BundleError
from rirf_training.networks import Reasoner, Restorer, load_network, save_network
from tests.networks import tiny_reasoner, tiny_restorer
from tests.sdk.pictures import files_below


@pytest.fixture
def folder(tiny_checkpoints: Path, tmp_path: Path) -> Path:
    """A copy of a restorer's checkpoint, to be damaged."""
    return Path(shutil.copytree(tiny_checkpoints / "restorer", tmp_path / "restorer"))


@pytest.mark.parametrize("network", [tiny_reasoner(3), tiny_restorer(3)])
def test_round_trip(tmp_path: Path, network: Reasoner | Restorer) -> None:
    provenance = {"images": 3, "run": {"seed": 0}}
    network.train()
    save_network(tmp_path / "new" / "run", network, provenance)
    loaded, stored = load_network(tmp_path / "new" / "run")
    assert stored == provenance
    assert type(loaded) is type(network)
    assert loaded.config == network.config
    assert not loaded.training
    weights = loaded.state_dict()
    assert weights.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(weights[name], value), name


def test_the_memory_layout_of_training_does_not_matter(tmp_path: Path) -> None:
    network = tiny_restorer()
    save_network(tmp_path / "plain", network, {})
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stub
    save_network(tmp_path / "last", network, {})
    plain, last = (tmp_path / name / "model.safetensors" for name in ("plain", "last"))
    assert plain.read_bytes() == last.read_bytes()


def test_saving_again_replaces(folder: Path) -> None:
    save_network(folder, tiny_reasoner(), {"second": True})
    network, provenance = load_network(folder)
    assert isinstance(network, Reasoner)
    assert provenance == {"second": True}
    assert files_below(folder) == ["config.json", "model.safetensors"]


def refuses(folder: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        load_network(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refuses(folder, "is no checkpoint this version can read .*as written by rirf train")


def test_no_folder(tmp_path: Path) -> None:
    refuses(tmp_path / "none", "is no checkpoint")


@pytest.mark.parametrize("data", [b"", b"x" * 100, None])
def test_corrupt_weights(folder: Path, data: bytes | None) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-64] if data is None else data)
    refuses(folder, "is no checkpoint")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "{}", '{"network": []}', '{"network": "restorer"}', '{"network": null}'],
)
def test_a_corrupt_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refuses(folder, "is no checkpoint")


def test_an_unknown_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"network": {"kind": "painter"}}')
    refuses(folder, "network kind 'painter' is unknown; expected reasoner or restorer")


@pytest.mark.parametrize(
    "change", [{"channels": [8, 24]}, {"condition": 0.5}, {"colour": "red"}, {"blocks": [2, 1]}]
)
def test_weights_of_another_network(folder: Path, change: dict[str, object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["network"].update(change)
    (folder / "config.json").write_text(json.dumps(config))
    refuses(folder, "is no checkpoint")


def test_the_other_kinds_weights(folder: Path, tiny_checkpoints: Path) -> None:
    shutil.copy(tiny_checkpoints / "reasoner" / "model.safetensors", folder)
    refuses(folder, "is no checkpoint")
