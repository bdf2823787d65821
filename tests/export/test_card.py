from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rirf.bundle import Bundle, Manifest
from rirf_export.card import model_card

METRICS: dict[str, Any] = {
    "protocol": "v1",
    "images": 433,
    "input": {"psnr": 13.741, "ssim": 0.3234},
    "predicted": {"psnr": 19.312, "ssim": 0.5151},
    "true": {"psnr": 21.266, "ssim": 0.5498},
    "none": {"psnr": 16.9, "ssim": 0.461},
    "shuffled": {"psnr": 16.0, "ssim": 0.44},
}


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Manifest:
    return Bundle.open(tiny_bundle).manifest


def card(manifest: Manifest, **changes: Any) -> str:
    return model_card(manifest.model_copy(update=changes))


def test_the_bundle_holds_its_card(manifest: Manifest, tiny_bundle: Path) -> None:
    assert (tiny_bundle / "MODEL_CARD.md").read_text() == model_card(manifest)


def test_sections(manifest: Manifest) -> None:
    text = model_card(manifest)
    assert text.startswith("# tiny\n")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Quality",
        "## Training",
        "## Licence and use",
        "## Limits",
        "## Parity with torch",
    ]
    assert "research" in text
    assert "Modes: bypass, coarse." in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_metrics(manifest: Manifest) -> None:
    assert "Not evaluated when it was exported; run `rirf eval`." in model_card(manifest)
    text = card(manifest, metrics=METRICS)
    assert "Protocol v1, 433 images" in text
    assert "| input | 13.74 | 0.323 |" in text
    assert "| predicted | 19.31 | 0.515 |" in text
    assert "Not evaluated" not in text


def test_training_provenance(manifest: Manifest) -> None:
    run = {"images": 768, "run": {"loop": {"steps": 1600, "batch": 32}}}
    text = card(manifest, provenance={**manifest.provenance, "reasoner": run})
    assert "- reasoner: 1600 steps of 32 samples from 768 clean images" in text
    # What is not known is not made up.
    assert "- restorer: ? steps of ? samples from 1 clean images" in text


def test_parity(manifest: Manifest) -> None:
    parity = {"reasoner": {"presence": 123.46, "street": None}, "restorer": {"update": 99.0}}
    text = card(manifest, provenance={**manifest.provenance, "parity_db": parity})
    assert "| reasoner | presence | 123.5 |" in text
    assert "| reasoner | street | equal |" in text
    assert "| restorer | update | 99.0 |" in text


def test_sizes(manifest: Manifest) -> None:
    reasoner = manifest.reasoner.model_copy(update={"parameters": 2_190_000})
    assert "a reasoner (2.19 M parameters)" in card(manifest, reasoner=reasoner)
