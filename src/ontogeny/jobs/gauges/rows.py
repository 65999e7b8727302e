"""Records of one gauge of a pack: scores of both probes, calibration, and the effect of its control vector beside the null."""

import math
from collections.abc import Iterator
from typing import Any

from ontogeny.gauges.pack import PackedGauge
from ontogeny.measurements.rows import RowContext
from ontogeny.records import Record
from ontogeny.sites import Site


def gauge_rows(member: PackedGauge, seed: int) -> Iterator[Record]:
    """The records of one gauge."""
    gauge, check, numbers = member.gauge, member.check, member.numbers
    about = RowContext(gauge.label.concept, gauge.position, gauge.n, seed)
    sites = {"reading": gauge.site, "control": _best_control(member)}
    for key, tested in numbers["scores"].items():
        probe, _, place = key.partition(" at ")
        method = "logistic" if probe == "reading" else "mass_mean"
        shared: dict[str, Any] = {
            "method": method,
            "coords": {"probe": probe, "read_at": place},
            "reason": gauge.reason or "not finite",
        }
        ends = (_value(tested["low"]), _value(tested["high"]))
        yield about.row("gauge_auroc", _value(tested["auroc"]), sites[probe], interval=ends, **shared)
        yield about.row("gauge_accuracy", _value(tested["accuracy"]), sites[probe], **shared)
    for name, floor in gauge.floors.items():
        site = gauge.site if name == "random_direction" else None
        yield about.row("gauge_auroc", floor, site, control=name, reason="not measured", coords={"read_at": "reading"})
    calibrated: dict[str, Any] = {"method": member.calibration or "none", "reason": gauge.reason or "not calibrated"}
    yield about.row("gauge_ece", gauge.calibration_error, gauge.site, **calibrated)
    yield about.row("gauge_ece", gauge.calibration_noise, gauge.site, control="calibrated", **calibrated)
    for one in numbers.get("reliability", ()):
        ends = (_value(one["accuracy_low"]), _value(one["accuracy_high"]))
        own_bin: dict[str, Any] = {"n": one["n"], "coords": {"confidence": f"{one['confidence']:.6g}"}}
        yield about.row("gauge_reliability", one["accuracy"], gauge.site, interval=ends, **calibrated, **own_bin)
    yield about.row("gauge_cosine", _value(numbers["cosine"]), member.control_site, reason="a vector is not finite")
    steers = {"steers": 1.0, "does not steer": 0.0}.get(check.verdict, math.nan)
    yield about.row(
        "gauge_control_works",
        steers,
        member.control_site,
        n=check.questions,
        method="mass_mean",
        note=verdict_text(member),
    )
    for effect in check.effects:
        coords = {"towards": gauge.label.classes[effect.towards], "site": str(member.control_site)}
        own: dict[str, Any] = {
            "n": check.questions,
            "method": "mass_mean",
            "coords": coords,
            "reason": check.reason or "not measured",
        }
        yield about.row(
            "gauge_control_effect", effect.effect, member.control_site, interval=(effect.low, effect.high), **own
        )
        random = {**own, "n": check.controls, "control": "random_direction"}
        ends = (effect.random_low, effect.random_high)
        if check.controls:
            yield about.row("gauge_control_effect", effect.random, member.control_site, interval=ends, **random)
        yield about.row(
            "gauge_control_effect", effect.reading_effect, member.control_site, **{**own, "method": "logistic"}
        )
        yield about.row("gauge_control_p", effect.p, member.control_site, **own)
        yield about.row("gauge_control_kl", effect.kl, member.control_site, **own)
        yield about.row("gauge_control_kl", effect.random_kl, member.control_site, control="random_direction", **own)


def verdict_text(member: PackedGauge) -> str:
    """The verdict on a control vector with its numbers, in one line."""
    check, classes = member.check, member.gauge.label.classes
    effects = "; ".join(
        f"towards {classes[one.towards]} {one.effect:+.2f} [{one.low:+.2f}, {one.high:+.2f}] beyond random directions "
        f"({one.random_low:+.2f} to {one.random_high:+.2f}), KL {one.kl:.2f}"
        for one in check.effects
    )
    reason = f" ({check.reason})" if check.reason else ""
    return f"{check.verdict}{reason}{f': {effects}' if effects else ''}"


def _best_control(member: PackedGauge) -> Site:
    """The site at which the control vector reads the choose split best."""
    by_site = member.numbers["auroc_by_site"]
    return Site.parse(
        max(by_site, key=lambda name: by_site[name][1] if math.isfinite(_value(by_site[name][1])) else 0.0)
    )


def _value(number: float | None) -> float:
    return math.nan if number is None else float(number)
