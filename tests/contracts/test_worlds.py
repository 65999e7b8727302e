"""The contract of `ontogeny.worlds`: determined by the seed, known words only, with concepts, facts and an oracle."""

import dataclasses
import functools
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ontogeny import plugins
from ontogeny.worlds._batch import WorldBatch

NAMES = plugins.list_plugins("worlds")


def is_language(name: str) -> bool:
    return hasattr(plugins.load_plugin("worlds", name), "tokenizer")


LANGUAGES = [name for name in NAMES if is_language(name)]
OTHERS = [name for name in NAMES if not is_language(name)]


@functools.cache
def world(name: str, seed: int = 0) -> tuple[ModuleType, Any]:
    module = plugins.load_plugin("worlds", name)
    return module, module.make(module.Config(seed=seed))


def test_languages_and_arrays_are_covered() -> None:
    assert {"hearsay", "grammar"} <= set(LANGUAGES)
    assert {"low_rank", "corners"} <= set(OTHERS)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_frozen_and_kept_in_the_world(name: str) -> None:
    module, made = world(name)
    assert (module.__doc__ or "").splitlines()[0].endswith((".", ":"))
    assert dataclasses.is_dataclass(module.Config)
    assert dataclasses.is_dataclass(made)
    for value, field in ((module.Config(), "seed"), (made, "config")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)
    assert made.config == module.Config(seed=0)
    assert module.make().config == module.Config()


@pytest.mark.parametrize("name", LANGUAGES)
def test_text_depends_only_on_the_seed(name: str) -> None:
    module, made = world(name)
    _, again = world.__wrapped__(name)
    one, same, other = (module.sample(w, np.random.default_rng(s), 4) for w, s in ((made, 3), (again, 3), (made, 4)))
    assert one.dtype == np.int64
    assert one.shape == (4, made.config.context)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("name", LANGUAGES)
def test_rows_have_no_padding_and_no_unknown_words(name: str) -> None:
    module, made = world(name)
    tokenizer = module.tokenizer(made)
    rows = module.sample(made, np.random.default_rng(0), 16)
    assert not np.isin(rows, [tokenizer.pad_token_id, tokenizer.unk_token_id]).any()
    assert 0 <= rows.min() <= rows.max() < len(tokenizer)
    # The head of a row reads like a text alone: the first token is the one that the tokenizer puts in front.
    assert (rows[:, 0] == tokenizer.bos_token_id).all()
    text = tokenizer.decode(rows[0, 1:])
    assert tokenizer(text)["input_ids"] == rows[0].tolist()


@pytest.mark.parametrize("name", LANGUAGES)
def test_concepts_are_complete_and_depend_on_the_seed(name: str) -> None:
    module, made = world(name)
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


@pytest.mark.parametrize("name", LANGUAGES)
def test_fact_answers_are_one_token(name: str) -> None:
    module, made = world(name)
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


@pytest.mark.parametrize("name", LANGUAGES)
def test_world_has_an_oracle(name: str) -> None:
    """`judge` for texts, or `wanted` for prompts."""
    module, _ = world(name)
    assert callable(getattr(module, "judge", None) or getattr(module, "wanted", None))


@pytest.mark.parametrize("name", OTHERS)
def test_examples_depend_only_on_the_seed(name: str) -> None:
    module, made = world(name)
    _, again = world.__wrapped__(name)
    one, same, other = (module.sample(w, np.random.default_rng(s), 8) for w, s in ((made, 3), (again, 3), (made, 4)))
    assert len(one) == 8
    assert equal(one, same)
    assert not equal(one, other)


@pytest.mark.parametrize("name", OTHERS)
def test_evaluation_sets_are_fixed_and_have_ground_truth(name: str) -> None:
    module, made = world(name)
    sets, again = module.evaluation(made), module.evaluation(world.__wrapped__(name)[1])
    assert len(sets) > 1
    assert {key: equal(batch, again[key]) for key, batch in sets.items()} == dict.fromkeys(sets, True)
    others = module.evaluation(world(name, 1)[1])
    assert not all(equal(batch, others[key]) for key, batch in sets.items())
    for batch in sets.values():
        assert batch.coordinates
        assert {len(values) for values in (batch.targets, *batch.coordinates.values())} == {len(batch)}


@pytest.mark.parametrize("name", OTHERS)
def test_oracle_loss_is_zero_only_for_the_targets(name: str) -> None:
    module, made = world(name)
    for batch in module.evaluation(made).values():
        assert module.score(made, batch.targets, batch)["loss"].max() < 1e-20
        wrong = module.score(made, batch.targets + 0.5, batch)
        assert wrong["loss"].min() > 0.1
        assert {len(values) for values in wrong.values()} == {len(batch)}


def equal(one: WorldBatch, two: WorldBatch) -> bool:
    pairs = [(one.inputs, two.inputs), (one.targets, two.targets)]
    pairs += [(one.coordinates[key], two.coordinates[key]) for key in one.coordinates]
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)
