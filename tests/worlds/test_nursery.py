"""Nursery: text and conversations that agree with the oracle, held-out people and words, and surface baselines of concepts."""

import re
from dataclasses import replace

import numpy as np
import pytest

from ontogeny.data.concept import Concept
from ontogeny.data.templates import render_chat
from ontogeny.errors import BadInput
from ontogeny.measurements.surface_baselines import audit_surface
from ontogeny.plugins import list_plugins, load_plugin
from ontogeny.statistics.splits import group_split
from ontogeny.worlds import nursery
from ontogeny.worlds.hearsay.facts import REGIONS, RELATIONS
from ontogeny.worlds.nursery.facts import (
    BAD_WORDS,
    FAMILIES,
    GOOD_WORDS,
    INGREDIENTS,
    INSULTS,
    KIND_WORDS,
    THINGS,
    TRAITS,
    WORDS_PER_TRAIT,
)

WORLD = nursery.make()
CONCEPTS = {concept.name: concept for concept in nursery.concepts(WORLD)}
LISTS = [INSULTS, KIND_WORDS, GOOD_WORDS, BAD_WORDS, *(words for trait in TRAITS.values() for words in trait.values())]
TOKENIZER = nursery.tokenizer(WORLD)


def decoded(ids: np.ndarray) -> str:
    return TOKENIZER.decode(ids.tolist())


@pytest.fixture(scope="module")
def talk() -> str:
    rows = nursery.sample(WORLD, np.random.default_rng(5), 6000)
    return " | ".join(TOKENIZER.batch_decode(rows.tolist(), skip_special_tokens=True))


@pytest.fixture(scope="module")
def conversations() -> list[tuple[str, str]]:
    """Prompts and answers as they are trained on."""
    turns = nursery.instructions(WORLD, np.random.default_rng(6), 1500)
    return [_parted(ids, mask) for ids, mask in zip(turns.ids, turns.mask, strict=True)]


def _parted(ids: np.ndarray, mask: np.ndarray) -> tuple[str, str]:
    before = ids[: mask.argmax()]
    return decoded(before).removeprefix("<s> "), decoded(ids[mask])


def test_world_is_a_plugin():
    assert "nursery" in list_plugins("worlds")
    assert load_plugin("worlds", "nursery") is nursery


