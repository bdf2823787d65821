"""The model card of a bundle: what it is, how good it is, what it must not be used for.

Says only what the manifest holds: figures that were not measured and settings that were not
recorded are named as such, or left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rirf.bundle import Manifest
from rirf.diagnosis import EFFECTS
from rirf.policy import Summary

__all__ = ["model_card"]

_CONDITIONS = ("input", "predicted", "true", "none", "shuffled")
# Of the 90 % intervals: coverage below this is named among the limits.
_COVERAGE_MIN = 0.87
_SUMMARIES: dict[Summary, str] = {
    "worst_burden": "the burden of every effect",
    "total_burden": "the total burden",
    "any_probability": "the probability that there is any effect",
}
_UNKNOWN = "not recorded"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _number(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "–"


def _pair(figures: Mapping[str, Any] | None) -> str:
    if not figures:
        return "–"
    return f"{figures['psnr']:.2f} / {figures['ssim']:.3f}"


def _section(tree: Any, *keys: str) -> Mapping[str, Any]:
    """A section of nested mappings, empty where there is none."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, Mapping) else {}


def _quality(metrics: dict[str, Any]) -> str:
    if not metrics:
        return "Not evaluated when it was exported; run `rirf eval`."
    parts = [f"Protocol {metrics['protocol']}, {metrics['images']} images (`rirf eval`):"]
    rows = [
        [key, f"{metrics[key]['psnr']:.2f}", f"{metrics[key]['ssim']:.3f}"] for key in _CONDITIONS
    ]
    parts.append(_table(["condition", "PSNR dB", "SSIM"], rows))
    groups = {**_section(metrics, "per_dataset"), **_section(metrics, "per_degradation")}
    if groups:
        rows = [
            [name, str(group["images"]), *(_pair(group.get(key)) for key in _CONDITIONS)]
            for name, group in groups.items()
        ]
        parts.append("By set, and by effect where it is present, PSNR dB / SSIM:")
        parts.append(_table(["", "images", *_CONDITIONS], rows))
    parts += _reasoner(_section(metrics, "reasoner"))
    parts += _untouched(metrics)
    return "\n\n".join(parts)


def _reasoner(figures: Mapping[str, Any]) -> list[str]:
    if not figures:
        return []
    rows = []
    for name in EFFECTS:
        found = _section(figures, name)
        rows.append(
            [
                name,
                _number(found.get("images_present"), "d"),
                _number(found.get("presence_accuracy"), ".1%"),
                _number(found.get("presence_f1"), ".3f"),
                _number(found.get("severity_mae"), ".1f"),
                _number(found.get("interval_coverage"), ".1%"),
            ]
        )
    head = ["effect", "present in", "presence right", "F1", "severity MAE", "interval coverage"]
    fog = (
        f"In fog, mean absolute errors: atmospheric light "
        f"{_number(figures.get('atmospheric_light_mae'), '.3f')}, mean transmission "
        f"{_number(figures.get('transmission_mean_mae'), '.3f')}, transmission map "
        f"{_number(figures.get('transmission_map_mae'), '.3f')}."
    )
    text = (
        "The reasoner's diagnoses; severities are in points of 0 to 100, intervals are meant to\n"
        "cover 90 %:"
    )
    return [text, _table(head, rows), fog]


def _untouched(metrics: dict[str, Any]) -> list[str]:
    lines = []
    for key, title in (
        ("clean", "images that drew no effect"),
        ("undegraded", "all images, clean"),
    ):
        found = _section(metrics, key)
        if not found.get("images"):
            continue
        line = f"- {title}: {found['untouched']} of {found['images']} came back untouched"
        if found.get("touched"):
            worst = found["worst"]
            line += f"; the others at {_pair(found['touched'])},\n  the worst at {_pair(worst)}"
        lines.append(line)
    return ["Do no harm:\n\n" + "\n".join(lines)] if lines else []


def _parity_table(parity: dict[str, dict[str, float | None]]) -> str:
    rows = []
    for kind, outputs in parity.items():
        for name, decibels in outputs.items():
            rows.append([kind, name, "equal" if decibels is None else f"{decibels:.1f}"])
    return _table(["graph", "output", "signal over error, dB"], rows)


