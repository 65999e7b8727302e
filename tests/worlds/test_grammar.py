"""The world `grammar`: presets against independent recognisers; token features depend only on the text up to the token."""

import re
from dataclasses import replace

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.worlds import grammar
from ontogeny.worlds.grammar import parser

PRESETS = dict(grammar.PRESETS)
WORLDS = {name: grammar.make(grammar.Config(language=language)) for name, language in PRESETS.items()}
WORLDS["deep"] = grammar.make(grammar.Config(language=grammar.Dyck(kinds=5, depth=3)))
WORLDS["unanswered"] = grammar.make(grammar.Config(language=grammar.Expressions(answer=False)))
NAMES = list(WORLDS)


def texts(world: grammar.World, words: np.ndarray, lengths: np.ndarray) -> list[str]:
    return [" ".join(world.words[w] for w in row[:n]) for row, n in zip(words, lengths, strict=True)]


@pytest.fixture(scope="module")
def drawn() -> dict[str, grammar.Strings]:
    return {name: grammar.strings(world, np.random.default_rng(7), 1500) for name, world in WORLDS.items()}


def brackets(text: str) -> bool:
    """Whether nothing is left after taking away empty pairs again and again."""
    left = text.replace(" ", "") if re.fullmatch(r"[()\[\] ]*", text) else "?"
    while (shorter := left.replace("()", "").replace("[]", "")) != left:
        left = shorter
    return text != "" and left == ""


def value(words: list[str]) -> tuple[int, list[str]]:
    """Value of the expression at the head of the words, and the words behind it; a KeyError or IndexError where there is none."""
    takes = {
        "next": (1, lambda a: a + 1), "minus": (1, lambda a: -a), "twice": (1, lambda a: 2 * a),
        "plus": (2, lambda a, b: a + b), "times": (2, lambda a, b: a * b), "less": (2, lambda a, b: a - b),
        "sum": (3, lambda a, b, c: a + b + c), "mid": (3, lambda *v: sorted(v)[1]), "pick": (3, lambda a, b, c: c if a % 2 else b),
    }  # fmt: skip
    first, rest = words[0], words[1:]
    if first in tuple("0123456789"):
        return int(first), rest
    arity, made = takes[first]
    operands = []
    for _ in range(arity):
        operand, rest = value(rest)
        operands.append(operand)
    return made(*operands) % 10, rest


def calculated(text: str) -> str:
    try:
        found, rest = value(text.split())
    except (KeyError, IndexError):
        return "ungrammatical"
    if len(rest) != 2 or rest[0] != "=" or rest[1] not in tuple("0123456789"):
        return "ungrammatical"
    return "right" if found == int(rest[1]) else "wrong"


@pytest.mark.parametrize("name", NAMES)
def test_oracle_accepts_samples_and_rejects_corrupted_strings(name, drawn):
    world, strings = WORLDS[name], drawn[name]
    best = len(world.language.verdicts) - 1
    assert (grammar.verdicts(world, strings.words, strings.lengths) == best).all()
    assert strings.drawn >= len(strings) + strings.rejected
    which, words = grammar.corrupt_strings(world, np.random.default_rng(0), strings)
    assert len(which) > 0.9 * len(strings)
    assert (grammar.verdicts(world, words, strings.lengths[which]) == 0).all()
    assert ((words != strings.words[which]).sum(1) == 1).all()
    for text in texts(world, words[:20], strings.lengths[which[:20]]):
        assert grammar.judge(world, text) == "ungrammatical"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["", "xyzzy", "<s>"])
def test_unknown_words_are_ungrammatical(name, text):
    assert grammar.judge(WORLDS[name], text) == "ungrammatical"


@pytest.mark.parametrize(("name", "reader"), [("dyck", brackets), ("expressions", calculated)])
def test_oracle_agrees_with_an_independent_recogniser(name, reader, drawn):
    """On whole strings, and on strings with a word replaced, dropped or swapped, some of which are still valid."""
    world, strings = WORLDS[name], drawn[name]
    rng, verdicts = np.random.default_rng(3), set()
    for text in texts(world, strings.words[:600], strings.lengths[:600]):
        words = text.split()
        i, j = rng.integers(len(words), size=2)
        match rng.integers(4):
            case 0:
                words[i] = world.words[rng.integers(len(world.words))]
            case 1:
                del words[i]
            case 2:
                words[i], words[j] = words[j], words[i]
        told = reader(changed := " ".join(words))
        expected = told if isinstance(told, str) else ("grammatical" if told else "ungrammatical")
        assert grammar.judge(world, changed) == expected, changed
        verdicts.add(expected)
    assert len(verdicts) == len(world.language.verdicts)


