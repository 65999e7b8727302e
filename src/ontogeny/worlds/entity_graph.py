"""Entity graph: entities in several independent orders, rings or trees, written as random walks; for knowledge editing (arXiv:2410.17194).

A relation goes some hops along one order. A walk reads `entity relation entity relation relation entity …`: a step is one relation, or two
of the same order, the second after the first. Some facts and some pairs of relations are never shown, but follow from others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path
from transformers import PreTrainedTokenizerFast

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput, unknown_name
from ontogeny.worlds import _vocabulary
from ontogeny.worlds._concepts import world_concept
from ontogeny.worlds._vocabulary import BOS, TokenIds, build_vocabulary

__all__ = [
    "QUERY_KINDS", "Config", "Queries", "World", "concepts", "distances", "edited_answers", "facts", "make", "path_to", "queries",
    "sample", "tokenizer", "wanted",
]  # fmt: skip

GraphShape = Literal["ring", "tree"]
QUERY_KINDS = ("direct", "logical", "compositional")
"""Facts that were shown; hidden facts that follow from one or two shown ones; hidden pairs of relations."""
_ORDER_NAMES = ("I", "II", "III", "IV", "V", "VI")
_KINDS_OF_RELATIONS: Mapping[GraphShape, tuple[str, str]] = {"ring": ("C", "A"), "tree": ("U", "S")}
"""Clockwise and anticlockwise on a ring; up to an ancestor (the root is its own) and on to a sibling in a tree."""


@dataclass(frozen=True)
class Config:
    entities: int = 24
    orders: int = 3
    """Number of orders, at most 6."""
    hops: int = 2
    """Relations of each direction: 1 to this number of hops."""
    shape: GraphShape = "ring"
    branches: int = 3
    """Children of a node of a tree."""
    hidden: float = 0.1
    """Share of the facts of each relation, and of each pair of relations, that are never shown."""
    composed: float = 0.5
    """Share of the steps that compose two relations."""
    context: int = 17
    """Tokens in a row of text, the first of which is `<s>`."""
    seed: int = 0


@dataclass(frozen=True)
class World:
    """Relations are numbered; an array by relation and entity holds the object."""

    config: Config
    names: tuple[str, ...]
    relations: tuple[str, ...]
    vocabulary: Mapping[str, int]
    objects: TokenIds
    """Relation × entity."""
    orders: TokenIds
    """Order of each relation."""
    parents: TokenIds
    """Order × entity: the predecessor on the ring, the parent in the tree."""
    shown: NDArray[np.bool_]
    """Relation × entity: facts that walks contain."""
    pairs_shown: NDArray[np.bool_]
    """Relation × relation × entity: steps of two relations that walks contain; never across orders."""

    @property
    def entity_ids(self) -> TokenIds:
        """Token ids of the entities, in their order."""
        return _vocabulary.lookup_ids(self.vocabulary, self.names)

    @property
    def relation_ids(self) -> TokenIds:
        """Token ids of the relations, in their order."""
        return _vocabulary.lookup_ids(self.vocabulary, self.relations)


@dataclass(frozen=True, eq=False)
class Queries:
    """Questions of one kind, each a row of the arrays."""

    prompts: tuple[str, ...]
    """`entity relation`, or `entity relation relation`."""
    entities: TokenIds
    relations: TokenIds
    """Question × step, relation numbers."""
    answers: TokenIds
    """Numbers of entities."""
    orders: TokenIds

    def __len__(self) -> int:
        return len(self.prompts)

    def rows(self, wanted: NDArray[np.bool_] | TokenIds) -> "Queries":
        """Some of the questions."""
        at = np.flatnonzero(wanted) if wanted.dtype == np.bool_ else wanted
        return Queries(
            tuple(self.prompts[i] for i in at), self.entities[at], self.relations[at], self.answers[at], self.orders[at]
        )


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: a setting out of range.
    """
    config = config or Config()
    _check(config)
    rng = np.random.default_rng([config.seed, 0])
    n, hops = config.entities, config.hops
    parents = np.stack([_parents(config, rng.permutation(n)) for _ in range(config.orders)])
    objects, orders, relations = [], [], []
    for order, own in enumerate(parents):
        for kind, single in zip(_KINDS_OF_RELATIONS[config.shape], _single_steps(config, own), strict=True):
            reached = np.arange(n)
            for hop in range(1, hops + 1):
                reached = single[reached]
                objects.append(reached)
                orders.append(order)
                relations.append(f"{_ORDER_NAMES[order]}_{kind}{hop}")
    names = tuple(f"e{i:0{len(str(n - 1))}d}" for i in range(n))
    same_order = np.equal.outer(orders, orders)
    count = len(relations)
    hidden = np.argsort(rng.random((count, n)), axis=1) < round(config.hidden * n)
    hidden_pairs = np.argsort(rng.random((count, count, n)), axis=2) < round(config.hidden * n)
    return World(
        config=config,
        names=names,
        relations=tuple(relations),
        vocabulary=build_vocabulary([*names, *relations]),
        objects=np.stack(objects),
        orders=np.array(orders),
        parents=parents,
        shown=~hidden,
        pairs_shown=~hidden_pairs & same_order[:, :, None],
    )


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    return _vocabulary.word_tokenizer(world.vocabulary, longest=world.config.context)


