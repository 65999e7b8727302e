"""Gauge pack: calibrated gauges of one model with tested control vectors, as two files that any chat loads.

`gauges.safetensors` holds the vectors, `gauges.json` all else: the model, the tokenizer, the template, and for each concept its classes,
sites, numbers and verdict. The JSON names the SHA-256 of the tensors, which is verified on loading.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.data.positions import Position
from ontogeny.errors import BadInput
from ontogeny.gauges.control_check import ClassEffect, ControlCheck
from ontogeny.gauges.control_vector import ControlVector, class_vector
from ontogeny.gauges.gauge import CalibratedProbe, Gauge
from ontogeny.gauges.labels import GaugeLabel
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.sites import Site
from ontogeny.statistics.calibration_maps import calibration_from_json, calibration_json
from ontogeny.storage.files import read_tensors, write_json, write_tensors

PACK_FORMAT = "ontogeny-gauges-1"
PACK_FILE, TENSOR_FILE = "gauges.json", "gauges.safetensors"


@dataclass(frozen=True)
class PackModel:
    """The checkpoint that the gauges of a pack were fitted at."""

    name: str
    """Name of the lineage."""
    checkpoint: str
    stage: str
    step: int | None
    fingerprint: str
    """Of its weights, config and tokenizer."""
    tokenizer: str
    """Fingerprint of the tokenizer's vocabulary."""
    layers: int
    d: int

    @property
    def label(self) -> str:
        """The checkpoint in words."""
        return " ".join(part for part in (self.stage, self.checkpoint) if part)


@dataclass(frozen=True, eq=False)
class PackedGauge:
    """One gauge of a pack with its control vector."""

    gauge: Gauge
    control_site: Site
    direction: Float[Tensor, "d k"]
    """Mass-mean directions of the classes at the control site, k = 1 for two classes."""
    bias: Float[Tensor, " k"]
    gap: Float[Tensor, " k"]
    check: ControlCheck
    splits: Mapping[str, int]
    """Examples of train, choose and test."""
    calibration: str
    """Name of the calibration map."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """Scores of both probes at both positions, AUROC at every site, cosines, examples that were left out."""
    unit: str = ""
    """Names the work that made it; equal for equal work."""

    def control_vector(self, towards: int) -> ControlVector:
        """The control vector towards a class.

        Raises:
            BadInput: there is no such class, or its means coincide.
        """
        label = self.gauge.label
        if not 0 <= towards < len(label.classes):
            raise BadInput(
                f"`towards` must be a class of {label.concept}, from 0 to {len(label.classes) - 1}, got {towards}: change it."
            )
        origin = f"{label.concept}@{self.gauge.stage or 'model'}/mass_mean"
        return class_vector(self.gauge, towards, self.control_site, self.direction, self.bias, self.gap, origin=origin)


@dataclass(frozen=True, eq=False)
class GaugePack:
    """Gauges of one model, by concept."""

    model: PackModel
    template: str
    """The chat template in Jinja."""
    members: tuple[PackedGauge, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    """Date, versions, command, seed."""

    @property
    def gauges(self) -> list[Gauge]:
        """For `read_conversation`."""
        return [member.gauge for member in self.members]

    def member(self, concept: str) -> PackedGauge:
        """The gauge of a concept.

        Raises:
            BadInput: the pack lacks it.
        """
        for member in self.members:
            if member.gauge.label.concept == concept:
                return member
        known = ", ".join(member.gauge.label.concept for member in self.members)
        raise BadInput(f"the pack has gauges of {known}, got {concept[:60]!r}: choose among them.")

    def check_model(self, model: Model) -> None:
        """Raise BadInput if a model has another tokenizer, width or number of layers than the pack's."""
        for what, own, other in (
            ("tokenizer", self.model.tokenizer, tokenizer_fingerprint(model)),
            ("width", self.model.d, model.d),
            ("number of layers", self.model.layers, model.layers),
        ):
            if own != other:
                raise BadInput(
                    f"the model must have the {what} of the gauge pack, {own}, got {other}: fit gauges for it with `ontogeny gauges`."
                )


