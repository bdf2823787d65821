"""Semi-real-world degradation: fog, shake, rain, noise (R&R, arXiv 2604.09511, Eq. 1 and A.2).

One module a physical effect (sample parameters, apply, severity), a chain in the paper's order, and
depth priors for the fog. Randomness is counter-based, see :mod:`rirf.degradation.philox`. The
arithmetic runs on NumPy or on the native kernels, see :mod:`rirf.degradation.backends`.
"""

from rirf.degradation.backends import Backend, select_backend
from rirf.degradation.chain import Degraded, degrade
from rirf.degradation.depth import FilePrior, LabelPrior, StandingPrior, geometric, prior_from_depth
from rirf.degradation.fog import FogParameters
from rirf.degradation.noise import NoiseParameters
from rirf.degradation.rain import RainParameters
from rirf.degradation.recipe import Recipe, sample_recipe
from rirf.degradation.shake import ShakeParameters

__all__ = [
    "Backend",
    "Degraded",
    "FilePrior",
    "FogParameters",
    "LabelPrior",
    "NoiseParameters",
    "RainParameters",
    "Recipe",
    "ShakeParameters",
    "StandingPrior",
    "degrade",
    "geometric",
    "prior_from_depth",
    "sample_recipe",
    "select_backend",
]
