"""From a method's name to edits that are ready to scale: the same material, one choice (a site, or a number of heads), one alpha.

Every method is fitted on the fit side alone, and can be fitted again on labels that were permuted by group.
Methods: CAA (arXiv:2312.06681), the tracing paper's vector (arXiv:2402.19465), ITI (arXiv:2306.03341), ablation (arXiv:2406.11717).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.tokenization import encode_texts
from ontogeny.direction import Direction
from ontogeny.errors import BadInput, unknown_name
from ontogeny.interventions import Add
from ontogeny.jobs.evaluate.contrast_items import Splits
from ontogeny.models.model import Model
from ontogeny.probes import mass_mean
from ontogeny.sites import Site
from ontogeny.statistics.permutation import group_permutations
from ontogeny.steering.methods import caa as caa_of
from ontogeny.steering.methods.iti import head_accuracy
from ontogeny.steering.steer import Edit, ablate_everywhere, check_direction
from ontogeny.steering.token_selection import TokenSelection

STEERING_METHODS = ("tracing_vector", "caa", "iti", "ablate")
SiteVector = tuple[Site, Float[Tensor, " d"]]


@dataclass(frozen=True, eq=False)
class SteeringVectors:
    """What a method found, for each choice: where to add what, at alpha 1."""

    method: str
    axis: str
    """What is chosen: `site`, or `k`, the number of heads."""
    shifts: Mapping[str, tuple[SiteVector, ...]]
    where: TokenSelection = "last"
    ablates: bool = False
    """Take the direction out of the whole stream: there is no alpha."""
    origin: str = ""
    """Where a given direction was learned."""

    def edits(self, model: Model, choice: str, alpha: float) -> list[Edit]:
        """The edits of one choice at one alpha."""
        shifts = self.shifts[choice]
        if self.ablates:
            return [Edit(e.site, e.what, self.where) for e in ablate_everywhere(model, shifts[0][1])] if alpha else []
        return [Edit(site, Add(vector, alpha), self.where) for site, vector in shifts]


@dataclass(frozen=True, eq=False)
class TrainingActivations:
    """What a model shows of the fit side of a concept: what every method starts from."""

    concept: Concept
    sides: Splits
    y: Bool[Tensor, " example"]
    groups: Int[Tensor, " example"]
    sites: Mapping[str, tuple[Site, ...]]
    """By part: `resid`, `head`."""
    x: Mapping[str, Float[Tensor, "site example d"]]
    parting: Float[Tensor, "site pair d"] | None
    """Of the stream: the differences that contrastive activation addition averages; None where it is not asked for."""


def read_training_activations(
    model: Model, concept: Concept, sides: Splits, methods: Sequence[str], sites: str, *, extra: Sequence[Site] = ()
) -> TrainingActivations:
    """Read the fit side's texts once, at all sites that the methods need; `extra` are those of given directions."""
    wanted = [*model.sites(sites)] if any(m in ("tracing_vector", "caa", "ablate") for m in methods) else []
    stream = [site for site in wanted if site.part == "resid"]
    if wanted and len(stream) != len(wanted):
        raise BadInput(
            f"vectors are added to the stream: --sites takes resid.l, not {sites!r}. ITI looks at all heads."
        )
    heads = list(model.sites("head")) if "iti" in methods else []
    every = list(dict.fromkeys([*stream, *heads, *extra]))
    keep = sides.fit.tolist()
    chosen = tuple(concept.examples[i] for i in keep)
    seen = capture(model, _training_workload(model, concept, chosen), every)
    parting = None
    if "caa" in methods:
        pairs = [caa_of.ContrastPair(i.prompt, i.matching, i.other) for i in sides.fit_items]
        parting = caa_of.contrast_differences(model, pairs, stream)
    return TrainingActivations(
        concept,
        sides,
        concept.labels()[sides.fit],
        concept.group_ids()[sides.fit],
        {part: tuple(found) for part, found in seen.sites.items()},
        {part: values.float().cpu().clone() for part, values in seen.parts.items()},
        parting,
    )


def _training_workload(model: Model, concept: Concept, examples: Sequence[Example]) -> Workload:
    """Some of a concept's texts, each read at the concept's position."""
    spans = [e.span for e in examples]
    made = encode_texts(model.tokenizer, [e.text for e in examples], spans, template=concept.template)
    if long := [e for e in made if len(e.ids) > model.context]:
        raise BadInput(
            f"{len(long)} texts of {concept.name} are longer than the context of {model.context} tokens. Shorten them."
        )
    reads = tuple(ActivationRead(i, concept.position.weights(encoding)) for i, encoding in enumerate(made))
    content = tuple(torch.full((len(e.ids),), 1 / len(e.ids)) for e in made)
    return Workload(tuple(tuple(e.ids.tolist()) for e in made), reads, content=content)


def check_method(name: str) -> str:
    """The name, where there is such a method.

    Raises:
        BadInput: there is none.
    """
    if name not in STEERING_METHODS:
        raise unknown_name("method", name, STEERING_METHODS)
    return name