@pytest.mark.parametrize("name", ["dyck", "deep", "unanswered"])
def test_fast_recognisers_agree_with_the_chart(name, drawn):
    world, strings = WORLDS[name], drawn[name]
    rng = np.random.default_rng(5)
    words, rows = strings.words[:600].copy(), np.arange(600)
    changed = rng.integers(strings.lengths[:600])
    words[rows, changed] = rng.integers(len(world.language.grammar.terminals), size=600)
    fast = grammar.verdicts(world, words, strings.lengths[:600]) == 1
    chart = parser.recognise(world.language.grammar, words, strings.lengths[:600])
    assert (fast == chart).all()
    assert 0.05 < fast.mean() < 0.95


@pytest.mark.parametrize("name", ["expressions", "english", "typed"])
def test_presets_are_unambiguous(name):
    world = WORLDS[name]
    from ontogeny.worlds.grammar.sampling import sample_strings

    strings = sample_strings(world.language.grammar, np.random.default_rng(2), 150, 25)
    likely = grammar.log_probabilities(world.language.grammar, strings.words, strings.lengths)
    np.testing.assert_allclose(likely, strings.log_probability, rtol=1e-9)


def test_three_adjacent_brackets_are_ambiguous():
    """The control: three adjacent brackets have two derivations."""
    dyck = WORLDS["dyck"].language.grammar
    number = [dyck.terminals.index(word) for word in ["(", ")"] * 3]
    strings = grammar.strings(WORLDS["dyck"], np.random.default_rng(0), 4000)
    three = strings.lengths == 6
    three &= (strings.words[:, :6] == number).all(1)
    likely = grammar.log_probabilities(dyck, strings.words[three], strings.lengths[three])
    assert three.sum() > 5
    np.testing.assert_allclose(likely - strings.log_probability[three], np.log(2), rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_features_depend_only_on_the_text_up_to_the_token(name, drawn):
    """Features of two strings are equal on their common prefix."""
    world, strings = WORLDS[name], drawn[name]
    for feature in world.language.features:
        values, known, alike = feature.read(strings), {}, 0
        assert values.shape == strings.words.shape
        assert np.isnan(values[~strings.inside]).all()
        assert len(np.unique(values[~np.isnan(values)])) > 1
        for row, column in np.argwhere(~np.isnan(values)):
            prefix = strings.words[row, : column + 1].tobytes()
            alike += prefix in known
            assert known.setdefault(prefix, values[row, column]) == values[row, column], feature.name
        assert alike > 100


def test_bracket_features():
    world = WORLDS["dyck"]
    strings = like(world, "( [ ] ( ) ) [ ]")
    read = {feature.name: feature.read(strings)[0, :8] for feature in world.language.features}
    nan = np.nan
    np.testing.assert_array_equal(read["depth"], [1, 2, 1, 2, 1, 0, 1, 0])
    np.testing.assert_array_equal(read["open_kind"], [0, 1, 0, 0, 0, nan, 1, nan])
    np.testing.assert_array_equal(read["since_open"], [0, 0, 2, 0, 4, nan, 0, nan])


def like(world: grammar.World, text: str) -> grammar.Strings:
    """A sampled string with this text."""
    number = [world.words.index(word) for word in text.split()]
    strings = grammar.strings(world, np.random.default_rng(0), 1)
    words = np.full_like(strings.words, -1)
    words[0, : len(number)] = number
    return replace(strings, words=words, lengths=np.array([len(number)]))


def test_expression_features(drawn):
    world, strings = WORLDS["expressions"], drawn["expressions"]
    read = {feature.name: feature.read(strings) for feature in world.language.features}
    for row, text in enumerate(texts(world, strings.words[:300], strings.lengths[:300])):
        words = text.split()
        end = len(words) - 2
        assert words[end] == "="
        assert read["owed"][row, end - 1] == 0
        assert (read["owed"][row, : end - 1] > 0).all()
        assert read["value"][row, end] == value(words)[0]
        assert np.isnan(read["value"][row, :end]).all()
        depths: list[int] = []

        def walk(at: int, depth: int, words: list[str] = words, depths: list[int] = depths) -> int:
            depths.append(depth)
            arity = {"next minus twice": 1, "plus times less": 2, "sum mid pick": 3}
            for _ in range(next((n for names, n in arity.items() if words[at] in names.split()), 0)):
                at = walk(at + 1, depth + 1)
            return at

        walk(0, 0)
        assert read["depth"][row, :end].tolist() == depths


def test_subject_and_verb_agree_across_phrases(drawn):
    world = WORLDS["english"]
    assert grammar.judge(world, "the dogs near the cat run") == "grammatical"
    assert grammar.judge(world, "the dogs near the cat runs") == "ungrammatical"
    assert grammar.judge(world, "the dog that the cats see runs") == "grammatical"
    assert grammar.judge(world, "the dog that the cats sees runs") == "ungrammatical"
    assert grammar.judge(world, "the dog that sees the cats run") == "ungrammatical"
    attracted = 0
    for fact in grammar.facts(world)[:200]:
        # Both go on alike: with an adverb or a noun phrase, one of which fits.
        ends = ("", " often", " the dog")
        assert any(grammar.judge(world, fact.prompt + fact.right + end) == "grammatical" for end in ends)
        assert all(grammar.judge(world, fact.prompt + fact.wrong + end) == "ungrammatical" for end in ends)
        attracted += len(fact.prompt.split()) > 3
    assert attracted > 30


def test_parts_of_speech_match_the_words(drawn):
    world, strings = WORLDS["english"], drawn["english"]
    feature = next(feature for feature in world.language.features if feature.name == "part_of_speech")
    values, said = feature.read(strings), {}
    for row, column in np.argwhere(strings.inside):
        part = feature.classes[int(values[row, column])]
        said.setdefault(part, set()).add(world.words[strings.words[row, column]])
    assert said["preposition"] == {"near", "behind", "beside"}
    assert {"dog", "dogs"} <= said["noun"]
    assert {"run", "runs", "see", "sees"} <= said["verb"]
    assert set(said) == set(feature.classes)


def test_typed_sentences_have_one_kind_and_few_pairs(drawn):
    world, strings = WORLDS["typed"], grammar.strings(WORLDS["typed"], np.random.default_rng(1), 20_000)
    concepts = {concept.name: concept for concept in grammar.concepts(world)}
    seen = {
        re.sub(r"^(\w+) (?:is|has) (\w+)$", r"\1 \2", t)
        for t in texts(world, strings.words, strings.lengths)
        if t.count(" ") == 2
    }
    typed = world.config.language
    possible = typed.kinds * typed.entities * typed.properties * typed.values
    assert 0.25 < len(seen) / possible <= 0.3  # the share that is shown, nearly all of it by now
    for example in concepts["seen"].examples:
        subject, _, thing = example.text.split()
        assert (f"{subject} {thing}" in seen) <= example.target
        assert grammar.judge(world, example.text) == ("seen" if example.target else "unseen")
    for example in concepts["valid"].examples:
        assert grammar.judge(world, example.text) == ("unseen" if example.target else "mistyped")
    for fact in grammar.facts(world):
        assert grammar.judge(world, fact.prompt + fact.right) == "seen"
        assert grammar.judge(world, fact.prompt + fact.wrong) == "mistyped"


def test_word_counts_do_not_predict_valid_or_seen():
    for concept in grammar.concepts(WORLDS["typed"]):
        if concept.name in ("valid", "seen"):
            counts: dict[tuple[str, str], list[int]] = {}
            for example in concept.examples:
                for word in example.text.split():
                    counts.setdefault((example.group, word), [0, 0])[int(example.target)] += 1
            assert all(true == false for true, false in counts.values())


def test_concept_labels_match_the_evaluation_set():
    for name in ("dyck", "expressions", "english"):
        world = WORLDS[name]
        known = grammar.evaluation(world)
        again = grammar.evaluation(world)
        assert (known.strings.words == again.strings.words).all()
        for concept in grammar.concepts(world):
            values = known.coordinates[concept.name]
            for example in concept.examples[:100]:
                row, column = int(example.group.split()[1]), len(example.text.split()) - 1
                assert example.target == values[row, column]
            assert len(set(concept.texts)) == len(concept.texts)


def test_oracle_confirms_answers_of_brackets_and_expressions():
    for fact in grammar.facts(WORLDS["expressions"]):
        assert grammar.judge(WORLDS["expressions"], fact.prompt + fact.right) == "right"
        assert grammar.judge(WORLDS["expressions"], fact.prompt + fact.wrong) == "wrong"
    for fact in grammar.facts(WORLDS["dyck"]):
        closed = []
        for word in fact.prompt.split():
            closed = closed[:-1] if word in ")]" else [*closed, {"(": ")", "[": "]"}[word]]
        assert fact.right == f" {closed[-1]}"
        assert brackets(f"{fact.prompt} {' '.join(reversed(closed))}")


def test_lengths_match_the_published_figures():
    """Published figures: 5 % of bracket strings exceed 118 words, median 4; expressions have 5.1 words in the mean."""
    dyck = grammar.make(grammar.Config(grammar.Dyck(), longest=118)).language.grammar
    lengths = grammar.length_probabilities(dyck, 118)
    assert abs(1 - lengths.sum() - 0.05) < 0.002
    assert lengths[:3].sum() < 0.5 < lengths[:5].sum()
    expressions = WORLDS["unanswered"].language.grammar
    assert abs(expressions.mean_length - 5.1) < 0.05
    assert grammar.length_probabilities(expressions, 1)[1] == pytest.approx(0.6)


def test_depth_limit_is_kept_and_reached(drawn):
    world, strings = WORLDS["deep"], drawn["deep"]
    depth = next(feature for feature in world.language.features if feature.name == "depth").read(strings)
    assert np.nanmax(depth) == 3
    assert np.nanmax(grammar.evaluation(WORLDS["dyck"]).coordinates["depth"]) > 3
    assert grammar.judge(world, "( ( ( ) ) )") == "grammatical"
    assert grammar.judge(world, "( ( ( ( ) ) ) )") == "ungrammatical"


def test_rows_have_whole_strings_except_the_last():
    for world in WORLDS.values():
        for row in grammar.tokenizer(world).batch_decode(grammar.sample(world, np.random.default_rng(2), 6)):
            whole = row.removeprefix("<s> ").split(" </s>")[:-1]
            assert len(whole) >= 1
            assert {grammar.judge(world, text) for text in whole} == {world.language.verdicts[-1]}


def test_custom_grammar():
    own = grammar.make_grammar("S", {"S": {"a S b": 0.7, "M": 0.3}, "M": {"m": 0.5, "m M": 0.5}})
    world = grammar.make(grammar.Config(own, longest=20, context=40))
    assert grammar.judge(world, "a a m m b b") == "grammatical"
    assert grammar.judge(world, "a a m m b") == "ungrammatical"
    names = {concept.name for concept in grammar.concepts(world)}
    assert names == {"part_of_speech", "depth", "place"}
    assert grammar.facts(world) == ()
    assert grammar.sample(world, np.random.default_rng(0), 3).shape == (3, 40)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"S": {"": 1}}, "empty rule"),
        ({"S": {"x": -1, "y": 2}}, "weight"),
        ({"S": {"x": 0}}, "positive sum, got 0.0"),
        ({"T": {"x": 1}}, "start symbol"),
        ({"S": {"S S": 1}}, "never ends in words"),
        ({"S": {"x": 1, " x": 1}}, "repeated"),
    ],
)
def test_rejects_invalid_rules(rules, words):
    with pytest.raises(BadInput, match=words):
        grammar.make_grammar("S", rules)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (grammar.Config(longest=200), "`context` must be at least 202 tokens"),
        (grammar.Config(grammar.Dyck(kinds=0)), "kinds"),
        (grammar.Config(grammar.Dyck(join=0.7)), "join"),
        (grammar.Config(grammar.Dyck(concentration=0)), "concentration"),
        (grammar.Config(grammar.Expressions(operators=9)), "operators"),
        (grammar.Config(grammar.Expressions(grow=1.5)), "grow"),
        (grammar.Config(grammar.English(words=99)), "words"),
        (grammar.Config(grammar.English(join=1.0)), "shares"),
        (grammar.Config(grammar.Typed(kinds=1)), "at least 2 kinds of 10 entities"),
        (grammar.Config(grammar.Typed(shown=0.01)), "some but not all of 10 values, got 0"),
        (grammar.Config(grammar.Typed(values=50_000)), "at most 343000 words"),
        (grammar.Config("klingon"), "`language` must be one of PRESETS"),
        (grammar.Config(grammar.make_grammar("S", {"S": {"<s> x": 1}})), "special token"),
    ],
)
def test_rejects_invalid_settings(config, words):
    with pytest.raises(BadInput, match=words):
        grammar.make(config)


def test_rejects_cap_below_almost_all_strings():
    long = grammar.make_grammar("S", {"S": {"x x x x": 1}})
    with pytest.raises(BadInput, match="at least 4, the length of the shortest string, got 3"):
        grammar.strings(grammar.make(grammar.Config(long, longest=3)), np.random.default_rng(0), 5)
    endless = grammar.make_grammar("S", {"S": {"S S": 0.99999, "x": 0.00001}})
    with pytest.raises(BadInput, match="raise `longest`"):
        grammar.strings(grammar.make(grammar.Config(endless, longest=3)), np.random.default_rng(0), 5)
