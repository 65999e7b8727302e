"""Steering methods: activations of labelled texts in, vectors to add (or to ablate) out.

A plug-in is one file with `part` (the sites it reads: `resid`, or `head` for all heads), `choice_axis` (the grid axis beside alpha:
`site`, or `k`, a number of heads), `needs_pairs` (whether it reads contrast pairs), `is_ablation`, `is_scale_free` (default True: the
vectors are as large as the activations) and

    fit(data: TrainingActivations, *, ks: Sequence[int], where: TokenSelection) -> SteeringVectors

which must depend on `data` alone, so that it can be fitted again on permuted labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.activations.activations import activations_at_token
from ontogeny.data.templates import Template
from ontogeny.direction import Direction
from ontogeny.errors import BadInput, SingleClassError
from ontogeny.interventions import Add
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.probes import mass_mean
from ontogeny.sites import Site
from ontogeny.steering.log_likelihood import tokenize_answers
from ontogeny.steering.steer import Edit, ablate_everywhere
from ontogeny.steering.token_selection import TokenSelection

__all__ = [
    "ContrastPair",
    "SiteVector",
    "SteeringVectors",
    "TrainingActivations",
    "contrast_differences",
    "head_shifts",
    "mean_difference_vectors",
]

SiteVector = tuple[Site, Float[Tensor, " d"]]


@dataclass(frozen=True, eq=False)
class SteeringVectors:
    """Vectors of one method: for each choice of the grid, the sites and what is added there at alpha 1."""

    method: str
    choice_axis: str
    """`site`, or `k`, the number of heads."""
    shifts: Mapping[str, tuple[SiteVector, ...]]
    where: TokenSelection = "last"
    is_ablation: bool = False
    """The vector is ablated from the whole residual stream; alpha has no effect but at 0."""
    from_pairs: bool = False
    """Fitted on contrast pairs, not on labels."""
    origin: str = ""
    """Source of a direction that was fitted elsewhere."""
    fitted_on: str = ""
    """As of a `Direction`."""
    scale: str = "raw"
    facts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """`scale` and, for each choice, `facts` of a `Direction`."""

    def edits(self, model: Model, choice: str, alpha: float) -> list[Edit]:
        """The edits of one choice at one alpha."""
        shifts = self.shifts[choice]
        if self.is_ablation:
            return [Edit(e.site, e.what, self.where) for e in ablate_everywhere(model, shifts[0][1])] if alpha else []
        return [Edit(site, Add(vector, alpha), self.where) for site, vector in shifts]

    def directions(self, model: Model, origin: str, *, sign: str = "") -> list[Direction]:
        """One `Direction` per site; `origin` and `sign` describe its data and its positive end."""
        fingerprint, position = tokenizer_fingerprint(model), "answer" if self.from_pairs else "last"
        return [
            Direction(
                vector,
                site,
                f"{origin}/{self.method}",
                self.scale,
                position,
                dict(self.facts.get(choice, {})),
                sign,
                fingerprint,
            )
            for choice, ((site, vector), *_) in self.shifts.items()
        ]


@dataclass(frozen=True, eq=False)
class TrainingActivations:
    """Activations that every method is fitted on."""

    y: Bool[Tensor, " example"]
    groups: Int[Tensor, " example"]
    sites: Mapping[str, tuple[Site, ...]]
    """By part: `resid`, `head`."""
    activations: Mapping[str, Float[Tensor, "site example d"]]
    pair_differences: Float[Tensor, "resid pair d_resid"] | None = None
    """At the `resid` sites: `contrast_differences`; None without contrast pairs."""
    pair_groups: Int[Tensor, " pair"] | None = None

    def __post_init__(self) -> None:
        if self.y.all() or not self.y.any():
            raise SingleClassError("a steering vector", n=len(self.y), label=bool(self.y[0]))


def mean_difference_vectors(
    data: TrainingActivations, *, rows: int | None = None
) -> tuple[list[SiteVector], list[dict[str, float]]]:
    """At each `resid` site, the unit difference of the class means times the spread of the projections, with both lengths.

    Args:
        rows: The class means are those of the first `rows` examples; by default of all.
    """
    x, y = data.activations["resid"].double(), data.y[:rows]
    inside = x[:, :rows]
    difference = inside[:, y].mean(1) - inside[:, ~y].mean(1)
    gap = difference.norm(dim=1)
    unit = difference / gap[:, None].clamp(min=1e-12)
    spread = (x @ unit[:, :, None])[..., 0].std(1)
    facts = [{"gap": float(g), "std": float(s)} for g, s in zip(gap, spread, strict=True)]
    return list(zip(data.sites["resid"], (spread[:, None] * unit).float(), strict=True)), facts


def head_shifts(data: TrainingActivations, heads: Sequence[int]) -> list[SiteVector]:
    """At each of these `head` sites, the unit difference of the class means times the spread of the projections."""
    x, y = data.activations["head"][list(heads)], data.y
    axes = mass_mean.fit(x, y, groups=data.groups).direction[..., 0]
    axes = axes / axes.norm(dim=1, keepdim=True).clamp(min=1e-12)
    spread = (x.double() @ axes[..., None].double())[..., 0].std(1)
    sites = [data.sites["head"][i] for i in heads]
    return [(site, (s * axis).float()) for site, axis, s in zip(sites, axes, spread, strict=True)]


@dataclass(frozen=True)
class ContrastPair:
    """A prompt with one answer that shows a behaviour and one that does not."""

    prompt: str
    positive: str
    negative: str


def contrast_differences(
    model: Model, pairs: Sequence[ContrastPair], sites: Sequence[Site], *, template: Template = False
) -> Float[Tensor, "site pair d"]:
    """Activations of the positive minus the negative answer, at the first answer token on which the two differ.

    Args:
        template: In which each prompt is a user's turn; a model without its own is asked bare.

    Raises:
        BadInput: no pairs, or a pair whose answers are the same tokens.
    """
    if not pairs:
        raise BadInput("contrastive activation addition needs at least one pair, got none: add `pairs`.")
    sides = [
        tokenize_answers(model, [(p.prompt, getattr(p, side)) for p in pairs], template=template)
        for side in ("positive", "negative")
    ]
    tokens = []
    for pair, positive, negative in zip(pairs, *sides, strict=True):
        a, b = positive.ids.tolist(), negative.ids.tolist()
        if a == b:
            raise BadInput(f"the answers {pair.positive!r} and {pair.negative!r} are the same tokens: change one.")
        # Where one answer is the beginning of the other, its last token is compared.
        shorter = min(len(a), len(b))
        tokens.append(next((i for i in range(shorter) if a[i] != b[i]), shorter - 1))
    positive, negative = (activations_at_token(model, [a.ids for a in side], tokens, sites) for side in sides)
    return (positive - negative).double()
