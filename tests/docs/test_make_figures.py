"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

import rirf
from rirf import conditioning
from rirf.degradation import degrade, fog, noise, rain, shake
from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.images import to_float, to_uint8
from rirf.scene import banned_words

pytestmark = pytest.mark.lean

DOCS = Path(__file__).resolve().parents[2] / "docs"
HOW_TO_MEND = "out of date; run: python docs/make_figures.py --text"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    # By its path: `docs` may be the name of some installed package.
    spec = importlib.util.spec_from_file_location("rirf_docs_figures", DOCS / "make_figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "diagnosis.md").read_text(encoding="utf-8")


def fenced(page: str, language: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def test_conditioning_table_is_current(figures: ModuleType, page: str) -> None:
    assert figures.with_table(page) == page, HOW_TO_MEND
    rows = re.findall(r"^\| (\d+) \| `([\w.]+)` \| (.+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert [(int(i), name, unit, float(s)) for i, name, unit, s in rows] == [
        (entry.index, entry.name, entry.unit, entry.scale) for entry in conditioning.TABLE
    ]
    assert f"(version {conditioning.VERSION})" in page


def test_an_old_table_is_replaced_and_a_page_without_markers_refused(figures: ModuleType) -> None:
    old = f"a\n{figures.TABLE_BEGIN}\n| old |\n{figures.TABLE_END}\nb\n"
    new = figures.with_table(old)
    assert "| old |" not in new
    assert new.startswith("a\n") and new.endswith("\nb\n")
    assert figures.conditioning_table() in new
    with pytest.raises(ValueError, match="expected the lines"):
        figures.with_table("a page without a table")


def test_schema_is_current(figures: ModuleType) -> None:
    stored = json.loads((DOCS / "diagnosis.schema.json").read_text(encoding="utf-8"))
    assert stored == json.loads(figures.schema()), HOW_TO_MEND
    assert set(stored["properties"]) == set(Diagnosis.model_fields)


def test_both_examples_are_one_diagnosis(page: str) -> None:
    from_json = Diagnosis.from_json(fenced(page, "json"))
    text = fenced(page, "text")
    assert from_json.to_text() == text
    assert Diagnosis.from_text(text) == from_json


def test_scene_rule_examples(page: str) -> None:
    rule = page.split("## The scene rule")[1].split("\n## ", maxsplit=1)[0]
    passing = rule.split("A stem counts only")[1].split("*Grained*", maxsplit=1)[0]
    words = re.findall(r"\*(\w+)\*", passing)
    assert len(words) >= 8
    assert [word for word in words if banned_words(word)] == []
    refused = " ".join(re.findall(r"^- (?!the)(.*)$", rule, re.MULTILINE))
    for word in re.split(r"[,;] ?| *\. *", refused):
        assert not word or banned_words(word) == [word]
    assert banned_words("dehazed unblurred grained") == ["dehazed", "unblurred", "grained"]


@pytest.mark.parametrize(
    ("parameter", "low_high"),
    [
        ("fog | β", fog.BETA_RANGE),
        ("fog, rain | atmospheric light A", fog.LIGHT_RANGE),
        ("shake | steps", shake.STEPS_RANGE),
        ("shake | step size", shake.STEP_RANGE_PX),
        ("rain | density", rain.DENSITY_RANGE),
        ("rain | slant", rain.SLANT_RANGE_DEG),
        ("rain | length", rain.LENGTH_RANGE_PX),
        ("rain | width", rain.WIDTH_RANGE_PX),
        ("rain | opacity", rain.OPACITY_RANGE),
        ("noise | gain k", noise.GAIN_RANGE),
        ("noise | offset b", noise.OFFSET_RANGE),
    ],
)
def test_documented_ranges_are_drawn(parameter: str, low_high: tuple[float, float]) -> None:
    text = (DOCS / "degradation.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith(f"| {parameter} |")]
    assert len(rows) == 1
    drawn = (
        rows[0].split("|")[4].replace("−", "-").replace("5·10⁻⁴", "5e-4").replace("10⁻²", "1e-2")
    )
    assert tuple(float(n) for n in re.findall(r"-?\d[\d.]*(?:e-?\d+)?", drawn)[:2]) == low_high


def test_the_picture_is_the_one_the_script_draws(figures: ModuleType) -> None:
    pytest.importorskip("skimage", reason="the photo comes with scikit-image")
    stored = cv2.imread(str(DOCS / "images" / "degradation.png"), cv2.IMREAD_COLOR)
    assert stored is not None
    drawn = figures.degradation_picture()
    assert stored.shape == drawn.shape
    # Loose: the photo is a JPEG and the titles are drawn by whatever OpenCV is installed.
    assert np.abs(stored.astype(int) - drawn.astype(int)).mean() < 2.0


def test_failures_are_chosen_by_the_rule(figures: ModuleType, shipped: Path) -> None:
    measured = pytest.importorskip("skimage.metrics", reason="PSNR and the photos are its")
    data = pytest.importorskip("skimage.data")
    photos = {name: getattr(data, name)()[:96, :128, ::-1] for name in ("astronaut", "coffee")}
    photos["chelsea"] = data.chelsea()[60:156, 80:208, ::-1]
    psnr: dict[str, dict[int, float]] = {name: {} for name in photos}
    with rirf.load(shipped, threads=1) as pipeline:
        found = figures.worst_restorations(pipeline, photos, range(20, 26), 2)
        for name, photo in photos.items():
            clean = np.ascontiguousarray(photo)
            for seed in range(20, 26):
                degraded = degrade(to_float(clean), seed)
                if any(degraded.diagnosis.effect(effect).present for effect in EFFECTS):
                    image = pipeline(to_uint8(degraded.image)).image
                    psnr[name][seed] = measured.peak_signal_noise_ratio(clean, image)
    worst = {name: min(each, key=lambda seed: each[seed]) for name, each in psnr.items()}
    order = sorted(worst, key=lambda name: psnr[name][worst[name]])[:2]
    assert [(each.photo, each.seed) for each in found] == [(name, worst[name]) for name in order]
    for each in found:
        assert each.after.psnr == pytest.approx(psnr[each.photo][each.seed], abs=1e-3)
        assert each.truth.source == "oracle" and each.prediction.source == "edge"

    picture = figures.failures_picture(found, "the rule")
    width, height = figures.PANEL
    row = height + 2 * figures.TITLE_HEIGHT
    assert picture.shape == (figures.TITLE_HEIGHT + 2 * row, 3 * width + 12, 3)
    # Row by row the input, the restored and the clean frame, in BGR.
    for place, each in enumerate(found):
        top = 2 * figures.TITLE_HEIGHT + place * row
        for column, image in enumerate((each.frame, each.restored, each.clean)):
            left = column * (width + 6)
            panel = picture[top : top + height, left : left + width]
            assert (panel[:, :23] == 255).all()
            shown = cv2.resize(panel[:, 23:396], (128, 96), interpolation=cv2.INTER_AREA)
            # Scaling up and down softens the noise: compared without it.
            difference = cv2.blur(shown, (5, 5)).astype(int) - cv2.blur(image, (5, 5))
            assert np.abs(difference).mean() < 3.0
