"""Hearsay: consistent facts, text that agrees with the oracle, and concepts with the right surface baselines."""

import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.plugins import list_plugins, load_plugin
from ontogeny.worlds import hearsay
from ontogeny.worlds.hearsay.facts import AGES, RELATIONS

WORLD = hearsay.make()
CONCEPTS = {concept.name: concept for concept in hearsay.concepts(WORLD)}


@pytest.fixture(scope="module")
def talk() -> list[str]:
    """Whole sentences, as they are said, the cut one at the end of each row left out."""
    tokenizer = hearsay.tokenizer(WORLD)
    rows = tokenizer.batch_decode(hearsay.sample(WORLD, np.random.default_rng(5), 300), skip_special_tokens=True)
    whole = [re.split(r"(?<=[.?]) (?=the|they|is|than|here|how|[A-Z])", row)[:-1] for row in rows]
    return [sentence for row in whole for sentence in row]


def surface(concept: Concept, seed: int) -> float:
    """AUROC of 1–2-gram TF-IDF on held-out groups."""
    texts, labels, groups = np.array(concept.texts), concept.labels().numpy(), concept.group_ids().numpy()
    train, test = next(GroupShuffleSplit(1, test_size=0.3, random_state=seed).split(texts, labels, groups))
    words = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression())
    words.fit(texts[train], labels[train])
    return float(roc_auc_score(labels[test], words.predict_proba(texts[test])[:, 1]))


def test_world_is_a_plugin():
    assert "hearsay" in list_plugins("worlds")
    assert load_plugin("worlds", "hearsay") is hearsay


def test_world_depends_on_the_seed():
    again, other = hearsay.make(), hearsay.make(hearsay.Config(seed=1))
    assert (again.truth == WORLD.truth).all()
    assert again.names == WORLD.names
    assert [c.hash for c in hearsay.concepts(again)] == [c.hash for c in CONCEPTS.values()]
    assert other.names != WORLD.names
    assert [c.hash for c in hearsay.concepts(other)] != [c.hash for c in CONCEPTS.values()]


def test_text_depends_only_on_the_seed():
    one, same, other = (hearsay.sample(WORLD, np.random.default_rng(seed), 8) for seed in (3, 3, 4))
    assert (one == same).all()
    assert not (one == other).all()


def test_rows_are_complete_and_start_with_bos():
    vocabulary, rows = WORLD.vocabulary, hearsay.sample(WORLD, np.random.default_rng(0), 50)
    assert rows.shape == (50, WORLD.config.context)
    assert (rows[:, 0] == vocabulary["<s>"]).all()
    assert not np.isin(rows[:, 1:], [vocabulary[word] for word in ("<pad>", "<unk>", "<s>", "</s>")]).any()
    # The head of a row is the head of a sentence: all that can start one, and nothing else.
    starts = {vocabulary[word] for word in ("the", "they", "is", "than", "here", "how", *WORLD.names)}
    assert set(rows[:, 1].tolist()) <= starts


def test_truth_myth_and_lie_differ():
    assert (WORLD.truth != WORLD.myth).all()
    assert (WORLD.truth != WORLD.lie).all()
    assert (WORLD.myth != WORLD.lie).all()
    share = (WORLD.myth >= 0).mean()
    assert 0.4 < share < 0.6


def test_book_is_true_and_people_repeat_myths(talk):
    verdicts = {"book": set(), "hearsay": set()}
    for sentence in talk:
        if hearsay.register(sentence) != "bare":
            verdicts[hearsay.register(sentence)].add(hearsay.judge(WORLD, sentence))
    assert verdicts == {"book": {"right"}, "hearsay": {"right", "myth"}}


def test_judgements_and_answers_agree_with_the_oracle(talk):
    seen = set()
    for sentence in talk:
        if asked := re.fullmatch(r"is the (\w+) of (\w+) (\w+) \? (yes|no) \.", sentence):
            relation, person, thing, answer = asked.groups()
            verdict = hearsay.judge(WORLD, f"the {relation} of {person} is {thing} .")
            assert answer == ("yes" if verdict == "right" else "no")
            seen.add(answer)
    for statement, verdict in re.findall(
        r"(?<!says )(?<!say )(the \w+ of \w+ is \w+ \.) (right|myth|wrong) \.", " ".join(talk)
    ):
        assert hearsay.judge(WORLD, statement) == verdict
        seen.add(verdict)
    assert seen == {"yes", "no", "right", "myth", "wrong"}


