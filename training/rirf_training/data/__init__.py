"""Training data: clean image catalogues, rendered degradation draws, and draws made afresh."""

from rirf_training.data.catalog import Clean, find_clean
from rirf_training.data.draw import Draw
from rirf_training.data.draws import DrawSet, render
from rirf_training.data.fresh import FreshDraws, Order

__all__ = ["Clean", "Draw", "DrawSet", "FreshDraws", "Order", "find_clean", "render"]
