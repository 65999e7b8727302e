"""Questions of the study: every fact in its contexts, and hidden pairs of relations, answered and represented in two forward passes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ontogeny.editing.shattering import Shattering, shattering
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import Model
from ontogeny.steering.steer import Edit, steer
from ontogeny.studies.knowledge_editing._settings import ROLES, Settings
from ontogeny.worlds import entity_graph

Rows = NDArray[np.bool_]
_ROWS = 4096
"""Questions of one forward pass."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Token ids, answers, and which question is of which kind."""

    world: entity_graph.World
    facts: Int[Tensor, "question token"]
    """Relation × entity × context."""
    pairs: Int[Tensor, "question token"]
    pair_queries: entity_graph.Queries
    contexts: int
    entities: Int[Tensor, " entity"]
    implied: Rows
    """Relation × entity: hidden facts that follow from shown ones."""
    site: int
    """Representations are the stream after this block."""

    @classmethod
    def of(cls, world: entity_graph.World, settings: Settings, seed: int) -> "Panel":
        rng = np.random.default_rng([seed, 7])
        tokenizer = entity_graph.tokenizer(world)
        compositional = entity_graph.queries(world, "compositional")
        chosen = compositional.rows(np.sort(rng.permutation(len(compositional))[: settings.pairs]))
        facts = [
            f"{entity_graph.path_to(world, rng, entity, 1)} {name} {relation}"
            for relation in world.relations
            for entity, name in enumerate(world.names)
            for _ in range(settings.contexts)
        ]
        pairs = [
            f"{entity_graph.path_to(world, rng, int(entity), 1)} {prompt}"
            for entity, prompt in zip(chosen.entities, chosen.prompts, strict=True)
        ]
        logical = entity_graph.queries(world, "logical")
        implied = np.zeros_like(world.shown)
        implied[logical.relations[:, 0], logical.entities] = True
        return cls(
            world,
            torch.tensor(tokenizer(facts)["input_ids"]),
            torch.tensor(tokenizer(pairs)["input_ids"]),
            chosen,
            settings.contexts,
            torch.from_numpy(world.entity_ids),
            implied,
            settings.site,
        )


@dataclass(frozen=True, eq=False)
class Reading:
    """Outputs of a model for the panel."""

    facts: Float[Tensor, "relation entity object"]
    """Probability of each object among the entities, mean over contexts."""
    pairs: Float[Tensor, "question object"]
    states: Float[Tensor, "relation entity d"]
    """The stream at the relation, mean over contexts."""


@torch.no_grad()
def read_panel(model: Model, panel: Panel, edits: Sequence[Edit] = ()) -> Reading:
    """Answers and representations under edits."""
    states: list[Tensor] = []
    relations, entities = panel.world.objects.shape
    with steer(model, list(edits)):
        with read_hooks(model, [("resid", panel.site)], lambda *got: states.append(got[2][:, -1].clone())):
            facts = _answers(model, panel.facts, panel.entities)
        pairs = _answers(model, panel.pairs, panel.entities)
    shape = (relations, entities, panel.contexts, -1)
    return Reading(facts.view(shape).mean(2), pairs, torch.cat(states).view(shape).mean(2))


def _answers(model: Model, ids: Tensor, entities: Tensor) -> Float[Tensor, "question object"]:
    logits = [model.network(input_ids=part, use_cache=False).logits[:, -1][:, entities] for part in ids.split(_ROWS)]
    answers: Tensor = torch.cat(logits).float().softmax(-1)
    return answers


def accuracies(panel: Panel, reading: Reading, role: int, without: tuple[int, int] | None = None) -> dict[str, float]:
    """Mean probability of the right object by kind of question, in one order.

    Args:
        without: Relation and entity of the edited fact, which is scored by itself.
    """
    world = panel.world
    objects = torch.from_numpy(world.objects)
    right = reading.facts.gather(2, objects[:, :, None])[..., 0].numpy()
    own = (world.orders == role)[:, None] & np.ones_like(world.shown)
    if without is not None:
        own[without] = False
    asked = panel.pair_queries
    composed = reading.pairs.gather(1, torch.from_numpy(asked.answers)[:, None])[:, 0].numpy()
    values = {
        "direct": right[own & world.shown],
        "logical": right[own & panel.implied],
        "compositional": composed[asked.orders == role],
    }
    return {kind: float(rows.mean()) if len(rows) else float("nan") for kind, rows in values.items()}


def consequences(panel: Panel, reading: Reading, entity: int, relation: int, new: int) -> tuple[float, float]:
    """Mean probabilities of the original and of the propagated answer over the questions whose answer an edit changes, without itself."""
    world, asked = panel.world, panel.pair_queries
    original, propagated = [], []
    direct = entity_graph.Queries(
        ("",) * world.objects.size,
        np.tile(np.arange(world.config.entities), len(world.relations)),
        np.repeat(np.arange(len(world.relations)), world.config.entities)[:, None],
        world.objects.ravel(),
        np.repeat(world.orders, world.config.entities),
    )
    for questions, chances in ((direct, reading.facts.flatten(0, 1)), (asked, reading.pairs)):
        changed = entity_graph.edited_answers(world, questions, entity, relation, new)
        itself = (
            (questions.entities == entity)
            & (questions.relations == relation).all(1)
            & (questions.relations.shape[1] == 1)
        )
        at = np.flatnonzero((changed != questions.answers) & ~itself)
        original.append(chances[at, questions.answers[at]])
        propagated.append(chances[at, changed[at]])
    return float(torch.cat(original).mean()), float(torch.cat(propagated).mean())


def distortions(panel: Panel, before: Reading, after: Reading) -> dict[str, Shattering]:
    """Shattering of the representations of each role's order, mean over its relations."""
    means = {}
    for role, name in enumerate(ROLES):
        own = [shattering(before.states[r], after.states[r]) for r in np.flatnonzero(panel.world.orders == role)]
        means[name] = Shattering(
            *(
                float(np.mean([getattr(one, part) for one in own]))
                for part in ("distortion", "rearrangement", "procrustes")
            )
        )
    return means


def ring_correlations(panel: Panel, reading: Reading) -> tuple[float, float]:
    """Correlation of the distances between representations with those of their objects in the own order, and with those in another one.

    On a ring a relation is a rotation, so that objects are as far from each other as the entities themselves.
    """
    world = panel.world
    own, other = [], []
    count = world.config.orders
    apart = [entity_graph.distances(world, order) for order in range(count)]
    for relation, order in enumerate(world.orders):
        points, objects = reading.states[relation].double(), world.objects[relation]
        pairs = np.ix_(objects, objects)
        own.append(_correlation(points, apart[order][pairs]))
        other.append(_correlation(points, apart[(order + 1) % count][pairs]))
    return float(np.mean(own)), float(np.mean(other))


def _correlation(points: Tensor, wanted: NDArray[np.int64]) -> float:
    pairs = np.triu_indices(len(points), 1)
    apart = torch.cdist(points, points).numpy()[pairs]
    return float(np.corrcoef(apart, wanted[pairs])[0, 1]) if apart.std() > 0 else float("nan")
