"""Behaviour: log-likelihood margin of the right over the wrong answer to a concept's questions."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.concept import Concept
from ontogeny.measurements.design import Design
from ontogeny.records import Record, make_record
from ontogeny.statistics import bootstrap


def behaviour_rows(design: Design, margin: Float[Tensor, " answer"], seed: int) -> list[Record]:
    """Mean margin and share of questions answered correctly, with intervals by group."""
    groups = answer_groups(design)
    weights = bootstrap.group_weights(groups, samples=len(design.weights), seed=seed)
    right = (margin > 0).float()
    count = len(groups.unique())
    share = bootstrap.share_interval(right.mean(), bootstrap.mean_samples(right[None], weights)[:, 0], groups=count)
    mean = bootstrap.percentile_interval(
        margin.mean(), bootstrap.mean_samples(margin[None], weights)[:, 0], groups=count
    )
    return [
        make_record(
            metric,
            float(value),
            interval=(float(ends.low), float(ends.high)),
            concept=design.concept.name,
            method="likelihood",
            split="all",
            n=len(margin),
            seed=seed,
        )
        for metric, value, ends in (("answer_margin", margin.mean(), mean), ("answer_accuracy", right.mean(), share))
    ]


def answer_groups(design: Design) -> Int[Tensor, " answer"]:
    """The group of each question, numbered like the examples' groups, so that both can be resampled together."""
    numbers = {example.group: int(group) for example, group in zip(design.concept.examples, design.groups, strict=True)}
    return torch.tensor([numbers.setdefault(answer.group, len(numbers)) for answer in design.concept.answers])


def questions_begin_with_texts(concept: Concept) -> bool:
    """Whether each question's prompt begins with a text of its group: only then it asks about what a probe reads."""
    texts: dict[str, list[str]] = {}
    for example in concept.examples:
        texts.setdefault(example.group, []).append(example.text.rstrip())
    return all(answer.prompt.startswith(tuple(texts.get(answer.group, ()))) for answer in concept.answers)