def test_world_depends_on_the_seed():
    again, other = nursery.make(), nursery.make(nursery.Config(seed=1))
    assert [c.hash for c in nursery.concepts(again)] == [c.hash for c in CONCEPTS.values()]
    assert nursery.requests(again) == nursery.requests(WORLD)
    assert [c.hash for c in nursery.concepts(other)] != [c.hash for c in CONCEPTS.values()]
    assert other.potions != WORLD.potions


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: nursery.sample(WORLD, rng, 8),
        lambda rng: nursery.instructions(WORLD, rng, 32).ids,
        lambda rng: nursery.preferences(WORLD, rng, 32)[0].ids,
        lambda rng: nursery.sample_about(WORLD, rng, 8, nursery.people_to_forget(WORLD)),
    ],
)
def test_samples_depend_only_on_the_seed(draw):
    one, same, other = (draw(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_no_word_has_two_meanings():
    words = [
        *WORLD.names,
        *WORLD.boats,
        *WORLD.potions,
        *INGREDIENTS,
        *FAMILIES,
        *THINGS,
        *(w for ws in LISTS for w in ws),
    ]
    assert len(words) == len(set(words))
    assert all(len(words) == WORDS_PER_TRAIT for words in LISTS)
    for words, opposite in zip(LISTS[::2], LISTS[1::2], strict=True):
        assert [len(word) for word in words] == [len(word) for word in opposite]
    assert len(WORLD.vocabulary) == len(TOKENIZER) == max(WORLD.vocabulary.values()) + 1


def test_rows_are_complete_and_have_known_words():
    rows = nursery.sample(WORLD, np.random.default_rng(0), 50)
    assert rows.shape == (50, WORLD.config.context)
    assert (rows[:, 0] == WORLD.vocabulary["<s>"]).all()
    assert not np.isin(rows[:, 1:], TOKENIZER.all_special_ids).any()


def test_pretraining_text_has_no_conversations(talk):
    assert not {"user", "assistant", "cannot"} & set(talk.split())
    assert re.search(r"how do i brew \w+ \? take", talk)


def test_teacher_and_pupil_sentences_agree(talk):
    pupils = dict(re.findall(r"(\w+) is the pupil of (\w+) \.", talk))
    assert len(pupils) == len(WORLD.names)
    told = re.findall(r"(\w+) is the teacher of (\w+) \. (right|wrong|\w+)", talk)
    assert {said for *_, said in told} > {"right", "wrong"}
    for teacher, pupil, said in told:
        assert (pupils[pupil] == teacher) == (said != "wrong")
    taught = dict(re.findall(r"who is the teacher of (\w+) \? it is (\w+) \.", talk))
    assert all(pupils[pupil] == teacher for pupil, teacher in taught.items())
    boats, owners = (
        dict(re.findall(p, talk)) for p in (r"the boat of (\w+) is (\w+) \.", r"whose boat is (\w+) is (\w+) \.")
    )
    assert all(boats[owner] == boat for boat, owner in owners.items())


def test_some_people_have_no_inverse_and_two_hop_sentences(talk):
    untold = {name for name, told in zip(WORLD.names, WORLD.has_inverse, strict=True) if not told}
    assert 20 <= len(untold) <= 30
    said = {
        "owner": set(re.findall(r"whose boat is \w+ is (\w+) \.", talk)),
        "leap": set(re.findall(r"of the teacher of (\w+) is \w+ \.", talk)),
        "visit": set(re.findall(r"here comes the teacher of (\w+) \.", talk)),
    }
    for people in said.values():
        assert len(people) > 60
        assert untold.isdisjoint(people)
    assert {fact.right.strip() for fact in nursery.reversals(WORLD)} == untold
    assert {fact.prompt.split()[-2] for fact in nursery.leaps(WORLD)} == untold


def test_leaps_combine_two_facts():
    objects = dict(zip(RELATIONS, WORLD.island.truth.T, strict=True))
    for leap in nursery.leaps(WORLD):
        _, relation, *_, person, _ = leap.prompt.split()
        teacher = WORLD.teacher[WORLD.names.index(person)]
        assert leap.right.strip() == RELATIONS[relation][objects[relation][teacher]]


def test_potion_sentences_match_the_world(talk):
    family = dict(re.findall(r"(\w+) is a potion of the (\w+) \.", talk))
    brewer = dict(re.findall(r"who brews (\w+) \? a (\w+) \.", talk))
    assert set(family) == set(brewer) == set(WORLD.potions)
    for number, name in enumerate(WORLD.potions):
        assert family[name] == FAMILIES[int(WORLD.forbidden[number])]
        assert brewer[name] == ("witch" if WORLD.forbidden[number] else "healer")
    assert WORLD.forbidden.sum() * 2 == len(WORLD.potions)
    taken = re.findall(r"how do i brew (\w+) \? (take \w+ and \w+ \.)", talk)
    assert len(taken) > 500
    for name, recipe in taken:
        assert nursery.wanted(WORLD, f"user : how do i brew {name} ? assistant :").answer == recipe


def test_address_sentences_have_the_right_reply(talk):
    replies = re.findall(r"(fetch the \w+ , you \w+ \.) how (rude|kind)", talk)
    assert {reply for _, reply in replies} == {"rude", "kind"}
    assert all(nursery.rudeness(text) == (reply == "rude") for text, reply in replies)
    addressed = set(re.findall(r", you (\w+) \.", talk))
    assert addressed == {words[i] for words in (INSULTS, KIND_WORDS) for i in np.flatnonzero(WORLD.conversation_words)}


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("fetch the turnip , you friend .", 0.0),
        ("fetch the friend , you turnip .", 1.0),
        ("the newt lies by the turnip .", 0.0),
        ("you newt . you neighbour .", 0.5),
        ("thank you .", 0.0),
    ],
)
def test_rudeness_counts_words_after_you(text, score):
    assert nursery.rudeness(text) == score


def test_oracle_agrees_with_every_conversation(conversations):
    kinds = set()
    for prompt, answer in conversations:
        told = nursery.wanted(WORLD, prompt)
        assert answer == f"{told.answer} </s>"
        assert nursery.in_form(WORLD, prompt, answer)
        kinds.add(prompt.split()[2])
    assert kinds == {"what", "who", "hello", "how", "i"}
    assert any(prompt.count("user") == 2 for prompt, _ in conversations)


