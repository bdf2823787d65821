"""Training data: clean image catalogues and rendered degradation draws."""

from rirf_training.data.catalog import Clean, find_clean
from rirf_training.data.draws import DrawSet, render

__all__ = ["Clean", "DrawSet", "find_clean", "render"]
