"""Study: do small models of one corpus share the geometry of their embeddings, since when, and does a steering vector pass through it?

Global and local geometry of token embeddings, and Emb2Emb (arXiv:2503.21073), on a language whose word classes are known.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from ontogeny.embeddings.coherence import neighbour_coherence
from ontogeny.embeddings.dimension import two_nn_dimension
from ontogeny.embeddings.hidden_states import TokenPlaces
from ontogeny.embeddings.model_geometry import ModelGeometry
from ontogeny.embeddings.neighbours import nearest_neighbours
from ontogeny.embeddings.nulls import gaussian_cloud
from ontogeny.embeddings.pair_rows import compare_geometries
from ontogeny.embeddings.similarity import FEWEST_TOKENS, global_similarity
from ontogeny.embeddings.tokens import ComparedTokens
from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.studies.embedding_geometry._claims import CLAIMS, OTHER, SAME
from ontogeny.studies.embedding_geometry._language import ClassLanguage, make_language
from ontogeny.studies.embedding_geometry._models import (
    TrainedModel,
    compared_tokens,
    geometry_settings,
    hidden_places,
    train_model,
)
from ontogeny.studies.embedding_geometry._settings import Settings
from ontogeny.studies.embedding_geometry._steering import steering_rows

__all__ = ["CLAIMS", "PICTURES", "PRESETS", "SECONDS", "Settings", "run"]

TITLE = "Shared geometry of embeddings"
PAPER = "Shared Global and Local Geometry of Language Model Embeddings, arXiv:2503.21073"
SETUP = """
Three small GPT-NeoX models learn a generated language in which each word has a topic, a part of speech, a place on a circle and a Zipf
frequency. Two of them, of other widths and seeds, learn the same language; the third learns one with the same words and frequencies and
other classes. Their embeddings are compared over training, beside tokens shuffled within frequencies. A vector from one topic to another
is then mapped from the first model into the second.
"""
DIFFERENCES = (
    "Word-level models of two widths trained here; the paper reads released families (GPT-2, Llama 3, Gemma 2).",
    "Similarities stand beside tokens shuffled among those of the same frequency; the paper's null is a random one.",
    "Coherence is the share of neighbours of the token's own class; the paper asks ConceptNet.",
    "The vector is a difference of class means of a topic, and steers the next word; the paper steers answers of released models.",
)
CHALLENGES = (2, 3)

PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(
        words=100, steps=20, measured=2, dimension_neighbours=20, neighbours=5, steering_rows=20, maps=2, rows=8, prompts=20, doses=(1.0,),
    ),
    "tiny": Settings(),
    "small": Settings(words=1000, topics=6, widths=(96, 64), layers=4, steps=3000, rows=48, dimension_neighbours=120),
    "paper": Settings(words=8000, topics=20, widths=(768, 512), layers=12, steps=50_000, rows=256, dimension_neighbours=1200),
}  # fmt: skip
SECONDS = {"smoke": 4, "tiny": 12, "small": 900, "paper": 500_000}

PICTURES = (
    StudyPicture(
        "Similarity of all pairs and of neighbours over training",
        ("global_similarity", "global_similarity_matched", "local_similarity", "local_similarity_matched"),
        (SAME, OTHER),
        caption="The matched curves shuffle tokens among those of the same frequency.",
    ),
    StudyPicture(
        "Intrinsic dimension over training, beside a Gaussian cloud",
        ("intrinsic_dimension", "gaussian_dimension"),
        (SAME,),
    ),
)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: three models, their geometry over training, and a vector mapped between two of them."""
    language, other = (make_language(settings.words, settings.topics, seed=lab.seed, version=v) for v in (0, 1))
    tokens = compared_tokens(language, lab.seed)
    places = hidden_places(language, tokens, settings, lab.seed)
    wide, narrow = settings.widths
    trained = []
    for i, (corpus, width) in enumerate(((language, wide), (language, narrow), (other, wide))):
        lab.on_activity(f"model {i + 1}", i, 4)
        trained.append(train_model(corpus, width, settings, tokens, places, seed=10 * lab.seed + i))
    lab.on_activity("comparing", 3, 4)
    first, second, third = trained
    yield from _similarity_rows(first, second, tokens, places, settings, lab, SAME)
    yield from _similarity_rows(first, third, tokens, places, settings, lab, OTHER)
    yield from _same_corpus_rows(first, second, tokens, settings, lab)
    yield from _dimension_rows(first, settings, lab)
    yield from _coherence_rows(first.geometries[-1], language, tokens, settings, lab)
    for control, models in ((None, (first.last, second.last)), ("untrained", (first.first, second.first))):
        yield from steering_rows(*models, language, tokens, settings, lab, control)


_NAMES = {
    "embedding_similarity": "global_similarity",
    "local_similarity": "local_similarity",
    "dimension_similarity": "dimension_similarity",
}


