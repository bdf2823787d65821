"""Precision in the graph: fp32 to mixed fp16 and to INT8, what it costs measured on real frames.

Needs onnx and ONNX Runtime, never torch: a device rebuilds a graph from kept ranges alone.
"""

from rirf_export.precision.feeds import Feeds, Recording, degraded_frames, record
from rirf_export.precision.fp16 import Fp16Result, Island, rounding_twin, to_fp16
from rirf_export.precision.int8 import (
    CalibrationRanges,
    Calibrator,
    Int8Result,
    Sensitivity,
    calibrate,
    sensitivity,
    to_int8,
)
from rirf_export.precision.measure import Comparison

__all__ = [
    "CalibrationRanges",
    "Calibrator",
    "Comparison",
    "Feeds",
    "Fp16Result",
    "Int8Result",
    "Island",
    "Recording",
    "Sensitivity",
    "calibrate",
    "degraded_frames",
    "record",
    "rounding_twin",
    "sensitivity",
    "to_fp16",
    "to_int8",
]
