"""A real small model, stories of girls and boys: where the vector beats its controls, and where it does not.

`pytest -s tests/steering/test_steer_real.py` prints the numbers of docs/steering.md.
"""

import pytest
import torch

from ontogeny.activations.activations import activations_at_token
from ontogeny.data.tokenization import encode_texts
from ontogeny.interventions import Add
from ontogeny.models.model import load_model
from ontogeny.sites import Site
from ontogeny.steering.cached_prompts import CachedPrompts
from ontogeny.steering.controls import compare_with_controls
from ontogeny.steering.generate import DecodingConfig, generate
from ontogeny.steering.log_likelihood import log_likelihoods, tokenize_answers
from ontogeny.steering.methods import ContrastPair, TrainingActivations, caa, contrast_differences, tracing_vector
from ontogeny.steering.side_effects import measure_side_effects

FORMS = (
    "Once upon a time, there was a {} named {}.",
    "There was a {} named {} who lived in a house.",
    "One day, a little {} named {} went to the park.",
    "A {} called {} had a red ball.",
)
NAMED = [("girl", name) for name in ("Lily", "Mia", "Lucy", "Sue")] + [
    ("boy", name) for name in ("Tim", "Tom", "Max", "Ben")
]
NEUTRAL = (
    "Once upon a time, there was a child.",
    "The friend was very happy.",
    "A little cat lived in a tree.",
    "It was a sunny day in the park.",
)


@pytest.fixture(scope="module")
def model(stories260k):
    return load_model(stories260k)


@pytest.fixture(scope="module")
def vectors(model):
    texts = [(form.format(*who), who[0] == "girl") for form in FORMS for who in NAMED]
    ids = [e.ids for e in encode_texts(model.tokenizer, [text for text, _ in texts], [None] * len(texts))]
    sites = tuple(Site("resid", layer) for layer in range(1, 6))
    x = activations_at_token(model, ids, [len(row) - 1 for row in ids], sites)
    y = torch.tensor([girl for _, girl in texts])
    data = TrainingActivations(y, torch.arange(len(y)), {"resid": sites}, {"resid": x})
    return tracing_vector.fit(data).directions(model, "girl", sign="girl")


@pytest.fixture(scope="module")
def effect(model):
    ready = CachedPrompts.of(
        model, tokenize_answers(model, [(text, word) for text in NEUTRAL for word in (" She", " He")])
    )

    def margin(edits):
        she, he = log_likelihoods(ready.scores(edits)).view(-1, 2).unbind(1)
        return float((she - he).mean())

    def measured(direction, alpha):
        found = compare_with_controls(margin, [(direction.site, Add(direction, alpha), "last")], seeds=range(60))
        cost = measure_side_effects(
            model, NEUTRAL, [(direction.site, Add(direction, alpha), "generated")]
        ).divergence.mean()
        print(
            f"{direction.site} {alpha:+g}: {found.value:+.2f} nats, controls {found.low:+.2f} to {found.high:+.2f}, "
            f"p {found.p:.3f}, KL {cost:.3f}"
        )
        return found, float(cost)

    return measured


def test_vector_changes_she_and_he_late_in_the_network_only(vectors, effect):
    early, late = effect(vectors[0], 1.0), effect(vectors[4], 1.0)
    assert late[0].value > late[0].high
    assert late[0].p < 0.05
    assert early[0].low < early[0].value < early[0].high
    assert early[0].p > 0.05
    back = effect(vectors[4], -1.0)
    assert back[0].value < back[0].low
    assert late[1] < 0.2, "it costs little on neutral text"


def test_caa_fails_where_answers_differ_in_word_pieces(model, effect):
    """In a vocabulary of 512 the answers part at a piece of a word, and the difference says little else."""
    pairs = [
        ContrastPair(f"{start} little", " girl", " boy")
        for start in ("Once there was a", "One day, a", "In a house lived a")
    ]
    sites = (Site("resid", 4),)
    differences = contrast_differences(model, pairs, sites)
    data = TrainingActivations(torch.tensor([True, False]), torch.arange(2), {"resid": sites}, {}, differences)
    (direction,) = caa.fit(data).directions(model, "girl-boy")
    found, cost = effect(direction, 1.0)
    assert found.low < found.value < found.high
    assert cost > 0.2


def test_steered_story_is_about_her(model, vectors):
    how, late = DecodingConfig(24), vectors[3]
    plain = generate(model, NEUTRAL[:1], (), how)[0][0].text
    said = generate(model, NEUTRAL[:1], [(late.site, Add(late, 3.0), "last")], how)[0][0].text
    assert " She " in said
    assert " She " not in plain
