"""Walks of the entity graph are true and never show what is hidden; an edit's consequences are the inverse and pairs through it."""

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.worlds import entity_graph as graph


def steps_of(world: graph.World, row: list[str]) -> list[tuple[int, list[int], int | None]]:
    """Entity, relations and the entity reached of each step; None if the row is cut before it."""
    entity, path, steps = world.names.index(row[0]), [], []
    for word in row[1:]:
        if word in world.relations:
            path.append(world.relations.index(word))
            continue
        steps.append((entity, path, world.names.index(word)))
        entity, path = world.names.index(word), []
    return steps


@pytest.mark.parametrize("shape", ["ring", "tree"])
def test_walks_are_true_and_show_nothing_hidden(shape) -> None:
    world = graph.make(graph.Config(entities=14, orders=2, hops=2, shape=shape, hidden=0.2, seed=3))
    tokenizer = graph.tokenizer(world)
    rows = graph.sample(world, np.random.default_rng(0), 200)
    seen = np.zeros_like(world.shown)
    composed = 0
    for row in rows:
        for entity, path, reached in steps_of(world, tokenizer.convert_ids_to_tokens(row[1:])):
            assert (
                graph.wanted(world, " ".join([world.names[entity], *(world.relations[r] for r in path)]))
                == world.names[reached]
            )
            if len(path) == 1:
                seen[path[0], entity] = True
            else:
                assert world.pairs_shown[path[0], path[1], entity]
                assert world.orders[path[0]] == world.orders[path[1]]
                composed += 1
    assert not (seen & ~world.shown).any()
    assert (seen == world.shown).mean() > 0.98
    assert composed > 200
    logical = graph.queries(world, "logical")
    assert len(logical) > 0
    assert not world.shown[logical.relations[:, 0], logical.entities].any()


def test_distances_and_consequences_of_an_edit_on_a_ring() -> None:
    world = graph.make(graph.Config(entities=12, orders=1, hops=2))
    apart = graph.distances(world, 0)
    here = np.arange(12)
    for relation, hops in ((0, 1), (1, 2), (2, 1), (3, 2)):
        assert (apart[here, world.objects[relation]] == hops).all()
    assert apart.max() == 6
    assert (apart == apart.T).all()
    forward, back = world.relations.index("I_C1"), world.relations.index("I_A1")
    entity = 5
    new = int(np.flatnonzero(apart[world.objects[forward, entity]] == 4)[0])
    asked = graph.queries(world, "compositional")
    changed = graph.edited_answers(world, asked, entity, forward, new)
    for start, path, before, after in zip(asked.entities, asked.relations, asked.answers, changed, strict=True):
        middle = world.objects[path[0], start]
        edited = {(forward, entity), (back, new)}
        touched = (path[0], start) in edited or (path[1], middle) in edited
        assert touched or before == after
    assert (changed != asked.answers).any()


def test_a_context_ends_where_the_entity_follows() -> None:
    world = graph.make(graph.Config(entities=12))
    for entity in range(12):
        text = graph.path_to(world, np.random.default_rng(entity), entity, 3)
        assert graph.wanted(world, text) == world.names[entity]
        assert len(text.split()) == 6
    assert graph.path_to(world, np.random.default_rng(0), 0, 0) == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"entities": 4}, "`entities` must be at least 10"),
        ({"orders": 9}, "`orders` 1 to 6"),
        ({"entities": 10, "hops": 5}, "`hops` must be 1 to 4"),
        ({"shape": "star"}, "star"),
        ({"hidden": 0.7}, "`hidden` must be 0 to 0.5"),
    ],
)
def test_bad_settings_are_one_line(settings, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        graph.make(graph.Config(**settings))
