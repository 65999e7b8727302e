"""Contract of a world: determined by the seed, known words only, with concepts, facts and an oracle."""

import dataclasses
import functools
from types import ModuleType
from typing import Any

import numpy as np

from ontogeny import plugins
from ontogeny.testing._contract import Clause, rejects, run_clauses


def is_language(name: str) -> bool:
    """Whether a world writes text; the others give arrays."""
    return hasattr(plugins.load_plugin("worlds", name), "tokenizer")


def _make_world(name: str, seed: int = 0) -> tuple[ModuleType, Any]:
    module = plugins.load_plugin("worlds", name)
    return module, module.make(module.Config(seed=seed))


@functools.cache
def _world(name: str, seed: int = 0) -> tuple[ModuleType, Any]:
    return _make_world(name, seed)


def keeps_its_frozen_settings(name: str) -> None:
    module, made = _world(name)
    settings: Any = module.Config
    assert (module.__doc__ or "").splitlines()[0].endswith((".", ":"))
    assert all(dataclasses.is_dataclass(value) for value in (settings, made))
    for value, field in ((settings(), "seed"), (made, "config")):
        with rejects(dataclasses.FrozenInstanceError):
            setattr(value, field, None)
    assert made.config == settings(seed=0)
    assert module.make().config == settings()


def writes_text_that_depends_on_the_seed_only(name: str) -> None:
    module, made = _world(name)
    _, again = _make_world(name)
    one, same, other = (module.sample(w, np.random.default_rng(s), 4) for w, s in ((made, 3), (again, 3), (made, 4)))
    assert one.dtype == np.int64
    assert one.shape == (4, made.config.context)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def has_no_padding_and_no_unknown_words(name: str) -> None:
    module, made = _world(name)
    tokenizer = module.tokenizer(made)
    rows = module.sample(made, np.random.default_rng(0), 16)
    assert not np.isin(rows, [tokenizer.pad_token_id, tokenizer.unk_token_id]).any()
    assert 0 <= rows.min() <= rows.max() < len(tokenizer)
    # The head of a row reads like a text alone: the first token is the one that the tokenizer puts in front.
    assert (rows[:, 0] == tokenizer.bos_token_id).all()
    text = tokenizer.decode(rows[0, 1:])
    assert tokenizer(text)["input_ids"] == rows[0].tolist()


def has_complete_concepts_that_depend_on_the_seed(name: str) -> None:
    module, made = _world(name)
    tokenizer, concepts = module.tokenizer(made), module.concepts(made)
    names = [concept.name for concept in concepts]
    assert names
    assert len(set(names)) == len(names)
    again, other = (module.concepts(module.make(module.Config(seed=seed))) for seed in (0, 1))
    assert [concept.hash for concept in again] == [concept.hash for concept in concepts]
    assert [concept.hash for concept in other] != [concept.hash for concept in concepts]
    for concept in concepts:
        assert concept.licence
        assert concept.source
        assert concept.question
        assert len({example.group for example in concept.examples}) >= 10
        for ids in tokenizer(list(concept.texts))["input_ids"]:
            assert tokenizer.unk_token_id not in ids
            assert len(ids) <= made.config.context


def has_facts_with_answers_of_one_token(name: str) -> None:
    module, made = _world(name)
    tokenizer, facts = module.tokenizer(made), module.facts(made)
    assert len(facts) >= 10
    prompts, rights, wrongs = (
        tokenizer([getattr(fact, part) for fact in facts])["input_ids"] for part in ("prompt", "right", "wrong")
    )
    for prompt, right, wrong in zip(prompts, rights, wrongs, strict=True):
        assert tokenizer.unk_token_id not in (*prompt, *right, *wrong)
        assert len(prompt) < made.config.context
        # Each has its own <s> in front; after a prompt there is one token more, and it tells right from wrong.
        assert len(right) == len(wrong) == 2
        assert right != wrong


def has_an_oracle(name: str) -> None:
    """`judge` for texts, or `wanted` for prompts."""
    module, _ = _world(name)
    assert callable(getattr(module, "judge", None) or getattr(module, "wanted", None))


def has_examples_that_depend_on_the_seed_only(name: str) -> None:
    module, made = _world(name)
    _, again = _make_world(name)
    one, same, other = (module.sample(w, np.random.default_rng(s), 8) for w, s in ((made, 3), (again, 3), (made, 4)))
    assert len(one) == 8
    assert _equal(one, same)
    assert not _equal(one, other)


def has_fixed_evaluation_sets_with_ground_truth(name: str) -> None:
    module, made = _world(name)
    sets, again = module.evaluation(made), module.evaluation(_make_world(name)[1])
    assert len(sets) > 1
    assert {key: _equal(batch, again[key]) for key, batch in sets.items()} == dict.fromkeys(sets, True)
    others = module.evaluation(_world(name, 1)[1])
    assert not all(_equal(batch, others[key]) for key, batch in sets.items())
    for batch in sets.values():
        assert batch.coordinates
        assert {len(values) for values in (batch.targets, *batch.coordinates.values())} == {len(batch)}


def has_a_loss_of_zero_for_the_targets_only(name: str) -> None:
    module, made = _world(name)
    for batch in module.evaluation(made).values():
        assert module.score(made, batch.targets, batch)["loss"].max() < 1e-20
        wrong = module.score(made, batch.targets + 0.5, batch)
        assert wrong["loss"].min() > 0.1
        assert {len(values) for values in wrong.values()} == {len(batch)}


def _equal(one: Any, two: Any) -> bool:
    pairs = [(one.inputs, two.inputs), (one.targets, two.targets)]
    pairs += [(one.coordinates[key], two.coordinates[key]) for key in one.coordinates]
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


_SETTINGS: tuple[Clause, ...] = (keeps_its_frozen_settings,)
LANGUAGE_CLAUSES: tuple[Clause, ...] = (
    *_SETTINGS,
    writes_text_that_depends_on_the_seed_only,
    has_no_padding_and_no_unknown_words,
    has_complete_concepts_that_depend_on_the_seed,
    has_facts_with_answers_of_one_token,
    has_an_oracle,
)
"""Clauses of a world that writes text."""
ARRAY_WORLD_CLAUSES: tuple[Clause, ...] = (
    *_SETTINGS,
    has_examples_that_depend_on_the_seed_only,
    has_fixed_evaluation_sets_with_ground_truth,
    has_a_loss_of_zero_for_the_targets_only,
)
"""Clauses of a world that gives arrays."""


def check_world(name: str) -> None:
    """Check a world plug-in against its contract.

    Args:
        name: Name of a plug-in, of this package or of an installed one that has the entry point `ontogeny.worlds`.

    Raises:
        AssertionError: a clause does not hold; a note says which.
        BadInput: there is no such world.
    """
    run_clauses("world", name, LANGUAGE_CLAUSES if is_language(name) else ARRAY_WORLD_CLAUSES, name)