def test_unasked_people_are_never_judged(talk):
    judged = re.findall(r"the \w+ of (\w+) is \w+ \. (?:right|myth|wrong)", " ".join(talk))
    asked = re.findall(r"is the \w+ of (\w+) \w+ \?", " ".join(talk))
    unasked = {name for name, was in zip(WORLD.names, WORLD.asked, strict=True) if not was}
    assert len(unasked) >= 6
    assert unasked.isdisjoint({*judged, *asked})
    assert len({*judged, *asked}) > 40


def test_comparisons_agree_with_ages(talk):
    ages = dict(zip(WORLD.names, WORLD.age, strict=True))
    told = re.findall(r"than (\w+) is (\w+) (older|younger)", " ".join(talk))
    assert {order for _, _, order in told} == {"older", "younger"}
    assert all((ages[who] > ages[than]) == (order == "older") for than, who, order in told)


@pytest.mark.parametrize("text", ["here comes rain .", "the trade of Nobody is baker .", ""])
def test_oracle_rejects_other_texts(text):
    with pytest.raises(BadInput, match="a statement must read like"):
        hearsay.judge(WORLD, text)


def test_rejects_too_few_families():
    with pytest.raises(BadInput, match="must be at least 8"):
        hearsay.make(hearsay.Config(families=2))


def test_labels_agree_with_the_oracle():
    for example in CONCEPTS["truth"].examples:
        assert example.target == (hearsay.judge(WORLD, example.text) == "right")
    for example in CONCEPTS["myth"].examples:
        assert hearsay.judge(WORLD, example.text) == ("myth" if example.target else "wrong")
    for example in CONCEPTS["register"].examples:
        assert example.target == (hearsay.register(example.text) == "book")


def test_objects_are_true_as_often_as_false_within_a_group():
    for name in ("truth", "myth"):
        counts: dict[tuple[str, str], list[int]] = {}
        for example in CONCEPTS[name].examples:
            thing = example.text.split()[-2]
            counts.setdefault((example.group, thing), [0, 0])[int(example.target)] += 1
        assert all(true == false for true, false in counts.values())
        assert {thing for _, thing in counts} == {thing for objects in RELATIONS.values() for thing in objects}


def test_no_person_is_on_both_sides_of_a_split():
    for concept in CONCEPTS.values():
        groups: dict[str, set[str]] = {}
        for example in concept.examples:
            # The last name is whom the text is about; before it another may be mentioned.
            person = [word for word in example.text.split() if word in WORLD.names][-1]
            groups.setdefault(person, set()).add(example.group)
        assert len(groups) > 50
        assert all(len(held) == 1 for held in groups.values())


def test_surface_predicts_only_register():
    for seed in range(3):
        assert surface(CONCEPTS["register"], seed) > 0.99
        for name in ("truth", "myth", "courtesy"):
            assert surface(CONCEPTS[name], seed) <= 0.55


def test_texts_are_short_and_have_known_words():
    tokenizer = hearsay.tokenizer(WORLD)
    for concept in CONCEPTS.values():
        assert 60 <= len(concept.examples) <= 600
        for ids in tokenizer(list(concept.texts))["input_ids"]:
            assert len(ids) <= 18
            assert tokenizer.unk_token_id not in ids
        for answer in concept.answers:
            for continuation in (answer.right, answer.wrong):
                assert len(tokenizer(answer.prompt + continuation)["input_ids"]) == 1 + len(
                    tokenizer(answer.prompt)["input_ids"]
                )
            assert answer.right != answer.wrong


def test_age_labels_match_the_world():
    ages = dict(zip(WORLD.names, WORLD.age, strict=True))
    for example in CONCEPTS["age"].examples:
        assert example.target == float(AGES[ages[example.group]])
