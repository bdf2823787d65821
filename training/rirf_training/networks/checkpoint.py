"""Checkpoints: a folder with ``model.safetensors`` and ``config.json`` (network, provenance)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from rirf.errors import BundleError
from rirf.files import write_atomic
from rirf_training.networks.reasoner import Reasoner, ReasonerConfig
from rirf_training.networks.restorer import Restorer, RestorerConfig

__all__ = ["load_network", "save_network"]


def save_network(folder: Path, network: Reasoner | Restorer, provenance: dict[str, Any]) -> None:
    """Write the network's weights and config; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    write_atomic(folder / "model.safetensors", save(weights))
    config = {"network": network.config.model_dump(mode="json"), "provenance": provenance}
    write_atomic(folder / "config.json", json.dumps(config, indent=2).encode())


def load_network(folder: Path) -> tuple[Reasoner | Restorer, dict[str, Any]]:
    """Load a checkpoint folder: the network in evaluation mode, and its provenance.

    Raises:
        BundleError: a file is missing or does not fit.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        described = config["network"]
        kind = described.get("kind")
        network: Reasoner | Restorer
        if kind == "reasoner":
            network = Reasoner(ReasonerConfig.model_validate(described))
        elif kind == "restorer":
            network = Restorer(RestorerConfig.model_validate(described))
        else:
            raise BundleError(
                f"{folder}: network kind {kind!r} is unknown; expected reasoner or restorer"
            )
        network.load_state_dict(load_file(folder / "model.safetensors"))
    except (
        OSError,
        AttributeError,  # JSON, but no object where one belongs
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        ValidationError,
        SafetensorError,
    ) as error:
        raise BundleError(
            f"{folder} is no checkpoint this version can read ({error}); expected config.json and "
            "model.safetensors as written by rirf train"
        ) from error
    network.eval()
    return network, dict(config.get("provenance", {}))