def _policy(manifest: Manifest) -> str:
    policy = manifest.policy
    rungs = [f"`{rung.mode}` from {rung.above:g}" for rung in policy.ladder]
    text = (
        f"A frame is returned untouched when {_SUMMARIES[policy.bypass_by]} lies below\n"
        f"{policy.bypass_below:g}; else the total burden (of all effects, probability times upper "
        f"severity bound)\ndecides: {', '.join(rungs)}."
    )
    fitted = _section(manifest.provenance, "policy")
    if not fitted:
        return f"{text}\nThese are defaults, not fitted to this pair."
    text += "\nFitted on validation draws (`benchmarks/step_policy.py`)"
    if fitted.get("fitted_on_these_graphs") is False:
        text += " with another export than this one"
    bypass = _section(fitted, "bypass")
    clean, degraded = bypass.get("clean_bypassed"), bypass.get("degraded_bypassed")
    if clean is not None and degraded is not None:
        text += (
            f": {clean:.1%} of the clean frames and {degraded:.1%} of\nthe degraded ones bypassed"
        )
    text += "."
    left_out = [
        f"- `{mode}` is left out: {found['verdict']}"
        for mode, found in _section(fitted, "modes").items()
        if not found.get("kept") and "verdict" in found
    ]
    return text + ("\n\n" + "\n".join(left_out) if left_out else "")


def _source(provenance: Mapping[str, Any], key: str, none: str) -> str:
    """A checkpoint that a run used, by its digest."""
    digest = provenance.get(f"{key}_sha256")
    if digest is None:
        return _UNKNOWN
    return f"SHA-256 {digest[:16]}" if digest else none


def _loss(run: Mapping[str, Any], taught: bool) -> str:
    loss = _section(run, "loss")
    if not loss:
        weight = run.get("ssim_weight")
        return _UNKNOWN if weight is None else f"l1 + {weight:g} (1 - SSIM)"
    terms = [str(loss.get("pixel", "?"))]
    if loss.get("ssim"):
        terms.append(f"{loss['ssim']:g} (1 - SSIM)")
    if loss.get("frequency"):
        terms.append(f"{loss['frequency']:g} frequency")
    text = " + ".join(terms)
    return f"{text}; {loss.get('teacher', '?')} of it against the teacher" if taught else text


