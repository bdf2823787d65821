from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rirf.bundle import Bundle, Manifest
from rirf.policy import Policy
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


def group(images: int, predicted: float) -> dict[str, Any]:
    figures = {key: METRICS[key] for key in ("input", "true", "none", "shuffled")}
    return {"images": images, **figures, "predicted": {"psnr": predicted, "ssim": 0.5}}


# What rirf eval adds to the five means.
DETAILED: dict[str, Any] = {
    **METRICS,
    "per_dataset": {"bsds500": group(200, 18.5), "camvid": {"images": 0}},
    "per_degradation": {"fog": group(236, 16.86), "rain": group(236, 19.51)},
    "reasoner": {
        "fog": {
            "images_present": 236,
            "presence_accuracy": 0.986,
            "presence_f1": 0.9871,
            "severity_mae": 3.81,
            "interval_coverage": 0.92,
        },
        "shake": {
            "images_present": 227,
            "presence_accuracy": 0.667,
            "severity_mae": 9.72,
            "interval_coverage": 0.81,
        },
        "rain": {"images_present": 0, "presence_accuracy": 0.99, "severity_mae": None},
        "atmospheric_light_mae": 0.044,
        "transmission_mean_mae": None,
        "transmission_map_mae": 0.0402,
    },
    "clean": {
        "images": 21,
        "untouched": 14,
        "touched": {"psnr": 36.5, "ssim": 0.96},
        "worst": {"name": "x", "psnr": 31.25, "ssim": 0.9},
    },
    "undegraded": {"images": 433, "untouched": 433, "touched": None, "worst": None},
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
        "## Step policy",
        "## Training",
        "## Licence and use",
        "## Limits",
        "## Parity with torch",
    ]
    assert "research" in text
    assert "Modes: bypass, coarse." in text
    lines = text.splitlines() + card(manifest, metrics=DETAILED).splitlines()
    assert all(len(line) <= 100 for line in lines if not line.startswith("|"))


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


def test_every_figure_there_is(manifest: Manifest) -> None:
    text = card(manifest, metrics=DETAILED)
    lines = text.splitlines()
    assert "| bsds500 | 200 | 13.74 / 0.323 | 18.50 / 0.500 | 21.27 / 0.550 |" in text
    assert "| camvid | 0 | – | – | – | – | – |" in lines
    assert any(line.startswith("| fog | 236 | 13.74 / 0.323 | 16.86 / 0.500 |") for line in lines)
    assert "| fog | 236 | 98.6% | 0.987 | 3.8 | 92.0% |" in lines
    # An older record without F1, an effect that no image had, one that is not there at all.
    assert "| shake | 227 | 66.7% | – | 9.7 | 81.0% |" in lines
    assert "| rain | 0 | 99.0% | – | – | – |" in lines
    assert "| noise | – | – | – | – | – |" in lines
    assert "light 0.044, mean transmission –, transmission map 0.040." in text
    assert "- images that drew no effect: 14 of 21 came back untouched; the others at" in text
    assert "- all images, clean: 433 of 433 came back untouched\n" in text
    assert "By set" not in card(manifest, metrics=METRICS)


def test_the_figures_name_the_limits(manifest: Manifest) -> None:
    limits = card(manifest, metrics=DETAILED).split("## Limits\n")[1].split("## ")[0]
    assert "- Whether there is shake is judged worst: right in 66.7% of images." in limits
    assert "- Severity of shake is off by 9.7 points on average, the most." in limits
    assert "- Severity intervals are too narrow for shake (81%)." in limits
    assert "- Frames with fog come back worst, at 16.86 dB on average." in limits
    assert "undegraded images" not in limits  # all of them came back untouched
    older = {key: value for key, value in DETAILED.items() if key != "undegraded"}
    assert "- Of 21 undegraded images, 7 are changed, the worst to 31.2 dB." in card(
        manifest, metrics=older
    )
    unmeasured = model_card(manifest).split("## Limits\n")[1]
    assert unmeasured.startswith("\n- Trained on synthetic degradations")


def test_settings_of_every_run(manifest: Manifest) -> None:
    restorer = {
        "images": 768,
        "run": {
            "loop": {"steps": 9000, "batch": 8},
            "loss": {"pixel": "charbonnier", "ssim": 0.15, "frequency": 0.05, "teacher": 0.4},
            "bridge": {"share": 0.25, "weight": 0.5, "noise": 0.05},
            "network": {"channels": [8, 16], "without": []},
        },
        "reasoner_sha256": "a" * 64,
        "teacher_sha256": "b" * 64,
        "start_sha256": "",
    }
    reasoner = {"run": {"loop": {"steps": 70}}}
    text = card(
        manifest,
        provenance={**manifest.provenance, "restorer": restorer, "reasoner": reasoner},
    )
    assert "  - loss: charbonnier + 0.15 (1 - SSIM) + 0.05 frequency; 0.4 of it against the" in text
    assert "  - bridge: share 0.25 of each batch, weight 0.5, noise 0.05" in text
    assert f"  - teacher: SHA-256 {'b' * 16}\n" in text
    assert "  - start: random weights\n" in text
    assert f"  - diagnoses by reasoner: SHA-256 {'a' * 16}\n" in text
    assert "| `loop.steps` | 70 | 9000 |" in text
    assert "| `bridge.share` | – | 0.25 |" in text
    assert "| `network.channels` | – | 8 16 |" in text
    assert "| `network.without` | – | none |" in text


def test_settings_of_older_runs(manifest: Manifest) -> None:
    older = {"run": {"ssim_weight": 0.15}, "reasoner_sha256": ""}
    text = card(manifest, provenance={**manifest.provenance, "restorer": older})
    assert "  - loss: l1 + 0.15 (1 - SSIM)\n" in text
    assert "  - bridge: not recorded\n" in text
    assert "  - teacher: not recorded\n" in text
    assert "  - diagnoses by reasoner: none, the true ones alone\n" in text
    plain = {"run": {"loss": {"pixel": "l1", "ssim": 0}, "bridge": {"share": 0.0}}}
    text = card(manifest, provenance={**manifest.provenance, "restorer": plain})
    assert "  - loss: l1\n" in text
    assert "  - bridge: not trained\n" in text
    assert "Every setting" not in model_card(manifest)  # these checkpoints recorded none


def test_policy(manifest: Manifest) -> None:
    text = model_card(manifest)
    assert "untouched when the burden of every effect lies below\n6; else the total burden" in text
    assert "decides: `coarse` from 0.\n" in text
    data = {"bypass_below": 0.9, "ladder": manifest.policy.ladder}
    other = Policy.model_validate({**data, "bypass_by": "any_probability"})
    text = card(manifest, policy=other)
    assert "when the probability that there is any effect lies below\n0.9; else" in text
    assert "These are defaults, not fitted to this pair." in model_card(manifest)
    fitted = {
        "fitted_on_these_graphs": True,
        "bypass": {"clean_bypassed": 0.976, "degraded_bypassed": 0.012},
        "modes": {
            "coarse": {"kept": True, "verdict": "used"},
            "4": {"kept": False, "verdict": "too little"},
        },
    }
    text = card(manifest, provenance={**manifest.provenance, "policy": fitted})
    assert "97.6% of the clean frames and 1.2% of\nthe degraded ones bypassed." in text
    assert "- `4` is left out: too little\n" in text
    assert "used" not in text.split("## Step policy")[1].split("## ")[0]
    assert "another export" not in text
    older = {**fitted, "fitted_on_these_graphs": False}
    text = card(manifest, provenance={**manifest.provenance, "policy": older})
    assert "with another export than this one" in text
