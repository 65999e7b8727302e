"""Base class of interventions: mask, composition, equality by content, and the norm-matched control."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.direction import Direction, random_unit_vector
from ontogeny.errors import BadInput
from ontogeny.sites import Site

InterventionKind = Literal["activation", "attention", "weight"]


class Intervention:
    """A frozen edit. Subclasses are frozen dataclasses, equal if their fields are."""

    kind: ClassVar[InterventionKind] = "activation"

    @property
    def site(self) -> Site | None:
        """Site of the direction that it was made from; it is not part of the edit, and None for a plain vector."""
        return self.__dict__.get("_site")

    def at_site_of(self, *directions: Direction | Tensor) -> Self:
        """The same edit with the site that all these directions have, if they have one."""
        sites = {one.site if isinstance(one, Direction) else None for one in directions}
        object.__setattr__(self, "_site", sites.pop() if len(sites) == 1 else None)
        return self

    def __call__(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """`h` edited where the mask is True (everywhere without one), elsewhere `h` bit for bit."""
        return h if self.is_noop else apply_mask(mask, self.edit(h), h)

    def edit(self, h: Tensor) -> Tensor:
        """`h` with every token edited; for interventions without their own `__call__`."""
        raise NotImplementedError

    @property
    def is_noop(self) -> bool:
        """Whether it changes nothing, whatever its input."""
        return False

    @property
    def width(self) -> int | None:
        """Width of the activations it applies to; None for any."""
        return None

    def null(self, seed: int = 0) -> "Intervention":
        """The control: an edit of equal norm for each token, along one random direction."""
        return NormMatched(self, seed)

    def to(self, like: Tensor) -> Self:
        """A copy on the device and in the dtype of a tensor."""
        moved = {f.name: _move_to(getattr(self, f.name), like) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **moved)  # type: ignore[type-var]

    def __rshift__(self, after: "Intervention") -> "Intervention":
        if self.kind != after.kind:
            raise BadInput(
                f"chained edits must be of one kind, got {self.kind} and {after.kind}: list them one by one."
            )
        return Sequential((*_steps(self), *_steps(after)))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            _equal(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)  # type: ignore[arg-type]
        )

    def __hash__(self) -> int:
        return hash(type(self))


@dataclass(frozen=True, eq=False)
class Sequential(Intervention):
    """Interventions at one site, applied in order."""

    steps: tuple[Intervention, ...]

    @property
    def site(self) -> Site | None:
        """The site that all steps have, if they have one."""
        sites = {step.site for step in self.steps}
        return sites.pop() if len(sites) == 1 else None

    def __call__(
        self, h: Float[Tensor, "*rows d"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows d"]:
        for step in self.steps:
            h = h if step.is_noop else step(h, mask)
        return h

    @property
    def is_noop(self) -> bool:
        return all(step.is_noop for step in self.steps)

    @property
    def width(self) -> int | None:
        return next((step.width for step in self.steps if step.width is not None), None)


@dataclass(frozen=True, eq=False)
class NormMatched(Intervention):
    """The control of an edit: move each token by as much as the edit would, along one random direction."""

    intervention: Intervention
    seed: int = 0

    def __call__(
        self, h: Float[Tensor, "*rows d"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows d"]:
        change = self.intervention(h, mask) - h
        axis = random_unit_vector(h.shape[-1], self.seed).to(h)
        return apply_mask(mask, h + change.norm(dim=-1, keepdim=True) * axis, h)

    @property
    def is_noop(self) -> bool:
        return self.intervention.is_noop

    @property
    def width(self) -> int | None:
        return self.intervention.width


def apply_mask(mask: Tensor | None, edited: Tensor, h: Tensor) -> Tensor:
    """`edited` where the mask is True (everywhere without one), elsewhere `h` bit for bit."""
    return edited if mask is None else torch.where(mask[..., None], edited, h)


def as_vector(given: Direction | Tensor, what: str) -> Float[Tensor, " d"]:
    """The vector of a direction or a plain one; it must be finite."""
    vector = given.vector if isinstance(given, Direction) else given
    if vector.ndim != 1 or not torch.isfinite(vector).all():
        odd = "NaN" if vector.isnan().any() else "infinite ones: choose a smaller alpha"
        got = f"shape {tuple(vector.shape)}" if vector.ndim != 1 else odd
        raise BadInput(f"{what} needs one vector of finite numbers, got {got}.")
    return vector


def as_unit_vector(given: Direction | Tensor, what: str) -> Float[Tensor, " d"]:
    """The same, scaled to length 1."""
    vector = as_vector(given, what)
    if float(vector.norm()) == 0:
        raise BadInput(f"{what} needs a direction, got a vector of zeros.")
    axis: Tensor = vector / vector.norm()
    return axis


def _steps(one: Intervention) -> tuple[Intervention, ...]:
    return one.steps if isinstance(one, Sequential) else (one,)


def _move_to(part: Any, like: Tensor) -> Any:
    match part:
        case Tensor():
            return part.to(like) if part.is_floating_point() else part.to(like.device)
        case Intervention():
            return part.to(like)
        case tuple():
            return tuple(_move_to(one, like) for one in part)
    return part


def _equal(a: Any, b: Any) -> bool:
    same: Callable[[Any, Any], bool] = (
        torch.equal if isinstance(a, Tensor) and isinstance(b, Tensor) else lambda x, y: x == y
    )
    return bool(same(a, b))
