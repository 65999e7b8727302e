"""Load finished units from disk, in training order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.measurements.design import Design
from ontogeny.sites import Site
from ontogeny.storage.run import Run


@dataclass(frozen=True)
class MeasuredCheckpoint:
    """One concept at one checkpoint."""

    checkpoint: str
    stage: str
    step: int | None
    tokens: float | None
    revision: str | None
    train_seed: int | None
    order: int
    """Position in training, over all stages."""
    unit: str
    sites: dict[str, list[Site]]
    """Sites of each part, in the order of its tensors."""
    methods: list[str]


@dataclass(frozen=True)
class BestSite:
    """Site and probe that read a concept best on the training groups of the last checkpoint; the same for all steps."""

    method: str
    site: Site
    at: int
    """Index among the sites of its part."""

    @property
    def part(self) -> str:
        return self.site.part


def measured_checkpoints(run: Run, concept: str) -> list[MeasuredCheckpoint]:
    """Every checkpoint of the run at which the concept was measured, in training order.

    Raises:
        BadInput: a header does not describe a unit.
    """
    visits: list[MeasuredCheckpoint] = []
    parsed: dict[tuple[str, ...], list[Site]] = {}
    for unit, header in run.headers().items():
        if header["concept"] == concept:
            try:
                visits.append(_measured_checkpoint(unit, header, parsed))
            except (KeyError, TypeError, AttributeError, BadInput):
                raise BadInput(
                    f"the header of {run.folder / 'directions' / unit}.safetensors is invalid: "
                    "remove the file and the part of its name in records/, and trace again."
                ) from None
    return sorted(visits, key=lambda visit: visit.order)


def _measured_checkpoint(
    unit: str, header: Mapping[str, Any], parsed: dict[tuple[str, ...], list[Site]]
) -> MeasuredCheckpoint:
    sites = {}
    for part, names in header["sites"].items():
        # Checkpoints with the same sites share a list.
        key = tuple(names)
        if key not in parsed:
            parsed[key] = [Site.parse(name) for name in names]
        sites[part] = parsed[key]
    fields = ("checkpoint", "stage", "step", "tokens", "revision", "train_seed", "order")
    if not isinstance(header["order"], int):
        raise TypeError("no order")
    return MeasuredCheckpoint(
        unit=unit, sites=sites, methods=list(header["methods"]), **{name: header[name] for name in fields}
    )


def common_methods(visits: Sequence[MeasuredCheckpoint]) -> list[str]:
    """Probes that were fitted at every checkpoint."""
    return [method for method in visits[0].methods if all(method in visit.methods for visit in visits)]


def one_fold_readout(
    run: Run, design: Design, unit: str, method: str, part: str, at: int
) -> tuple[Float[Tensor, " d"], float]:
    """Direction and bias of a probe that was not fitted on the test examples of `design.one_fold()`.

    Under cross-fitting that is the probe of the first fold, which units keep for the parts with the best site; else the probe itself.

    Args:
        at: Index of the site in its part.
    """
    names = ("direction", "bias")
    if design.test_folds is None:
        keys = [f"{method}/{part}/{name}" for name in names]
        direction, bias = (run.directions(unit, keys)[key][at] for key in keys)
        return direction[:, 0].float(), float(bias[0])
    keys = [f"{method}/{part}/folds/{name}" for name in names]
    direction, bias = (run.directions(unit, keys)[key][at] for key in keys)
    return direction[:, 0].float(), float(bias[0])
