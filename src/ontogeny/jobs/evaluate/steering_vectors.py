"""Fit steering vectors by method name, and fit them again on permuted labels; all on the fit split alone."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.templates import template_of
from ontogeny.data.tokenization import encode_texts
from ontogeny.direction import Direction
from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.plugins import load_plugin
from ontogeny.sites import Site
from ontogeny.statistics.permutation import group_permutations
from ontogeny.steering.methods import ContrastPair, SteeringVectors, TrainingActivations, contrast_differences
from ontogeny.steering.steer import check_direction
from ontogeny.steering.token_selection import TokenSelection
from ontogeny.tasks.contrast_items import Splits, item_group_ids


def read_training_activations(
    model: Model, concept: Concept, splits: Splits, methods: Sequence[str], sites: str, *, extra: Sequence[Site] = ()
) -> TrainingActivations:
    """Run the texts of the fit split once and read all sites that the methods need, and those of given directions (`extra`)."""
    modules = [load_plugin("steering/methods", name) for name in methods]
    parts = {module.part for module in modules}
    stream = [*model.sites(sites)] if "resid" in parts else []
    if any(site.part != "resid" for site in stream):
        raise BadInput(
            f"`sites` must be sites of the residual stream such as resid.3, got {sites!r}. iti reads all heads."
        )
    heads = [*model.sites("head")] if "head" in parts else []
    captured = capture_workload(
        model,
        _training_workload(model, concept, [concept.examples[i] for i in splits.fit.tolist()]),
        list(dict.fromkeys([*stream, *heads, *extra])),
    )
    differences = None
    if any(module.needs_pairs for module in modules):
        pairs = [ContrastPair(item.prompt, item.matching, item.other) for item in splits.fit_items]
        differences = contrast_differences(model, pairs, stream, template=concept.template)
    return TrainingActivations(
        concept.labels()[splits.fit],
        concept.group_ids()[splits.fit],
        {part: tuple(read) for part, read in captured.sites.items()},
        {part: values.float().cpu().clone() for part, values in captured.parts.items()},
        differences,
        item_group_ids(splits.fit_items),
    )


def _training_workload(model: Model, concept: Concept, examples: Sequence[Example]) -> Workload:
    """The texts of some examples, each read at the concept's position."""
    spans = [e.span for e in examples]
    template = template_of(model.tokenizer, concept.template)
    encodings = encode_texts(
        model.tokenizer, [e.text for e in examples], spans, template=template, chats=[e.chat for e in examples]
    )
    if long := [e for e in encodings if len(e.ids) > model.context]:
        raise BadInput(
            f"texts of {concept.name} must have at most {model.context} tokens, got {len(long)} longer ones: shorten them."
        )
    reads = tuple(ActivationRead(i, concept.position.weights(encoding)) for i, encoding in enumerate(encodings))
    return Workload(tuple(tuple(e.ids.tolist()) for e in encodings), reads)


def fit_vectors(
    data: TrainingActivations, method: str, *, ks: Sequence[int] = (1, 2, 4, 8), where: TokenSelection = "last"
) -> SteeringVectors:
    """The vectors of a method, by its plug-in's name.

    Raises:
        BadInput: no such method, `ks` above the number of heads, or classes that are equal at all sites.
    """
    vectors: SteeringVectors = load_plugin("steering/methods", method).fit(data, ks=ks, where=where)
    if vectors.choice_axis != "site":
        return vectors
    # At the embedding of a full stop both classes are the same: there is nothing to add.
    shifts = {choice: shifts for choice, shifts in vectors.shifts.items() if float(shifts[0][1].norm()) > 0}
    if not shifts:
        raise BadInput(f"`sites` must be sites at which the classes differ, got {', '.join(vectors.shifts)}.")
    return replace(vectors, shifts=shifts)


def from_direction(
    model: Model, direction: Direction, *, name: str = "given", where: TokenSelection = "last"
) -> SteeringVectors:
    """A direction that was fitted elsewhere, at its site and with its length.

    Raises:
        BadInput: a direction of another width, site or tokenizer.
    """
    check_direction(model, direction)
    shifts = {str(direction.site): ((direction.site, direction.vector),)}
    return SteeringVectors(name, "site", shifts, where, origin=direction.origin, fitted_on=direction.fitted_on)


def refit_on_permuted_labels(
    data: TrainingActivations, real: SteeringVectors, *, samples: int, seed: int = 0
) -> list[SteeringVectors]:
    """Vectors fitted on labels permuted by group, or on pairs swapped by group; empty for an ablation, which has no length or sign.

    The length of each is that of the real vector, scaled by the ratio of the class differences: at equal length it would be the real
    axis with a random sign wherever that axis holds most of the variance.
    """
    if real.is_ablation:
        return []
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.zeros(1, dtype=torch.long) if data.pair_groups is None else data.pair_groups
    differences = _class_differences(data, real, data.y, torch.ones(len(pairs)))
    refits = []
    for permutation in group_permutations(data.y, data.groups, samples=samples, seed=seed):
        signs = 2.0 * torch.randint(2, (int(pairs.max()) + 1,), generator=generator)[pairs] - 1.0
        nulls = _class_differences(data, real, data.y[permutation], signs)
        shifts = {
            choice: tuple(
                (site, null * (vector.norm() / difference.norm().clamp(min=1e-12)))
                for (site, vector), difference, null in zip(
                    real.shifts[choice], differences[choice], nulls[choice], strict=True
                )
            )
            for choice in real.shifts
        }
        refits.append(replace(real, shifts=shifts))
    return refits


def _class_differences(
    data: TrainingActivations, real: SteeringVectors, y: Bool[Tensor, " example"], signs: Float[Tensor, " pair"]
) -> dict[str, list[Float[Tensor, " d"]]]:
    """For each shift, the difference of the class means at its site under the given labels, or of pairs with the given signs."""

    def at(site: Site) -> Tensor:
        i = data.sites[site.part].index(site)
        if real.from_pairs and data.pair_differences is not None:
            return (data.pair_differences[i] * signs[:, None]).mean(0).float()
        x = data.activations[site.part][i].double()
        return (x[y].mean(0) - x[~y].mean(0)).float()

    differences = {site: at(site) for site in {site for shifts in real.shifts.values() for site, _ in shifts}}
    return {choice: [differences[site] for site, _ in shifts] for choice, shifts in real.shifts.items()}