def save_gauges(pack: GaugePack, folder: str | Path) -> Path:
    """Write the two files of a pack; a pack that is there is replaced."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    tensors = dict[str, Tensor]()
    for number, member in enumerate(pack.members):
        tensors |= {f"{number}.{name}": getattr(member, name).float() for name in ("direction", "bias", "gap")}
        if (probe := member.gauge.probe) is not None:
            names = ("weight", "bias", "centres", "spreads", "counts")
            tensors |= {f"{number}.reading.{name}": getattr(probe, name) for name in names}
    write_tensors(place / TENSOR_FILE, tensors, {"format": PACK_FORMAT})
    content = {
        "format": PACK_FORMAT,
        "about": dict(pack.about),
        "model": asdict(pack.model),
        "template": pack.template,
        "tensors": {"file": TENSOR_FILE, "sha256": _sha256(place / TENSOR_FILE)},
        "gauges": [member_json(member) for member in pack.members],
    }
    write_json(place / PACK_FILE, _finite(content))
    return place / PACK_FILE


def load_gauges(folder: str | Path) -> GaugePack:
    """Read a gauge pack.

    Args:
        folder: Folder of `gauges.json` and `gauges.safetensors`.

    Raises:
        BadInput: there is no pack, it is damaged, or a newer version wrote it.
    """
    place = Path(folder)
    if not (place / PACK_FILE).is_file():
        raise BadInput(f"`gauges` must be a folder with {PACK_FILE}, got {folder}: make one with `ontogeny gauges`.")
    try:
        content = json.loads((place / PACK_FILE).read_text(encoding="utf-8"))
        form = content.get("format")
    except (OSError, ValueError, AttributeError, RecursionError):
        raise _damaged(place, "its JSON cannot be read") from None
    if form != PACK_FORMAT:
        raise BadInput(
            f"{place} has the format {str(form)[:60]!r}, and this version reads {PACK_FORMAT}: update ontogeny."
        )
    try:
        if not (place / TENSOR_FILE).is_file():
            raise _damaged(place, f"it has no {TENSOR_FILE}")
        if content["tensors"]["sha256"] != _sha256(place / TENSOR_FILE):
            raise _damaged(place, f"{TENSOR_FILE} is not the file that was written")
        tensors = read_tensors(place / TENSOR_FILE)
        model = PackModel(**content["model"])
        template = str(content["template"])
        members = tuple(
            _member(
                entry,
                {n.partition(".")[2]: t for n, t in tensors.items() if n.partition(".")[0] == str(number)},
                model,
                template,
            )
            for number, entry in enumerate(content["gauges"])
        )
        return GaugePack(model, template, members, dict(content["about"]))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        if isinstance(error, BadInput):
            raise
        raise _damaged(place, f"{type(error).__name__}: {str(error)[:80]}") from None


def member_json(member: PackedGauge) -> dict[str, Any]:
    """A gauge as `gauges.json` holds it, with None in the place of NaN."""
    gauge, probe = member.gauge, member.gauge.probe
    content: dict[str, Any] = {
        "concept": gauge.label.concept,
        "subject": gauge.label.subject,
        "classes": list(gauge.label.classes),
        "sensitive": gauge.label.sensitive,
        "suffix": gauge.label.suffix,
        "position": gauge.position,
        "splits": dict(member.splits),
        "reading": {
            "readable": probe is not None,
            "reason": gauge.reason,
            "site": str(gauge.site or ""),
            "method": gauge.method,
            "auroc": [gauge.auroc_low, gauge.auroc, gauge.auroc_high],
            "floors": dict(gauge.floors),
            "n": gauge.n,
            "groups": gauge.groups,
            "ece": gauge.calibration_error,
            "ece_noise": gauge.calibration_noise,
            "calibration": member.calibration,
            "calibration_parameters": None if probe is None else calibration_json(probe.calibration),
        },
        "control": {
            "site": str(member.control_site),
            "method": "mass_mean",
            **asdict(member.check),
        },
        "numbers": dict(member.numbers),
        "unit": member.unit,
    }
    finite: dict[str, Any] = _finite(content)
    return finite


def _member(entry: Mapping[str, Any], tensors: Mapping[str, Tensor], model: PackModel, template: str) -> PackedGauge:
    reading, control = entry["reading"], dict(entry["control"])
    label = GaugeLabel(
        str(entry["concept"]),
        "user" if entry["subject"] == "user" else "system",
        tuple(map(str, entry["classes"])),
        bool(entry["sensitive"]),
        str(entry["suffix"]),
    )
    columns = 1 if len(label.classes) == 2 else len(label.classes)
    probe = None
    if reading["readable"]:
        parts = {name: tensors[f"reading.{name}"] for name in ("weight", "bias", "centres", "spreads", "counts")}
        count = len(label.classes)
        shapes = ((model.d, columns), (columns,), (count, columns), (count, columns), (count,))
        for part, shape in zip(parts.values(), shapes, strict=True):
            _check_shape(part, shape)
        probe = CalibratedProbe(
            parts["weight"],
            parts["bias"],
            calibration_from_json(reading["calibration_parameters"]),
            parts["centres"],
            parts["spreads"],
            parts["counts"],
        )
    low, value, high = (_number(one) for one in reading["auroc"])
    gauge = Gauge(
        label,
        model.stage,
        model.step,
        str(entry["unit"]),
        str(Position.parse(str(entry["position"]))),
        template,
        model.tokenizer,
        Site.parse(reading["site"]) if reading["site"] else None,
        str(reading["method"]),
        value,
        low,
        high,
        {str(name): _number(floor) for name, floor in reading["floors"].items()},
        int(reading["n"]),
        int(reading["groups"]),
        _number(reading["ece"]),
        _number(reading["ece_noise"]),
        probe,
        str(reading["reason"]),
    )
    for name, shape in (("direction", (model.d, columns)), ("bias", (columns,)), ("gap", (columns,))):
        _check_shape(tensors[name], shape)
    site = Site.parse(str(control.pop("site")))
    control.pop("method")
    effects = tuple(_effect(one) for one in control.pop("effects"))
    judged = tuple(_number(one) for one in control.pop("judge_auroc"))
    check = ControlCheck(**control, judge_auroc=judged, effects=effects)  # type: ignore[arg-type]
    return PackedGauge(
        gauge,
        site,
        tensors["direction"],
        tensors["bias"],
        tensors["gap"],
        check,
        {str(k): int(v) for k, v in entry["splits"].items()},
        str(reading["calibration"]),
        dict(entry["numbers"]),
        str(entry["unit"]),
    )


def _effect(entry: Mapping[str, Any]) -> ClassEffect:
    towards = int(entry["towards"])
    return ClassEffect(towards, **{name: _number(value) for name, value in entry.items() if name != "towards"})


def _check_shape(tensor: Tensor, shape: Sequence[int]) -> None:
    if tuple(tensor.shape) != tuple(shape) or not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"a vector has the shape {tuple(tensor.shape)}, or a number that is not finite")


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _finite(content: Any) -> Any:
    """The content with None in the place of NaN and infinities, which JSON does not have."""
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _damaged(place: Path, why: str) -> BadInput:
    return BadInput(f"{place} is not a whole gauge pack ({why}): write it again with `ontogeny gauges`.")
