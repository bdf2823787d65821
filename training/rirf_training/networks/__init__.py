"""The edge pair's networks and their checkpoints; importable without the training loop."""

from rirf_training.networks.checkpoint import load_network, save_network
from rirf_training.networks.reasoner import Reasoner, ReasonerConfig
from rirf_training.networks.restorer import Restorer, RestorerConfig

__all__ = [
    "Reasoner",
    "ReasonerConfig",
    "Restorer",
    "RestorerConfig",
    "load_network",
    "save_network",
]