def sample(world: World, rng: np.random.Generator, rows: int) -> TokenIds:
    """Walks as rows of token ids; each begins at a random entity, and the last step may be cut."""
    config = world.config
    entity_ids, relation_ids = world.entity_ids, world.relation_ids
    steps = config.context // 2 + 1
    tokens = np.zeros((rows, 3 * steps), dtype=np.int64)
    real = np.ones((rows, 3 * steps), dtype=bool)
    at = rng.integers(config.entities, size=rows)
    start = at.copy()
    single, pairs = _choices(world.shown), _choices(world.pairs_shown.reshape(-1, config.entities))
    count = len(world.relations)
    for step in range(steps):
        composed = (rng.random(rows) < config.composed) & (pairs.counts[at] > 0)
        composed |= single.counts[at] == 0
        one, two = single.draw(rng, at), pairs.draw(rng, at)
        first, second = np.where(composed, two // count, one), two % count
        middle = world.objects[first, at]
        at = np.where(composed, world.objects[second, middle], middle)
        tokens[:, 3 * step] = relation_ids[first]
        tokens[:, 3 * step + 1] = relation_ids[second]
        real[:, 3 * step + 1] = composed
        tokens[:, 3 * step + 2] = entity_ids[at]
    packed = np.full((rows, config.context), world.vocabulary[BOS], dtype=np.int64)
    packed[:, 1] = entity_ids[start]
    places = 1 + np.cumsum(real, axis=1)
    inside = real & (places < config.context)
    packed[np.nonzero(inside)[0], places[inside]] = tokens[inside]
    return packed


def facts(world: World) -> list[Answer]:
    """All shown facts, each with a wrong object."""
    direct = queries(world, "direct")
    wrong = (direct.answers + 1 + direct.entities % (world.config.entities - 1)) % world.config.entities
    return [
        Answer(prompt, f" {world.names[right]}", f" {world.names[other]}", world.names[entity])
        for prompt, right, other, entity in zip(direct.prompts, direct.answers, wrong, direct.entities, strict=True)
    ]


def concepts(world: World) -> list[Concept]:
    """One concept: whether a fact is true, over shown facts; each true one beside one with another object."""
    examples = []
    for fact in facts(world):
        for answer, target in ((fact.right, True), (fact.wrong, False)):
            examples.append(Example(f"{fact.prompt}{answer}", target, fact.group, pair=fact.prompt))
    return [world_concept("entity_graph", "true_fact", examples, "Is the object the one that the relation leads to?")]


def wanted(world: World, prompt: str) -> str:
    """The oracle: the entity that a prompt, which ends in an entity and one or two relations, leads to.

    Raises:
        BadInput: the prompt has no such end.
    """
    words = prompt.split()
    named = [i for i, word in enumerate(words) if word in world.names]
    path = words[named[-1] + 1 :] if named else []
    if not 1 <= len(path) <= 2 or any(word not in world.relations for word in path):
        raise BadInput(
            f"`prompt` must end in an entity and one or two relations, such as {world.names[0]} {world.relations[0]}, got {prompt!r}."
        )
    at = world.names.index(words[named[-1]])
    for word in path:
        at = int(world.objects[world.relations.index(word), at])
    return world.names[at]


def queries(world: World, kind: str) -> Queries:
    """All questions of a kind in `QUERY_KINDS`.

    Raises:
        BadInput: an unknown kind.
    """
    if kind not in QUERY_KINDS:
        raise unknown_name("kind of question", kind, QUERY_KINDS)
    if kind == "compositional":
        same = np.equal.outer(world.orders, world.orders)[:, :, None]
        first, second, entity = np.nonzero(same & ~world.pairs_shown)
        path = np.stack([first, second], axis=1)
        answers = world.objects[second, world.objects[first, entity]]
    else:
        relation, entity = np.nonzero(world.shown if kind == "direct" else _implied(world))
        path, answers = relation[:, None], world.objects[relation, entity]
    prompts = tuple(
        " ".join([world.names[e], *(world.relations[r] for r in row)]) for e, row in zip(entity, path, strict=True)
    )
    return Queries(prompts, entity, path, answers, world.orders[path[:, 0]])


def edited_answers(world: World, asked: Queries, entity: int, relation: int, new: int) -> TokenIds:
    """Answers after an edit and its consequences: the fact has the new object, its inverse leads back, and pairs of relations go through
    both; every other fact is as before.
    """
    objects = world.objects.copy()
    objects[relation, entity] = new
    if (inverse := _inverse(world, relation)) is not None:
        objects[inverse, new] = entity
    at = asked.entities
    for step in asked.relations.T:
        at = objects[step, at]
    return at


def path_to(world: World, rng: np.random.Generator, entity: int, steps: int) -> str:
    """A walk over shown facts whose next word would be the entity; empty for 0 steps."""
    words: list[str] = []
    for _ in range(steps):
        relation, before = np.nonzero(world.shown & (world.objects == entity))
        if not len(before):
            break
        i = int(rng.integers(len(before)))
        entity = int(before[i])
        words = [world.names[entity], world.relations[relation[i]], *words]
    return " ".join(words)


def distances(world: World, order: int) -> TokenIds:
    """Entity × entity: edges of the shortest path in one order."""
    n = world.config.entities
    child = np.arange(n)
    edges = csr_matrix((np.ones(n), (child, world.parents[order])), shape=(n, n))
    return np.asarray(shortest_path(edges, directed=False, unweighted=True), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Choices:
    """For each entity the relations that it may take, in the first `counts` columns."""

    table: TokenIds
    counts: TokenIds

    def draw(self, rng: np.random.Generator, at: TokenIds) -> TokenIds:
        column = (rng.random(len(at)) * self.counts[at]).astype(np.int64)
        return np.asarray(self.table[at, column], dtype=np.int64)


def _choices(allowed: NDArray[np.bool_]) -> _Choices:
    """Args: allowed: relation × entity."""
    return _Choices(np.argsort(~allowed.T, axis=1, kind="stable"), allowed.sum(0))


def _check(config: Config) -> None:
    if config.shape not in get_args(GraphShape):
        raise unknown_name("shape of a graph", config.shape, get_args(GraphShape))
    if config.entities < 10 or not 1 <= config.orders <= len(_ORDER_NAMES):
        raise BadInput(
            f"`entities` must be at least 10 and `orders` 1 to {len(_ORDER_NAMES)}, got {config.entities} and {config.orders}."
        )
    if not 1 <= config.hops <= (config.entities - 1) // 2 or config.branches < 2:
        raise BadInput(
            f"`hops` must be 1 to {(config.entities - 1) // 2}, less than half of the ring, and `branches` at least 2, got "
            f"{config.hops} and {config.branches}."
        )
    if not 0 <= config.hidden < 0.5 or not 0 <= config.composed < 1 or config.context < 5:
        raise BadInput("`hidden` must be 0 to 0.5, `composed` 0 to 1 (neither with its end), and `context` at least 5.")


def _parents(config: Config, places: TokenIds) -> TokenIds:
    """Predecessor of each entity on the ring, or its parent in the tree; `places` is the random order of the entities."""
    n = config.entities
    rank = np.arange(n)
    before = (rank - 1) % n if config.shape == "ring" else np.maximum((rank - 1) // config.branches, 0)
    parents = np.empty(n, dtype=np.int64)
    parents[places] = places[before]
    return parents


def _single_steps(config: Config, parents: TokenIds) -> tuple[TokenIds, TokenIds]:
    """One hop of both kinds of relations."""
    n = config.entities
    if config.shape == "ring":
        after = np.empty(n, dtype=np.int64)
        after[parents] = np.arange(n)
        return after, parents
    sibling = np.arange(n)
    for parent in np.unique(parents):
        children = np.flatnonzero((parents == parent) & (np.arange(n) != parent))
        sibling[children] = np.roll(children, -1)
    return parents, sibling


def _inverse(world: World, relation: int) -> int | None:
    """The relation that leads back from every object; None if there is none."""
    here = np.arange(world.config.entities)
    back = [r for r in range(len(world.relations)) if (world.objects[r, world.objects[relation]] == here).all()]
    return next((r for r in back if world.orders[r] == world.orders[relation]), None)


def _implied(world: World) -> NDArray[np.bool_]:
    """Hidden facts that follow from a shown inverse, or from two shown facts in a row."""
    implied = np.zeros_like(world.shown)
    for relation in range(len(world.relations)):
        own = world.objects[relation]
        if (inverse := _inverse(world, relation)) is not None:
            implied[relation] |= world.shown[inverse, own]
        for first in np.flatnonzero(world.orders == world.orders[relation]):
            middle = world.objects[first]
            for second in np.flatnonzero(world.orders == world.orders[relation]):
                if (world.objects[second, middle] == own).all():
                    implied[relation] |= world.shown[first] & world.shown[second, middle]
    return implied & ~world.shown