def _bridge(run: Mapping[str, Any]) -> str:
    bridge = _section(run, "bridge")
    if not bridge:
        return _UNKNOWN
    if not bridge.get("share"):
        return "not trained"
    return (
        f"share {bridge['share']:g} of each batch, weight {bridge.get('weight', '?')}, "
        f"noise {bridge.get('noise', '?')}"
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as ``section.key`` with their values as text."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, list | tuple):
            found[f"{prefix}{key}"] = " ".join(map(str, value)) or "none"
        else:
            found[f"{prefix}{key}"] = str(value)
    return found


def _training(provenance: Mapping[str, Any]) -> str:
    lines = []
    for kind in ("reasoner", "restorer"):
        loop = _section(provenance, kind, "run", "loop")
        lines.append(
            f"- {kind}: {loop.get('steps', '?')} steps of {loop.get('batch', '?')} samples from "
            f"{_section(provenance, kind).get('images', '?')} clean images"
        )
    restorer = _section(provenance, "restorer")
    run = _section(restorer, "run")
    lines += [
        f"  - loss: {_loss(run, bool(restorer.get('teacher_sha256')))}",
        f"  - bridge: {_bridge(run)}",
        f"  - teacher: {_source(restorer, 'teacher', 'none')}",
        f"  - start: {_source(restorer, 'start', 'random weights')}",
        f"  - diagnoses by reasoner: {_source(restorer, 'reasoner', 'none, the true ones alone')}",
    ]
    settings = {kind: _flat(_section(provenance, kind, "run")) for kind in ("reasoner", "restorer")}
    keys = dict.fromkeys(key for each in settings.values() for key in each)
    if not keys:
        return "\n".join(lines)
    rows = [[f"`{key}`", *(each.get(key, "–") for each in settings.values())] for key in keys]
    table = _table(["setting", *settings], rows)
    return "\n".join(lines) + f"\n\nEvery setting of the two runs:\n\n{table}"


def _measured_limits(metrics: dict[str, Any]) -> list[str]:
    """Limits that the figures show."""
    limits = []
    effects = _section(metrics, "reasoner")
    found = {name: _section(effects, name) for name in EFFECTS}
    right = {
        name: value
        for name, each in found.items()
        if (value := each.get("presence_accuracy")) is not None
    }
    if right:
        name = min(right, key=lambda each: right[each])
        limits.append(
            f"Whether there is {name} is judged worst: right in {right[name]:.1%} of images."
        )
    errors = {
        name: value
        for name, each in found.items()
        if (value := each.get("severity_mae")) is not None
    }
    if errors:
        name = max(errors, key=lambda each: errors[each])
        limits.append(
            f"Severity of {name} is off by {errors[name]:.1f} points on average, the most."
        )
    narrow = [
        f"{name} ({value:.0%})"
        for name, each in found.items()
        if (value := each.get("interval_coverage")) is not None and value < _COVERAGE_MIN
    ]
    if narrow:
        limits.append(f"Severity intervals are too narrow for {', '.join(narrow)}.")
    groups = {
        name: group["predicted"]["psnr"]
        for name, group in _section(metrics, "per_degradation").items()
        if "predicted" in group
    }
    if groups:
        name = min(groups, key=lambda each: groups[each])
        limits.append(f"Frames with {name} come back worst, at {groups[name]:.2f} dB on average.")
    clean = _section(metrics, "undegraded") or _section(metrics, "clean")
    if clean.get("touched"):
        limits.append(
            f"Of {clean['images']} undegraded images, {clean['images'] - clean['untouched']} are "
            f"changed, the worst to {clean['worst']['psnr']:.1f} dB."
        )
    return limits


def _lowered(provenance: Mapping[str, Any]) -> str:
    """What a lower precision than fp32 was found to cost."""
    parts = []
    for precision, found in _section(provenance, "precision").items():
        gate = _section(found, "gate")
        if not gate:
            continue
        limits = gate["limits"]
        parts.append(
            f"This pair computes in {precision}; the figures further below are of the fp32 pair it "
            f"was made from. On {gate['images']} images of the protocol it loses "
            f"{gate['loss_db']:.3f} dB against that one (at most {limits['loss_db']:g} is allowed) "
            f"and agrees on {gate['agreement']:.1%} of the presence flags (at least "
            f"{limits['agreement']:.0%}). Its outputs against torch, on real frames (at least "
            f"{limits['parity_db']:.0f} dB):"
        )
        parts.append(_parity_table(found["parity_db"]))
    return "".join(f"{part}\n\n" for part in parts)


def model_card(manifest: Manifest) -> str:
    """Markdown text of the card."""
    modes = ", ".join(("bypass", *manifest.restorer.schedules))
    measured = "".join(f"- {limit}\n" for limit in _measured_limits(manifest.metrics))
    return f"""# {manifest.name}

An edge pair of rirf: a reasoner ({manifest.reasoner.parameters / 1e6:.2f} M parameters) that
diagnoses fog, shake, rain and noise in a frame, and a restorer
({manifest.restorer.parameters / 1e6:.2f} M parameters) that rebuilds the frame with that diagnosis.
Modes: {modes}. Precision: {manifest.reasoner.precision} / {manifest.restorer.precision}.

## Quality

{_lowered(manifest.provenance)}{_quality(manifest.metrics)}

## Step policy

{_policy(manifest)}

## Training

{_training(manifest.provenance)}

Degradations come from rirf's own semi-real-world model (fog, shake, rain, noise, mixed). The pair
that ships with rirf was trained on the train and val splits of CamVid (Brostow, Fauqueur and
Cipolla 2008) and BSDS500 (Arbelaez et al. 2011), and is reported on their test splits.

## Licence and use

The code is Apache-2.0. Both data sets are for research and non-commercial use, and weights trained
on them inherit those terms: research only. For a product, train on images you have the rights to
(`rirf train`).

## Limits

{measured}- Trained on synthetic degradations; real fog, rain and noise differ from the model.
- The scene classes are street classes; other scenes are described by colour and detail alone.
- Restored texture is an estimate. Do not use it as evidence or for measurement.
- Snow, low light, compression, defocus and dirt on the lens are neither diagnosed nor restored.
- Where it fails: `docs/images/failures.png` in rirf's source shows the worst restorations of some
  photographs for the pair that ships; `python docs/make_figures.py --failures FILE.png --bundle
  BUNDLE` draws the picture for any other.

## Parity with torch

Every output exported in fp32 against the torch network, the restorer's at every time and step of
its schedules; export fails below {manifest.provenance["parity_min_db"]:.0f} dB.

{_parity_table(manifest.provenance["parity_db"])}
"""
