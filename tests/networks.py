"""Networks small enough to train and export inside a test; needs torch."""

from __future__ import annotations

import torch

from rirf_training.networks import Reasoner, ReasonerConfig, Restorer, RestorerConfig

REASONER = ReasonerConfig(
    thumbnail_channels=(8, 8, 8, 16),
    crop_channels=(8, 8, 16),
    thumbnail_blocks=(1, 1, 1),
    hidden=16,
    tokens=16,
)
RESTORER = RestorerConfig(
    channels=(8, 16), blocks=(1, 1), decoder_blocks=(1,), kernels=(3, 5), condition=16
)


def stir(network: torch.nn.Module, seed: int = 0, scale: float = 0.1) -> None:
    """Fill the layers that start at zero, so that every input has a part in the output."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0.0, scale, generator=random)


def tiny_reasoner(seed: int = 0) -> Reasoner:
    """A small reasoner with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    network = Reasoner(REASONER)
    stir(network, seed)
    return network.eval()


def tiny_restorer(seed: int = 0, config: RestorerConfig = RESTORER) -> Restorer:
    """A small restorer with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    network = Restorer(config)
    stir(network, seed)
    return network.eval()
