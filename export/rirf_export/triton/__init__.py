"""A bundle as a model repository of NVIDIA's Triton Inference Server.

The server runs the two graphs; a third model in Python chains them with rirf's own pipeline. Knows
no network and needs no torch.
"""

from rirf_export.triton.config import PIPELINE, REASONER, RESTORER
from rirf_export.triton.repository import write_repository

__all__ = ["PIPELINE", "REASONER", "RESTORER", "write_repository"]
