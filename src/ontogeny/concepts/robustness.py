"""Is the sentence positive, clean or perturbed? Label 1: positive; each sentence occurs twice, once with letters capitalised at random.

The corrected form of tracing_robustness (arXiv:2402.19465), whose label marks the perturbed twin: here both twins have the sentiment of
their sentence, taken from the reviews that SST is built on (Pang & Lee 2005), and `flips` measures how often a prediction changes from
one twin to the other. Twins are one group, the clean one first.
"""

import math

from jaxtyping import Bool
from torch import Tensor

from ontogeny.concepts._film_reviews import FILM_REVIEWS_SOURCE, film_review_sentences
from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import normalize_text
from ontogeny.errors import BadInput
from ontogeny.records import Record
from ontogeny.statistics import paired_flips

SOURCES = (
    download.DataSource(
        "tracing_trustworthiness/sst2.csv",
        "ChnQ/TracingLLM",
        "src/datasets/sst2.csv",
        "bf8d38a67844bcad25b8744b1f859205a2b8aa9b",
        "0606418a6a1bc6b80ec29acf3ead4e30211af98a7c1a803d3c8a2b4f5954fa6f",
        ("statement", "label"),
    ),
    FILM_REVIEWS_SOURCE,
)


def concept(seed: int = 0) -> Concept:
    """Both twins of each sentence of known sentiment; the same for each seed."""
    sentiment = {_letters(text): positive for text, positive in film_review_sentences()}
    pairs: dict[str, dict[str, str]] = {}
    for row in download.read_rows(SOURCES[0]):
        pairs.setdefault(normalize_text(row["statement"]), {})[row["label"]] = row["statement"]
    examples = [
        Example(twin[side], sentiment[_letters(sentence)], f"s{i}")
        for i, (sentence, twin) in enumerate(pairs.items())
        if len(twin) == 2 and _letters(sentence) in sentiment
        for side in ("0", "1")
    ]
    return Concept(
        "robustness",
        tuple(examples),
        classes=("negative", "positive"),
        twins=True,
        licence="Apache-2.0 (perturbed set); SST-2 text for research use; CC-BY-4.0 (labels)",
        source=download.cite_sources(*SOURCES, paper="arXiv:2402.19465, Pang & Lee 2005"),
        question="Is the sentence positive, clean or perturbed?",
    )


def flips(concept: Concept, predicted: Bool[Tensor, " example"], *, samples: int = 1000, seed: int = 0) -> list[Record]:
    """`flip_rate`, the share of twins with different predictions, and `perturbed_drop`, clean minus perturbed accuracy.

    Intervals resample twins. For predictions on a test split, pass the concept with the same examples. Groups of another size than two are
    left out.
    """
    if len(predicted) != len(concept.examples):
        raise BadInput(
            f"{len(predicted)} predictions for {len(concept.examples)} examples of {concept.name}: give one per example."
        )
    pairs = paired_flips.pair_indices(concept.group_ids())
    if len(pairs) < 2:
        note = f"{len(pairs)} groups of two twins; at least two are needed"
        return [Record(metric, math.nan, concept=concept.name, note=note) for metric in ("flip_rate", "perturbed_drop")]
    rates = paired_flips.flip_rates(predicted[None], concept.labels(), pairs, samples=samples, seed=seed)
    return [
        Record(
            metric,
            float(value),
            concept=concept.name,
            low=float(ends.low),
            high=float(ends.high),
            n=len(pairs),
            seed=seed,
        )
        for metric, value, ends in (
            ("flip_rate", rates.rate, rates.rate_interval),
            ("perturbed_drop", rates.drop, rates.drop_interval),
        )
    ]


def _letters(text: str) -> str:
    """Letters and digits only: the two releases of the sentences differ in punctuation and spaces."""
    return "".join(filter(str.isalnum, text.casefold()))
