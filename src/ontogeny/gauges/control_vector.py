"""Control vector: the mass-mean direction of a concept at a checkpoint, by which an attribute is pushed or held.

It is another object than the reading probe: the probe that reads best is not the vector that steers best (arXiv:2406.07882).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.direction import Direction
from ontogeny.errors import BadInput
from ontogeny.gauges.gauge import Gauge
from ontogeny.gauges.pin import Pin
from ontogeny.interventions import Add, Clamp
from ontogeny.sites import Site
from ontogeny.steering.steer import Edit
from ontogeny.storage.run import Run

_METHOD = "mass_mean"


@dataclass(frozen=True, eq=False)
class ControlVector:
    """A direction towards one class, with the projections of the class means."""

    direction: Direction
    """Of length 1."""
    gap: float
    """Distance of the means of the class and of all others, in units of the activations."""
    middle: float
    """The projection half-way between them."""

    def edit(self, pin: Pin) -> Edit:
        """The edit that a pin asks for; it acts on the last token of the prompt and on every later one."""
        if pin.hold:
            return Edit(self.direction.site, Clamp.to_value(self.direction, self.middle + self.gap / 2), "last")
        return Edit(self.direction.site, Add(self.direction, pin.gaps * self.gap), "last")


def control_vector(run: Run, gauge: Gauge, towards: int, site: str = "") -> ControlVector:
    """The control vector of a gauge's concept at its checkpoint.

    Args:
        towards: The class that it points to, from 0.
        site: Where it acts; by default as `control_site` says.

    Raises:
        BadInput: the gauge is not readable, there is no such class or site, or no mass-mean direction was traced.
    """
    if gauge.site is None or gauge.probe is None:
        raise BadInput(
            f"{gauge.label.concept} cannot be pinned where it is not readable ({gauge.reason}): remove the pin."
        )
    if not 0 <= towards < len(gauge.label.classes):
        raise BadInput(
            f"`towards` must be a class of {gauge.label.concept}, from 0 to {len(gauge.label.classes) - 1}, got {towards}: change it."
        )
    header, place = run.headers()[gauge.unit], Site.parse(site) if site else control_site(run, gauge)
    if _METHOD not in header["methods"]:
        raise BadInput(f"{gauge.label.concept} has no {_METHOD} direction to steer by: trace it with `fits` {_METHOD}.")
    known = header["sites"].get(place.part, [])
    if str(place) not in known:
        traced = ", ".join(name for names in header["sites"].values() for name in names)
        raise BadInput(f"`site` must be one that was traced ({traced[:200]}), got {place}: choose another one.")
    key, at = f"{_METHOD}/{place.part}", known.index(str(place))
    tensors = run.directions(gauge.unit, [f"{key}/direction", f"{key}/bias", f"{key}/facts/gap"])
    readout = (tensors[f"{key}/{name}"][at].float() for name in ("direction", "bias", "facts/gap"))
    origin = f"{gauge.label.concept}@{header['checkpoint']}/{_METHOD}"
    return class_vector(gauge, towards, place, *readout, origin=origin)


def class_vector(
    gauge: Gauge,
    towards: int,
    site: Site,
    direction: Float[Tensor, "d k"],
    bias: Float[Tensor, " k"],
    gap: Float[Tensor, " k"],
    *,
    origin: str,
) -> ControlVector:
    """The control vector towards one class, from the mass-mean directions of all classes at a site.

    Raises:
        BadInput: the means of the class and of the others coincide.
    """
    columns = direction.shape[-1]
    column, sign = (towards, 1.0) if columns > 1 else (0, 1.0 if towards == 1 else -1.0)
    vector: Float[Tensor, " d"] = sign * direction[:, column]
    middle, distance = float(bias[column]), float(gap.flatten()[column])
    if not bool(torch.isfinite(vector).all()):
        raise BadInput(f"the class means of {gauge.label.concept} coincide at {site}: remove the pin.")
    named = gauge.label.classes[towards]
    facts = {"gap": distance}
    unit = Direction(vector, site, origin, "unit", gauge.position, facts, named, gauge.tokenizer)
    return ControlVector(unit, distance, -sign * middle)


def control_site(run: Run, gauge: Gauge) -> Site:
    """Where a concept is pushed unless another site is named: the traced site of the stream nearest to three quarters of the depth.

    The site that is read best need not be one at which a push changes an answer: after the first block a class may be read perfectly from
    a word that later blocks have looked at already. Without sites of the stream it is the gauge's own.
    """
    stream = [Site.parse(name) for name in run.headers()[gauge.unit]["sites"].get("resid", ())]
    if not stream:
        assert gauge.site is not None
        return gauge.site
    return usual_control_site(stream)


def usual_control_site(stream: Sequence[Site]) -> Site:
    """The site of the stream nearest to three quarters of the depth."""
    wanted = 0.75 * max(site.layer for site in stream)
    return min(stream, key=lambda site: (abs(site.layer - wanted), site.layer))
