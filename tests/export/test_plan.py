from __future__ import annotations

from pathlib import Path

import pytest

from rirf.errors import OutputError
from rirf.shapes import DEFAULT_SHAPES
from rirf_export.plan import Plan, PlanError, parse_list


def test_lists_keep_a_fixed_order_and_each_name_once() -> None:
    allowed = ("fp32", "fp16", "int8")
    assert parse_list("--precision", "int8, fp32,int8", allowed) == ("fp32", "int8")


@pytest.mark.parametrize("text", ["", "fp8", "fp32,", "fp32 fp16", "fp32,fp4"])
def test_lists_that_name_something_else(text: str) -> None:
    with pytest.raises(PlanError, match="expected one or more of fp32, fp16"):
        parse_list("--precision", text, ("fp32", "fp16"))


def test_a_bundle_a_precision() -> None:
    plan = Plan.of(Path("a/edge.rirf"), "int8,fp16", "onnx,tensorrt-rtx", None)
    assert plan.bundles == {
        "fp32": Path("a/edge.rirf"),
        "fp16": Path("a/edge-fp16.rirf"),
        "int8": Path("a/edge-int8.rirf"),
    }
    assert plan.lower == ("fp16", "int8")
    assert plan.libraries == ("tensorrt-rtx",)
    assert plan.shapes == DEFAULT_SHAPES


def test_the_plan_names_everything_that_will_be_made() -> None:
    text = Plan.of(Path("edge.rirf"), "int8", "tensorrt,onnx", "64x64:256x128:512x512").describe()
    lines = text.splitlines()
    assert [line.split()[0] for line in lines] == ["edge.rirf", "edge-int8.rirf", "cache/"]
    assert "what the others are held to" in lines[0]
    assert "quality gate against fp32" in lines[1]
    assert "tensorrt engines for 64x64:256x128:512x512" in lines[2]


def test_a_bundle_has_its_ending() -> None:
    with pytest.raises(OutputError, match=r"name ends in \.rirf"):
        Plan.of(Path("edge"), "fp32", "onnx", None)
