"""The diagnosis of a frame: what is wrong with it, how badly, with which physical parameters.

A validated, immutable model with two lossless forms: JSON (``to_json`` / ``from_json``, schema by
``Diagnosis.model_json_schema()``) and a regular text a person reads and a language-model restorer
is conditioned on (``to_text`` / ``from_text``). Knows no image and no network.
Source of the four components: R&R (arXiv 2604.09511), section 3.1.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from rirf.errors import DiagnosisError
from rirf.scene import CLASSES, check_scene

__all__ = [
    "EFFECTS",
    "SCHEMA_VERSION",
    "Diagnosis",
    "Effect",
    "FogDiagnosis",
    "NoiseDiagnosis",
    "RainDiagnosis",
    "ShakeDiagnosis",
    "SourceName",
]

SCHEMA_VERSION: Final = 1
EFFECTS = ("fog", "shake", "rain", "noise")
SourceName: TypeAlias = Literal["edge", "qwen3-vl", "cotir", "oracle", "user"]


def _plain_zero(value: float) -> float:
    # -0.0 equals 0.0 but prints differently: one spelling keeps text, JSON and equality in step.
    return value + 0.0


Finite = Annotated[float, AfterValidator(_plain_zero)]
Unit = Annotated[Finite, Field(ge=0.0, le=1.0)]
Score = Annotated[Finite, Field(ge=0.0, le=100.0)]
NonNegative = Annotated[Finite, Field(ge=0.0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Effect(_Frozen):
    """What every effect carries.

    Attributes:
        present: whether the effect is there; an absent one has severity 0, a present one 1 to 100.
        probability: the reasoner's calibrated probability that it is there.
        severity: 0 to 100.
        interval: (lower, upper) bounds of the severity, ``lower <= severity <= upper``. For an
            absent effect, upper says how bad it may still be.
    """

    present: bool
    probability: Unit
    severity: Score
    interval: tuple[Score, Score]

    @model_validator(mode="after")
    def _consistent(self) -> Effect:
        if self.present and self.severity < 1.0:
            raise ValueError(f"a present effect has a severity of 1 to 100, got {self.severity}")
        if not self.present and self.severity != 0.0:
            raise ValueError(f"an absent effect has severity 0, got {self.severity}")
        lower, upper = self.interval
        if not lower <= self.severity <= upper:
            raise ValueError(
                f"the interval {lower} to {upper} must contain the severity {self.severity}"
            )
        return self


class FogDiagnosis(Effect):
    """Fog: atmospheric light A (R, G, B in [0, 1]) and mean transmission, 1 without fog."""

    atmospheric_light: tuple[Unit, Unit, Unit]
    transmission_mean: Unit


class ShakeDiagnosis(Effect):
    """Motion blur: direction in [0, 180) counter-clockwise from the x axis, length, ||kernel||_2.

    The neutral kernel (no blur) has length 0 and energy 1.
    """

    direction_deg: Annotated[Finite, Field(ge=0.0, lt=180.0)]
    length_px: NonNegative
    energy: Unit


class RainDiagnosis(Effect):
    """Rain: seeds a pixel, covered share, slant from the vertical, streak size, opacity."""

    density: NonNegative
    coverage: Unit
    slant_deg: Annotated[Finite, Field(ge=-90.0, le=90.0)]
    length_px: NonNegative
    width_px: NonNegative
    opacity: Unit


class NoiseDiagnosis(Effect):
    """Noise: sigma(x) = |gain x + offset| in grey levels of 0..255."""

    gain: NonNegative
    offset: Finite


def _known_classes(value: dict[str, float]) -> dict[str, float]:
    unknown = sorted(set(value) - set(CLASSES))
    if unknown:
        raise ValueError(f"unknown classes {unknown}; known are {', '.join(CLASSES)}")
    if sum(value.values()) > 1.0 + 1e-3 * len(CLASSES):
        raise ValueError(f"shares of the frame add up to {sum(value.values()):.3f}, more than 1")
    return value


class Diagnosis(_Frozen):
    """The diagnosis of one frame; see the module's text.

    Attributes:
        fog, shake, rain, noise: the four effects.
        composition: share of the frame of each scene class (``rirf.scene.CLASSES``), empty when the
            scene is outside them or unknown.
        scene: description of the clean scene, at most 30 words and no degradation word, or "".
        source: who made it.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    source: SourceName
    fog: FogDiagnosis
    shake: ShakeDiagnosis
    rain: RainDiagnosis
    noise: NoiseDiagnosis
    composition: Annotated[dict[str, Unit], AfterValidator(_known_classes)] = Field(
        default_factory=dict
    )
    scene: str = ""

    @field_validator("scene")
    @classmethod
    def _scene_rule(cls, value: str) -> str:
        return check_scene(value)

    def effect(self, name: str) -> Effect:
        """The effect called ``fog``, ``shake``, ``rain`` or ``noise``."""
        if name not in EFFECTS:
            raise KeyError(f"no effect {name!r}; there are {', '.join(EFFECTS)}")
        effect: Effect = getattr(self, name)
        return effect

    def to_json(self, indent: int | None = None) -> str:
        """The JSON form."""
        return self.model_dump_json(indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Diagnosis:
        """Parse the JSON form.

        Raises:
            DiagnosisError: not JSON, or not a diagnosis of this schema.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise DiagnosisError(f"not a diagnosis of schema {SCHEMA_VERSION}: {error}") from error

    def to_text(self) -> str:
        """The text form: seven lines, one an effect, then composition and scene."""
        parts = ", ".join(f"{name} {_number(share)}" for name, share in self.composition.items())
        lines = [f"Diagnosis (schema {self.schema_version}, source {self.source})."]
        lines += [
            f"{name.capitalize()}: {_render_effect(self.effect(name))}; {_render(self, name)}."
            for name in EFFECTS
        ]
        lines += [f"Composition: {parts or 'unknown'}.", f"Scene: {self.scene}".rstrip()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Diagnosis:
        """Parse the text form.

        Raises:
            DiagnosisError: a line is missing or malformed (the message shows the line and the form
                it must have), or the values contradict each other.
        """
        lines = text.rstrip("\n").split("\n")
        if len(lines) != len(EFFECTS) + 3:
            raise DiagnosisError(
                f"expected {len(EFFECTS) + 3} lines (title, {', '.join(EFFECTS)}, composition, "
                f"scene), got {len(lines)}"
            )
        title = _match(_TITLE, lines[0], "Diagnosis (schema 1, source edge).")
        data: dict[str, Any] = {
            "schema_version": int(title["schema"]),
            "source": title["source"],
        }
        for name, line in zip(EFFECTS, lines[1:5], strict=True):
            data[name] = _parse_effect(name, line)
        shares = _match(_COMPOSITION, lines[5], "Composition: sky 0.3, road 0.2.")["shares"]
        data["composition"] = _parse_composition(shares)
        scene = _match(_SCENE, lines[6], "Scene: Sky above, road below.")["scene"]
        data["scene"] = scene or ""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise DiagnosisError(f"not a diagnosis of schema {SCHEMA_VERSION}: {error}") from error


def _number(value: float) -> str:
    # repr is the shortest text that parses back to the same float: this is what keeps it lossless.
    return repr(float(value))


def _render_effect(effect: Effect) -> str:
    state = "present" if effect.present else "absent"
    lower, upper = effect.interval
    return (
        f"{state} (probability {_number(effect.probability)}), severity {_number(effect.severity)} "
        f"of 100 (between {_number(lower)} and {_number(upper)})"
    )


def _render(diagnosis: Diagnosis, name: str) -> str:
    fields: dict[str, str] = {}
    for field, value in diagnosis.effect(name):
        numbers = value if isinstance(value, tuple) else (value,)
        if field not in Effect.model_fields:
            fields[field] = " ".join(_number(number) for number in numbers)
    return _TEMPLATES[name].format(**fields)


_TEMPLATES = {
    "fog": "atmospheric light {atmospheric_light} (red green blue), "
    "mean transmission {transmission_mean}",
    "shake": "direction {direction_deg} degrees, length {length_px} pixels, kernel energy {energy}",
    "rain": "density {density} a pixel, coverage {coverage}, slant {slant_deg} degrees, "
    "length {length_px} pixels, width {width_px} pixels, opacity {opacity}",
    "noise": "gain {gain}, offset {offset} grey levels",
}

# A digit has one place it can match: otherwise a long run of digits takes quadratic time to refuse.
_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_TITLE = re.compile(r"Diagnosis \(schema (?P<schema>[0-9]{1,9}), source (?P<source>[\w-]+)\)\.")
_COMPOSITION = re.compile(r"Composition: (?P<shares>.+)\.")
_SCENE = re.compile(r"Scene:(?: (?P<scene>\S.*))?")


def _effect_pattern(name: str) -> re.Pattern[str]:
    head = (
        rf"{name.capitalize()}: (?P<state>present|absent) "
        rf"\(probability (?P<probability>{_NUMBER})\), severity (?P<severity>{_NUMBER}) of 100 "
        rf"\(between (?P<lower>{_NUMBER}) and (?P<upper>{_NUMBER})\); "
    )
    template = re.escape(_TEMPLATES[name])
    for field in re.findall(r"\{(\w+)\}", _TEMPLATES[name]):
        many = rf"{_NUMBER}(?: {_NUMBER})*"
        template = template.replace(re.escape(f"{{{field}}}"), rf"(?P<{field}>{many})")
    return re.compile(head + template + r"\.")


_PATTERNS = {name: _effect_pattern(name) for name in EFFECTS}


def _match(pattern: re.Pattern[str], line: str, example: str) -> dict[str, str]:
    match = pattern.fullmatch(line)
    if match is None:
        raise DiagnosisError(f"got the line {line!r}; expected the form {example!r}")
    return match.groupdict()


def _parse_composition(shares: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in [] if shares == "unknown" else shares.split(", "):
        name, _, share = part.rpartition(" ")
        if name in found or re.fullmatch(_NUMBER, share) is None:
            raise DiagnosisError(
                f"got {part!r} in the composition {shares!r}; expected 'unknown' or each class "
                "once with its share, as in 'sky 0.3, road 0.2'"
            )
        found[name] = float(share)
    return found


def _parse_effect(name: str, line: str) -> dict[str, Any]:
    example = (
        f"{name.capitalize()}: present (probability 0.9), severity 40.0 of 100 "
        f"(between 30.0 and 50.0); {_TEMPLATES[name]}."
    )
    groups = _match(_PATTERNS[name], line, example)
    state, lower, upper = (groups.pop(key) for key in ("state", "lower", "upper"))
    values: dict[str, Any] = {}
    for key, text in groups.items():
        numbers = tuple(float(number) for number in text.split(" "))
        if not all(math.isfinite(number) for number in numbers):
            raise DiagnosisError(f"{name}: {key} {text!r} is not a finite number")
        values[key] = numbers if key == "atmospheric_light" else numbers[0]
        if key != "atmospheric_light" and len(numbers) != 1:
            raise DiagnosisError(f"{name}: {key} takes one number, got {text!r}")
    values["present"] = state == "present"
    values["interval"] = (float(lower), float(upper))
    return values