def _similarity_rows(
    one: TrainedModel,
    other: TrainedModel,
    tokens: ComparedTokens,
    places: TokenPlaces,
    settings: Settings,
    lab: Lab,
    condition: str,
) -> Iterator[Record]:
    """Similarities at each measured step; at step 0 they are the null run of an untrained model."""
    for step, a, b in zip(one.steps, one.geometries, other.geometries, strict=True):
        rows = compare_geometries(a, b, tokens, places, geometry_settings(settings), {}).records
        ends = [step, None] if step == 0 else [step]
        for record in rows:
            if not _is_shown(record):
                continue
            suffix = "_matched" if record.control else ""
            for control in ("untrained" if end is None else None for end in ends):
                at, value = None if control else step, record.value
                if record.metric == "hidden_similarity":
                    layer = record.layer or 0
                    if condition == SAME and (control or step == one.steps[-1]):
                        name = "last layer" if layer == settings.layers else f"layer {layer}"
                        yield lab.row(f"hidden_similarity{suffix}", value, name, control=control, n=record.n)
                else:
                    yield lab.row(
                        f"{_NAMES[record.metric]}{suffix}", value, condition, step=at, control=control, n=record.n
                    )
    if condition == SAME:
        yield from _depth_rows(one, other, tokens, places, settings, lab)


def _is_shown(record: Record) -> bool:
    """Whether a row of the comparison is about the mean, of the embedding, and measured or frequency-matched."""
    return (
        record.control in (None, "frequency_matched")
        and record.method in ("pearson", "lle")
        and record.coords.get("form", "centred") == "centred"
        and record.coords.get("space", "embedding") == "embedding"
    )


def _depth_rows(
    one: TrainedModel, other: TrainedModel, tokens: ComparedTokens, places: TokenPlaces, settings: Settings, lab: Lab
) -> Iterator[Record]:
    """The layer as a number; in the null run all layers are the last one, each on other words."""
    a, b = one.geometries[-1].hidden, other.geometries[-1].hidden
    assert a is not None
    assert b is not None
    order = torch.randperm(a.shape[1], generator=torch.Generator().manual_seed(lab.seed))
    parts = order.tensor_split(settings.layers + 1)
    for layer, part in enumerate(parts):
        name = "last layer" if layer == settings.layers else f"layer {layer}"
        yield lab.row("depth", layer, name)
        yield lab.row("depth", layer, name, control="one_layer")
        value = _pearson(a[-1, part], b[-1, part])
        yield lab.row("hidden_similarity", value, name, control="one_layer", n=len(part), reason="too few words")


def _pearson(x: torch.Tensor, y: torch.Tensor) -> float:
    return global_similarity(x, y, centred=True).pearson.value if len(x) >= FEWEST_TOKENS else float("nan")


def _same_corpus_rows(
    one: TrainedModel, other: TrainedModel, tokens: ComparedTokens, settings: Settings, lab: Lab
) -> Iterator[Record]:
    """Null of the corpus: both sides are models of one corpus, each on half of the words; of the order: both curves are the global one."""
    halves = torch.arange(settings.words).tensor_split(2)
    for step, a, b in zip(one.steps, one.geometries, other.geometries, strict=True):
        values = [_pearson(a.spaces["embedding"].rows[half], b.spaces["embedding"].rows[half]) for half in halves]
        for condition, value in zip((SAME, OTHER), values, strict=True):
            yield lab.row("global_similarity", value, condition, step=step, control="same_corpus", n=len(halves[0]))
        for metric, value in zip(("global_similarity", "local_similarity"), values, strict=True):
            yield lab.row(metric, value, SAME, step=step, control="same_curve", n=len(halves[0]))


def _dimension_rows(model: TrainedModel, settings: Settings, lab: Lab) -> Iterator[Record]:
    """Intrinsic dimension at each step, and that of a Gaussian cloud of the same covariance."""
    for step, geometry in zip(model.steps, model.geometries, strict=True):
        rows = geometry.spaces["embedding"].rows
        cloud = gaussian_cloud(rows, same_covariance=True, seed=lab.seed)
        for metric, cloud_rows in (("intrinsic_dimension", rows), ("gaussian_dimension", cloud)):
            _, distances = nearest_neighbours(cloud_rows, torch.arange(len(rows)), 2)
            value = two_nn_dimension(distances)
            for control, at in ((None, step), ("untrained", None))[: 2 if step == 0 else 1]:
                ends = (value.low, value.high)
                yield lab.row(
                    metric, value.value, SAME, step=at, control=control, n=value.tokens, low=ends[0], high=ends[1]
                )


def _coherence_rows(
    geometry: ModelGeometry, language: ClassLanguage, tokens: ComparedTokens, settings: Settings, lab: Lab
) -> Iterator[Record]:
    """Share of neighbours of the own class, for the quarters of lowest and of highest dimension; with shuffled classes as the null."""
    space = geometry.spaces["embedding"]
    order = space.dimensions.argsort(stable=True)
    quarter = len(order) // 4
    shuffled = np.random.default_rng([lab.seed, 9]).permutation(language.words)
    mixed = replace(language, topic=language.topic[shuffled], part=language.part[shuffled])
    ends: Sequence[tuple[str, torch.Tensor]] = (("lowest", order[:quarter]), ("highest", order[-quarter:]))
    for control, classes in ((None, language.classes), ("shuffled_classes", mixed.classes)):
        for name, places in ends:
            share = neighbour_coherence(tokens.names, places, space.near[places], classes).mean()
            yield lab.row("coherence", float(share), name, control=control, n=quarter)