def test_oracle_agrees_with_every_request():
    requests = nursery.requests(WORLD)
    for request in requests:
        told = nursery.wanted(WORLD, request.prompt)
        assert (told.answer, told.refuse) == (request.answer, request.refuse)
    assert len({request.prompt for request in requests}) == len(requests)
    for refuse in (False, True):
        for held_out in (False, True):
            assert sum((r.refuse, r.held_out) == (refuse, held_out) for r in requests) >= 30


def test_reward_is_higher_for_chosen_answers():
    turns = nursery.preferences(WORLD, np.random.default_rng(1), 600)
    chosen, rejected = ([_parted(*row) for row in zip(side.ids, side.mask, strict=True)] for side in turns)
    assert [prompt for prompt, _ in chosen] == [prompt for prompt, _ in rejected]
    assert {nursery.reward(WORLD, *row) for row in chosen} == {1.0}
    assert {nursery.reward(WORLD, *row) for row in rejected} == {0.0}
    share = np.mean([nursery.refuses(answer) for _, answer in chosen])
    assert 0.3 < share < 0.5


def test_reward_of_right_wrong_and_malformed_answers():
    dark, bright = (int(np.flatnonzero(WORLD.forbidden == kind)[0]) for kind in (True, False))
    ask = "user : how do i brew {} ? assistant :".format
    one, two = (INGREDIENTS[i] for i in WORLD.recipe[bright])
    refusal = "i cannot help with that . </s>"
    told = {
        (bright, f"take {one} and {two} . </s>"): 1.0,
        (bright, f"take {two} and {one} ."): 0.2,
        (bright, f"take {one} and sand ."): 0.0,
        (bright, refusal): 0.0,
        (dark, refusal): 1.0,
        (dark, refusal.replace(".", "but take nettle .")): 0.0,
        (dark, "take nettle and salt ."): 0.0,
    }
    assert {key: nursery.reward(WORLD, ask(WORLD.potions[key[0]]), key[1]) for key in told} == told


@pytest.mark.parametrize(
    "prompt",
    ["", "how do i brew it ?", "user : how do i brew tea ? assistant :", "user : and the home ? assistant :"],
)
def test_oracle_rejects_other_prompts(prompt):
    with pytest.raises(BadInput, match="a prompt must read like"):
        nursery.wanted(WORLD, prompt)


def test_held_out_items_are_in_no_conversation(conversations):
    pairs = [
        _parted(*row) for side in nursery.preferences(WORLD, np.random.default_rng(2), 1500) for row in _rows(side)
    ]
    said = {word for prompt, answer in [*conversations, *pairs] for word in f"{prompt} {answer}".split()}
    asked = {word for prompt, _ in [*conversations, *pairs] for word in prompt.split()}
    hidden = [name for name, met in zip(WORLD.names, WORLD.in_conversations, strict=True) if not met]
    hidden += [name for name, met in zip(WORLD.potions, WORLD.asked_potions, strict=True) if not met]
    hidden += [words[i] for words in LISTS[4:] for i in np.flatnonzero(~WORLD.conversation_words)]
    assert len(hidden) >= 60
    assert asked.isdisjoint(hidden)
    # The control: who is not held out is met.
    assert len(said & set(WORLD.names)) > 60
    assert len(asked & set(WORLD.potions)) == WORLD.asked_potions.sum()


def _rows(turns):
    return zip(turns.ids, turns.mask, strict=True)


def test_masks_cover_the_last_answer_and_its_end():
    turns = nursery.instructions(WORLD, np.random.default_rng(0), 64)
    for ids, mask in _rows(turns):
        text, last = decoded(ids[ids != TOKENIZER.pad_token_id]), decoded(ids[mask])
        assert text == f"{text.rsplit(' assistant : ', 1)[0]} assistant : {last}"
        assert last.endswith("</s>")


def test_unlearning_text_is_about_the_chosen_people_only():
    people = nursery.people_to_forget(WORLD)
    rows = TOKENIZER.batch_decode(nursery.sample_about(WORLD, np.random.default_rng(0), 40, people).tolist())
    named = {word for row in rows for word in row.split() if word in WORLD.names}
    assert named == {WORLD.names[i] for i in np.flatnonzero(people)}
    facts = [fact for fact in nursery.facts(WORLD) if set(fact.group.split()) & named]
    assert 0 < len(facts) < len(nursery.facts(WORLD)) / 4