def fit_vectors(
    have: TrainingActivations, method: str, *, ks: Sequence[int] = (1, 2, 4, 8), where: TokenSelection = "last"
) -> SteeringVectors:
    """The recipe of a method.

    Raises:
        BadInput: no such method, or more heads wanted than the model has.
    """
    if check_method(method) == "iti":
        ranks = head_accuracy(have.x["head"], have.y, have.groups).argsort(descending=True, stable=True).tolist()
        return _fit_iti_vectors(have, ranks, ks, where)
    found = _fit_stream_vectors(have, method, where)
    # At the embedding of a full stop both classes are the same: there is nothing to add.
    kept = {choice: shifts for choice, shifts in found.shifts.items() if float(shifts[0][1].norm()) > 0}
    if not kept:
        raise BadInput(
            f"{have.concept.name}: both classes are the same at {', '.join(found.shifts)}. Name other --sites."
        )
    return replace(found, shifts=kept)


def refit_on_permuted_labels(
    have: TrainingActivations, real: SteeringVectors, *, samples: int, seed: int = 0
) -> list[SteeringVectors]:
    """The recipe fitted again on labels permuted by group, or for pairs on sides swapped by group; none for an ablation.

    Each is shorter than the real one as much as the difference that it found is smaller: at the same length it would be the real
    axis with a random sign wherever that axis holds most of the variance. An ablation has neither length nor sign.
    """
    if real.ablates:
        return []
    moved = group_permutations(have.y, have.groups, samples=samples, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    found = _class_differences(have, real, have.y, torch.ones(len(have.sides.fit_items)))
    made = []
    for labels in (have.y[one] for one in moved):
        again = _class_differences(have, real, labels, _pair_signs(have, generator))
        shifts = {
            choice: tuple(
                (site, null * (vector.norm() / was.norm().clamp(min=1e-12)))
                for (site, vector), was, null in zip(real.shifts[choice], found[choice], again[choice], strict=True)
            )
            for choice in real.shifts
        }
        made.append(replace(real, shifts=shifts))
    return made


def _class_differences(
    have: TrainingActivations, real: SteeringVectors, y: Bool[Tensor, " example"], signs: Float[Tensor, " pair"]
) -> dict[str, list[Float[Tensor, " d"]]]:
    """For each shift of a recipe, the difference of the classes at its site under some labels."""

    def at(site: Site) -> Tensor:
        place = have.sites[site.part].index(site)
        if real.method == "caa" and have.parting is not None:
            return (have.parting[place] * signs[:, None]).mean(0).float()
        x = have.x[site.part][place].double()
        return (x[y].mean(0) - x[~y].mean(0)).float()

    known = {site: at(site) for site in {site for shifts in real.shifts.values() for site, _ in shifts}}
    return {choice: [known[site] for site, _ in shifts] for choice, shifts in real.shifts.items()}


def from_direction(
    model: Model, direction: Direction, *, name: str = "given", where: TokenSelection = "last"
) -> SteeringVectors:
    """The recipe of a direction that was learned elsewhere: one site, its own length.

    Raises:
        BadInput: a direction of another width, site or tokenizer.
    """
    check_direction(model, direction)
    shifts = {str(direction.site): ((direction.site, direction.vector),)}
    return SteeringVectors(name, "site", shifts, where, origin=direction.origin)


def _fit_stream_vectors(have: TrainingActivations, method: str, where: TokenSelection) -> SteeringVectors:
    sites, y = have.sites["resid"], have.y
    if method == "caa":
        assert have.parting is not None
        vectors = list(have.parting.mean(1).float())
    else:
        x = have.x["resid"].double()
        difference = x[:, y].mean(1) - x[:, ~y].mean(1)
        unit = difference / difference.norm(dim=1, keepdim=True).clamp(min=1e-12)
        vectors = list(((x @ unit[:, :, None])[..., 0].std(1)[:, None] * unit).float())
    if method == "ablate":
        return SteeringVectors(
            method, "site", {str(s): ((s, v),) for s, v in zip(sites, vectors, strict=True)}, "all", True
        )
    return SteeringVectors(method, "site", {str(s): ((s, v),) for s, v in zip(sites, vectors, strict=True)}, where)


def _fit_iti_vectors(
    have: TrainingActivations, ranks: Sequence[int], ks: Sequence[int], where: TokenSelection
) -> SteeringVectors:
    if not ks or max(ks) > len(have.sites["head"]) or min(ks) < 1:
        raise BadInput(f"--k {','.join(map(str, ks))} does not fit: this model has {len(have.sites['head'])} heads.")
    best = list(ranks[: max(ks)])
    x = have.x["head"][best]
    vectors = mass_mean.fit(x, have.y, groups=have.groups).direction[..., 0]
    axes = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)
    spread = (x.double() @ axes[..., None].double())[..., 0].std(1)
    shifts = [(have.sites["head"][i], (s * a).float()) for i, a, s in zip(best, axes, spread, strict=True)]
    return SteeringVectors("iti", "k", {str(k): tuple(shifts[:k]) for k in ks}, where)


def _pair_signs(have: TrainingActivations, generator: torch.Generator) -> Float[Tensor, " pair"]:
    """+1 or −1 for each pair, the same inside a group."""
    names = list(dict.fromkeys(item.group for item in have.sides.fit_items))
    drawn = dict(zip(names, torch.randint(2, (len(names),), generator=generator).tolist(), strict=True))
    return torch.tensor([2.0 * drawn[item.group] - 1.0 for item in have.sides.fit_items])
