"""A steering vector of one model, mapped into another by its embeddings or by its activations (Emb2Emb), and its effect there."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.embeddings.hidden_states import TokenPlaces, hidden_states
from ontogeny.embeddings.matrices import embedding_rows
from ontogeny.embeddings.tokens import ComparedTokens
from ontogeny.interventions import Add
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.linalg.linear_maps import fit_linear_map, fit_shuffled_map, identity_map, random_map
from ontogeny.metrics.similarity import cosine
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.steering.steer import Edit, steer
from ontogeny.studies.embedding_geometry._language import ClassLanguage, sample_rows
from ontogeny.studies.embedding_geometry._models import class_states
from ontogeny.studies.embedding_geometry._settings import Settings


def steering_rows(
    source: Model,
    target: Model,
    language: ClassLanguage,
    tokens: ComparedTokens,
    settings: Settings,
    lab: Lab,
    control: str | None,
) -> Iterator[Record]:
    """Effect of the vector from the second to the first topic in the target, by arm and dose, and its cosine with the target's own."""
    layer = (settings.layers + 1) // 2
    states = [
        list(class_states(model, language, layer, settings.context, settings.steering_rows, lab.seed))
        for model in (source, target)
    ]
    vector, own = (first.mean(0) - second.mean(0) for first, second in states)
    mapped = _arms(source, target, language, tokens, settings, lab.seed, layer, vector)
    arms = {**mapped, "native": [own]}
    prompts = torch.tensor(
        sample_rows(language, np.random.default_rng([lab.seed, 7]), settings.prompts, settings.context // 2)
    )
    base = _topic_margin(target, language, prompts, layer, None)
    for dose in settings.doses:
        for arm, vectors in arms.items():
            effects = [
                _topic_margin(target, language, prompts, layer, dose * own.norm() * one / one.norm()) - base
                for one in vectors
            ]
            yield lab.row("effect", float(np.mean(effects)), arm, control=control, n=len(prompts), dose=dose)
    for arm, vectors in arms.items():
        alike = float(torch.stack([cosine(one, own) for one in vectors]).mean())
        yield lab.row("vector_cosine", alike, arm, control=control)
    yield from _embedding_vector_rows(source, target, language, tokens, settings, lab, control)


def _embedding_vector_rows(
    source: Model,
    target: Model,
    language: ClassLanguage,
    tokens: ComparedTokens,
    settings: Settings,
    lab: Lab,
    control: str | None,
) -> Iterator[Record]:
    """The same for a vector between the mean embeddings of two topics, by a map that was fitted on the other half of all words."""
    topic = torch.tensor(language.topic[tokens.ids.numpy() - 2])
    inside = torch.arange(len(tokens)) % 2 == 0
    vectors = []
    for model in (source, target):
        rows = embedding_rows(model, tokens.ids)
        vectors.append(rows[inside & (topic == 0)].mean(0) - rows[inside & (topic == 1)].mean(0))
    aside = tokens.ids[~inside]
    x, y = embedding_rows(source, aside), embedding_rows(target, aside)
    fitted = fit_linear_map(x, y, seed=lab.seed)
    shuffled = [fit_shuffled_map(x, y, fitted.strength, seed=draw) for draw in range(settings.maps)]
    for name, maps in (("embedding vector", [fitted]), ("embedding vector, shuffled", shuffled)):
        alike = torch.stack([cosine(one.apply(vectors[0]), vectors[1]) for one in maps]).mean()
        yield lab.row("vector_cosine", float(alike), name, control=control, n=len(aside))
    yield lab.row("map_r2", fitted.r2, "embedding vector", control=control, n=len(aside))


def _arms(
    source: Model,
    target: Model,
    language: ClassLanguage,
    tokens: ComparedTokens,
    settings: Settings,
    seed: int,
    layer: int,
    vector: Float[Tensor, " source"],
) -> Mapping[str, list[Float[Tensor, " target"]]]:
    """The vector mapped in each way; several draws of random and shuffled maps."""
    rows = sample_rows(language, np.random.default_rng([seed, 8]), 80, settings.context)
    sequences = tuple(map(tuple, rows.tolist()))
    where = tuple((row, at) for row in range(len(rows)) for at in range(1, settings.context))
    groups = torch.tensor([row for row, _ in where])
    places = TokenPlaces(sequences, where, groups)
    pairs = {
        "embeddings": (embedding_rows(source, tokens.ids), embedding_rows(target, tokens.ids), None),
        "activations": (hidden_states(source, places)[layer], hidden_states(target, places)[layer], groups),
    }
    arms: dict[str, list[Tensor]] = {"identity": [identity_map(source.d, target.d).apply(vector)]}
    arms["random map"] = [random_map(source.d, target.d, seed=draw).apply(vector) for draw in range(settings.maps)]
    for name, (x, y, of) in pairs.items():
        fitted = fit_linear_map(x, y, of, seed=seed)
        arms[name] = [fitted.apply(vector)]
        shuffled = (fit_shuffled_map(x, y, fitted.strength, seed=draw) for draw in range(settings.maps))
        arms[f"shuffled {name}"] = [one.apply(vector) for one in shuffled]
    return arms


@torch.no_grad()
def _topic_margin(
    model: Model, language: ClassLanguage, prompts: Tensor, layer: int, vector: Float[Tensor, " d"] | None
) -> float:
    """Mean log odds, in nats, of a next word of the first topic against one of the second."""
    edits = [] if vector is None else [Edit(Site("resid", layer), Add(vector.float()))]
    with steer(model, edits):
        logits = model.network(prompts, use_cache=False).logits[:, -1].double()
    words = logits[:, 2:].log_softmax(1)
    first, second = (words[:, torch.tensor(language.topic == topic)].logsumexp(1) for topic in (0, 1))
    return float((first - second).mean())