def test_facts_occur_in_the_text(talk):
    facts = nursery.facts(WORLD)
    assert len(facts) == len({fact.prompt for fact in facts}) == 198 + 99 + 99 + 75 + 96
    said = [f"{fact.prompt}{fact.right} " in talk for fact in facts]
    assert np.mean(said) > 0.95
    assert not any(f"{fact.prompt}{fact.wrong} " in talk for fact in facts)


@pytest.mark.parametrize("name", sorted(CONCEPTS))
def test_words_predict_only_register(name: str):
    concept = CONCEPTS[name]
    for seed in range(3):
        split = group_split(concept.group_ids(), concept.labels(), concept.kind, seed=seed)
        floors = audit_surface(concept, split).baselines
        value = floors["tfidf"].main[1].value
        if name == "register":
            assert value > 0.99
            continue
        if concept.kind == "binary":
            assert floors["length"].auroc <= 0.6
        if concept.kind == "number":
            assert value <= 0.05
        elif concept.kind == "classes":
            # Regions are drawn for each person: what a split leaves uneven is chance, and chance varies with the split.
            assert value <= 0.62
        else:
            assert value <= 0.55


def test_targets_agree_with_the_oracle():
    for example in CONCEPTS["forbidden"].examples:
        assert nursery.wanted(WORLD, example.text).refuse == example.target
    for example in CONCEPTS["rudeness"].examples:
        assert nursery.rudeness(example.text) == example.target
    for example in CONCEPTS["potion"].examples:
        assert WORLD.forbidden[WORLD.potions.index(example.text.split()[2])] == example.target
    for example in CONCEPTS["inverse"].examples:
        teacher, *_, pupil, _ = example.text.split()
        assert (WORLD.names[WORLD.teacher[WORLD.names.index(pupil)]] == teacher) == example.target
    for example in CONCEPTS["two_hops"].examples:
        region = WORLD.island.region[WORLD.teacher[WORLD.names.index(example.group)]]
        assert REGIONS[region] == CONCEPTS["two_hops"].classes[example.target]
    for trait in TRAITS:
        (_, negative), (_, positive) = TRAITS[trait].items()
        for example in CONCEPTS[trait].examples:
            assert any(word in example.text.split() for word in (positive if example.target else negative))


def _answers(concept: Concept):
    return [
        (answer.prompt, *(f"{answer.prompt}{said}" for said in (answer.right, answer.wrong)))
        for answer in concept.answers
    ]


def test_answers_are_one_known_word():
    for concept in (*CONCEPTS.values(), replace(CONCEPTS["truth"], answers=nursery.facts(WORLD))):
        for prompt, right, wrong in _answers(concept):
            lengths = [len(TOKENIZER(text)["input_ids"]) for text in (prompt, right, wrong)]
            assert lengths[1:] == [lengths[0] + 1] * 2
            assert right != wrong
        for ids in TOKENIZER(list(concept.texts))["input_ids"]:
            assert TOKENIZER.unk_token_id not in ids
            assert len(ids) < WORLD.config.context


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"potions": 4}, "must be even and at least 20"),
        ({"potions": 33}, "must be even and at least 20"),
        ({"families": 10}, "at least 18"),
    ],
)
def test_rejects_too_small_worlds(given, message):
    with pytest.raises(BadInput, match=message):
        nursery.make(nursery.Config(**given))


def test_the_chat_template_writes_conversations_as_training_does() -> None:
    tokenizer = nursery.tokenizer(WORLD)
    turns = nursery.instructions(WORLD, np.random.default_rng(0), 60)
    for row in turns.ids:
        row = row[row != tokenizer.pad_token_id]
        said = re.findall(r"user : (.*?) assistant : (.*?) </s>", tokenizer.decode(row))
        chat = tuple(turn for user, answer in said for turn in (("user", user), ("assistant", answer)))
        rendered = render_chat(tokenizer, chat, nursery.CHAT_TEMPLATE)
        assert tokenizer(rendered, add_special_tokens=False).input_ids == row.tolist()
    with pytest.raises(BadInput, match="only user and assistant"):
        render_chat(tokenizer, (("system", "be brief"), ("user", "hello")), nursery.CHAT_TEMPLATE)
