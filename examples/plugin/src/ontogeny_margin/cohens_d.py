"""Cohen's d: the distance of the class means in pooled standard deviations."""

import torch
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.metrics import Metric


def cohens_d(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean score of the positive minus the negative class over the pooled standard deviation, `[*site example] -> [*site]`.

    Source: Cohen 1988, Statistical Power Analysis for the Behavioral Sciences. NaN if a class has fewer than two examples.

    Raises:
        BadInput: scores and labels differ in length.
    """
    if scores.shape[-1:] != labels.shape:
        raise BadInput(f"cohens_d needs one label per score, got {tuple(scores.shape)} and {tuple(labels.shape)}.")
    positive, negative = scores[..., labels], scores[..., ~labels]
    if min(positive.shape[-1], negative.shape[-1]) < 2:
        return scores.new_full(scores.shape[:-1], torch.nan)
    counts = positive.shape[-1] - 1, negative.shape[-1] - 1
    pooled = (counts[0] * positive.var(-1) + counts[1] * negative.var(-1)) / sum(counts)
    return (positive.mean(-1) - negative.mean(-1)) / pooled.sqrt()


metrics = (
    Metric(
        "cohens_d",
        cohens_d,
        "scores, labels",
        None,
        None,
        frozenset({"permutation", "positive_scale"}),
        "the formula, with numpy",
    ),
)
