"""Finished units as their files tell them, in developmental order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ontogeny.errors import BadInput
from ontogeny.sites import Site
from ontogeny.storage.files import read_tensor_header
from ontogeny.storage.run import UNIT_HEADER_KEYS, Run


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
    """Grows along development, over stages too."""
    unit: str
    sites: dict[str, list[Site]]
    """Sites by part, in the order of the tensors."""
    methods: list[str]


@dataclass(frozen=True)
class BestSite:
    """Where a concept is read: chosen on train at the last checkpoint, then the same for all steps."""

    method: str
    site: Site
    at: int
    """Place among the sites of its part."""

    @property
    def part(self) -> str:
        return self.site.part


def measured_checkpoints(run: Run, concept: str) -> list[MeasuredCheckpoint]:
    """Every checkpoint of the run at which the concept was measured, also by earlier sessions, in developmental order."""
    found = []
    for path in (run.folder / "directions").glob("*.safetensors"):
        header = read_tensor_header(path, UNIT_HEADER_KEYS)
        if header["concept"] == concept and run.done(path.stem):
            try:
                found.append(_measured_checkpoint(path.stem, header))
            except (KeyError, TypeError, AttributeError, BadInput):
                raise BadInput(
                    f"the header of {path} says something else than was measured. Remove it and the part of its name in "
                    "records/, and trace again."
                ) from None
    return sorted(found, key=lambda visit: visit.order)


def _measured_checkpoint(unit: str, header: Mapping[str, Any]) -> MeasuredCheckpoint:
    sites = {part: [Site.parse(name) for name in names] for part, names in header["sites"].items()}
    fields = ("checkpoint", "stage", "step", "tokens", "revision", "train_seed", "order")
    if not isinstance(header["order"], int):
        raise TypeError("no order")
    return MeasuredCheckpoint(
        unit=unit, sites=sites, methods=list(header["methods"]), **{name: header[name] for name in fields}
    )


def common_methods(visits: Sequence[MeasuredCheckpoint]) -> list[str]:
    return [method for method in visits[0].methods if all(method in visit.methods for visit in visits)]
