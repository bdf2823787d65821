"""Training data: clean image catalogues, rendered and fresh degradation draws, recorded outputs."""

from rirf_training.data.catalog import Clean, find_clean
from rirf_training.data.draw import Draw
from rirf_training.data.draws import DrawSet, render
from rirf_training.data.fresh import FreshDraws, Order
from rirf_training.data.recorded import Pair, RecordedPairs

__all__ = [
    "Clean",
    "Draw",
    "DrawSet",
    "FreshDraws",
    "Order",
    "Pair",
    "RecordedPairs",
    "find_clean",
    "render",
]
