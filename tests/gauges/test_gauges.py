"""Gauges: the planted user is read where it is planted, calibrated, pinned, and refused where the run does not read it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ontogeny as on
from ontogeny.concepts._talktuner import _ATTRIBUTES
from ontogeny.data.chats import Chat
from ontogeny.dynamics.measured_checkpoints import measured_checkpoints
from ontogeny.gauges import begun_answers, prompt_states
from ontogeny.gauges.control_vector import control_site, control_vector
from ontogeny.gauges.conversation import encode_conversation
from ontogeny.gauges.gauge import Gauge, default_gauges, make_gauge
from ontogeny.gauges.labels import gauge_label, parse_gauge_names
from ontogeny.gauges.pin import Pin, check_pin
from ontogeny.gauges.reading import read_conversation
from ontogeny.gauges.replies import converse, reply, reply_nats
from ontogeny.gauges.turn_reading import answer_and_read, read_turn
from ontogeny.models.model import Model
from ontogeny.sites import Site
from ontogeny.steering.generate import DecodingConfig
from ontogeny.steering.steer import Edit, control_edits
from ontogeny.storage.run import Run
from tests.helpers.chat_runs import CHAT_TEMPLATE, NO, YES, chat_run

ONE_TOKEN = DecodingConfig(tokens=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return chat_run(tmp_path_factory)


@pytest.fixture(scope="module")
def gauges(run: Run) -> list[Gauge]:
    """At both checkpoints."""
    label = gauge_label(run.about["concepts"][0], {"planted": ("user", ("tails", "heads"))})
    return [make_gauge(run, label, visit) for visit in measured_checkpoints(run, "planted")]


@pytest.fixture(scope="module")
def model(run: Run) -> Model:
    return on.load_model(str(run.about["lineage"]["source"]), step=3000)


def said(model: Model, chat: Chat, edits: Sequence[Edit] = ()) -> str:
    return reply(model, chat, edits, ONE_TOKEN, template=CHAT_TEMPLATE).text


def test_a_gauge_is_read_only_where_the_run_reads_it(gauges: list[Gauge]) -> None:
    early, late = gauges
    assert early.probe is None
    assert "does not read it here" in early.reason
    assert late.reason == ""
    assert late.auroc_low > 0.5
    assert late.n == 40
    assert late.floors["surface_tfidf"] < late.auroc
    assert 0 <= late.calibration_error < 0.3


def test_each_turn_is_read_as_the_text_alone(model: Model, gauges: list[Gauge]) -> None:
    """The reading of the first turn is that of the traced text, and the planted class wins at every turn."""
    chat = (("user", f"so they say {YES}"), ("assistant", "+"), ("user", f"it was told {NO}"))
    conversation = encode_conversation(model, chat, CHAT_TEMPLATE)
    assert [turn.role for turn in conversation.turns] == ["user", "assistant", "user"]
    reading = read_conversation(model, conversation, gauges, CHAT_TEMPLATE)
    assert "".join(reading.tokens) == f"so they say {YES}+;it was told {NO}"
    spans = ["".join(reading.tokens[turn.start : turn.end]) for turn in conversation.turns]
    assert spans == [words for _, words in chat]
    early, late = reading.gauges
    assert early.turns == ()
    first, second = late.turns
    assert first.probabilities[1] > 0.8 > 0.2 > second.probabilities[1]
    assert sum(first.probabilities) == pytest.approx(1)
    alone = on.read(model, _direction(late.gauge), f"so they say {YES}").scores[0, -1]
    assert first.score == pytest.approx(
        float(alone) * float(late.gauge.probe.weight.norm()) + float(late.gauge.probe.bias), rel=1e-3
    )  # type: ignore[union-attr]
    assert float(late.tokens[conversation.turns[0].end - 1]) == pytest.approx(first.score, rel=1e-4)
    assert late.random_p < 0.1
    assert late.bare is not None


def test_gauges_are_read_in_the_forward_passes_of_the_answer(
    model: Model, gauges: list[Gauge], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers as a reading of its own; the first begun answers of a network also run in passes of their own."""
    early, late = gauges
    assert late.probe is not None
    head = replace(late, site=Site("head", 1, 1), probe=replace(late.probe, weight=torch.ones(model.d_head, 1)))
    begun = [replace(late, label=replace(late.label, suffix=words)) for words in (" so I think", " it is a well known")]
    mean, asked = replace(late, position="mean:content"), replace(late, position="last:instruction")
    passes: list[int] = []
    handle = model.network.register_forward_hook(lambda *_: passes.append(1))
    chat = (("user", f"so they say {YES}"), ("assistant", "+"), ("user", f"it was told {NO}"))
    how = DecodingConfig(tokens=3)
    try:
        plain, alone = reply(model, chat, (), how, template=CHAT_TEMPLATE), len(passes)
        answer, read = answer_and_read(model, chat, [late, head, mean, asked, early], how, template=CHAT_TEMPLATE)
        assert (answer.text, len(passes)) == (plain.text, 2 * alone)
        first, _ = answer_and_read(model, chat, [*begun, late], how, template=CHAT_TEMPLATE)
        passes.clear()
        again, more = answer_and_read(model, chat, [*begun, late], how, template=CHAT_TEMPLATE)
        assert (first.text, again.text, len(passes)) == (plain.text, plain.text, alone)
    finally:
        handle.remove()
    everything = [late, head, mean, asked, early, *begun, late]
    conversation = encode_conversation(model, chat, CHAT_TEMPLATE)
    expected = read_conversation(model, conversation, everything, CHAT_TEMPLATE).gauges
    alone_read = read_turn(model, chat, everything, CHAT_TEMPLATE)
    for turn, again_read, whole in zip([*read, *more], alone_read, expected, strict=True):
        assert turn.reason == again_read.reason == whole.reason
        if not whole.reason:
            assert turn.reading is not None
            assert turn.reading.probabilities == pytest.approx(whole.turns[-1].probabilities, abs=1e-5)
            assert turn.reading.score == pytest.approx(whole.turns[-1].score, abs=1e-3, rel=1e-4)
            torch.testing.assert_close(turn.tokens, whole.tokens, atol=1e-3, rtol=1e-4)
            torch.testing.assert_close(again_read.tokens, turn.tokens, atol=1e-3, rtol=1e-4)
    slow = DecodingConfig(tokens=1, cache=False)
    without = answer_and_read(model, chat, begun, slow, template=CHAT_TEMPLATE)[1]
    assert [turn.reading.score for turn in without if turn.reading] == pytest.approx(
        [one.turns[-1].score for one in expected[5:7]], rel=1e-4
    )
    monkeypatch.setattr(prompt_states, "_MOST_CACHED", 1)
    monkeypatch.setitem(prompt_states._JOINS, model.network, False)
    one_by_one = read_turn(model, chat, begun, CHAT_TEMPLATE)
    assert [one.reading.score for one in one_by_one if one.reading] == pytest.approx(
        [one.turns[-1].score for one in expected[5:7]], rel=1e-4
    )


def test_gauges_cost_the_distinct_tokens_of_their_begun_answers(
    model: Model, gauges: list[Gauge], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward tokens of a turn: those of the answer alone, and the begun answers with shared beginnings once; with the same numbers."""
    template = CHAT_TEMPLATE.replace("{{ m.content }}{% else", "{{ m.content }} so: {% else")
    words = ["the user is", "the user has", "the user", "it seems", "it seems so", "it is"]
    begun = [replace(gauges[1], label=replace(gauges[1].label, suffix=suffix)) for suffix in words]
    distinct = len({suffix[:end] for suffix in words for end in range(1, len(suffix) + 1)})  # a character is a token
    tokens: list[int] = []
    count = model.network.get_input_embeddings().register_forward_hook(lambda _, ids, __: tokens.append(ids[0].numel()))
    how, chats = DecodingConfig(tokens=3), [(("user", f"so they say {c}"),) for c in (YES, NO)]

    def cost(make: Callable[[], object]) -> int:
        tokens.clear()
        make()
        return sum(tokens)

    try:
        answer_and_read(model, chats[0], begun, how, template=template)  # the first time in rows of their own as well
        monkeypatch.setattr(begun_answers, "encode_rendered", None)  # the same words of the template need no tokenizer
        turn = cost(lambda: answer_and_read(model, chats[1], begun, how, template=template))
        assert turn == cost(lambda: reply(model, chats[1], (), how, template=template)) + distinct
        together = answer_and_read(model, chats[1], begun, how, template=template)[1]
    finally:
        count.remove()
    whole = read_conversation(model, encode_conversation(model, chats[1], template), begun, template).gauges
    assert [turn.reading.score for turn in together if turn.reading] == pytest.approx(
        [one.turns[-1].score for one in whole], rel=1e-4
    )


@pytest.mark.parametrize("family", ["falcon", "gemma2", "gptj"])
def test_families_with_layers_of_their_own_are_read_alike(
    family: str, tiny: Callable[..., Path], gauges: list[Gauge]
) -> None:
    """Blocks that write into their values, a sliding window, and an attention that cannot be reached, which only its gauge minds."""
    model, probe = on.load_model(tiny(family)), gauges[1].probe
    if family == "gptj":
        model = replace(model, architecture=replace(model.architecture, own_attention=None))
    assert probe is not None
    wide = replace(probe, weight=torch.linspace(-1, 1, model.d)[:, None])
    own = replace(gauges[1], tokenizer="", site=Site("mlp", 1), probe=wide)
    begun = replace(own, label=replace(own.label, suffix=" I think"))
    query = replace(own, site=Site("query", 1, 0), probe=replace(probe, weight=torch.ones(model.d_head, 1)))
    chat = (("user", "so it was"),)
    _, read = answer_and_read(model, chat, [own, begun, query], DecodingConfig(tokens=2), template=CHAT_TEMPLATE)
    assert ("cannot be reached" in read[2].reason) == (family == "gptj")
    conversation = encode_conversation(model, chat, CHAT_TEMPLATE)
    for turn, whole in zip(
        read, read_conversation(model, conversation, [own, begun], CHAT_TEMPLATE).gauges, strict=False
    ):
        assert turn.reading is not None
        assert turn.reading.score == pytest.approx(whole.turns[-1].score, abs=1e-5)


def _direction(gauge: Gauge) -> on.Direction:
    assert gauge.probe is not None
    assert gauge.site is not None
    return on.Direction(gauge.probe.weight[:, 0], gauge.site, "gauge")


def test_a_gauge_with_a_begun_answer_is_read_at_its_end(model: Model, gauges: list[Gauge]) -> None:
    late = replace(gauges[1], label=replace(gauges[1].label, suffix=" so I think"))
    conversation = encode_conversation(model, (("user", f"so they say {YES}"),), CHAT_TEMPLATE)
    (read_gauge,) = read_conversation(model, conversation, [late], CHAT_TEMPLATE).gauges
    alone = on.read(model, _direction(late), f"so they say {YES} so I think").scores[0, -1]
    assert late.probe is not None
    assert read_gauge.turns[0].score == pytest.approx(
        float(alone * late.probe.weight.norm() + late.probe.bias[0]), rel=1e-3
    )
    for name, attribute in _ATTRIBUTES.items():
        assert gauge_label({"name": name}, {}).suffix == f"I think the {attribute.words} of this user is"


def test_a_score_beyond_every_class_is_off_the_distribution(gauges: list[Gauge]) -> None:
    probe = gauges[1].probe
    assert probe is not None
    inside, beyond = probe.centres.float(), probe.centres.float() + 100 * (probe.centres.max() - probe.centres.min())
    assert float(probe.typicality(inside).min()) > 0.9
    assert float(probe.typicality(beyond).max()) < 0.01


def test_a_pin_changes_the_answer_and_its_random_twin_does_not(run: Run, model: Model, gauges: list[Gauge]) -> None:
    late = gauges[1]
    for character, towards in ((YES, 0), (NO, 1)):
        chat = (("user", f"so they say {character}"),)
        plain, wanted = ("+", "-") if towards == 0 else ("-", "+")
        assert said(model, chat) == plain
        for pin in (Pin("planted", towards, hold=True), Pin("planted", towards, gaps=1.5)):
            edit = control_vector(run, late, towards).edit(pin)
            steered = reply(model, chat, [edit], ONE_TOKEN, template=CHAT_TEMPLATE)
            assert steered.text == wanted
            assert steered.divergence > 0.01
            assert said(model, chat, next(control_edits([edit], [0]))) == plain
    free = reply(
        model, chat, [control_vector(run, late, 1).edit(Pin("planted", 1, gaps=0))], ONE_TOKEN, template=CHAT_TEMPLATE
    )
    assert (free.text, free.divergence) == (plain, 0.0)


def test_a_held_projection_is_that_of_the_class(run: Run, model: Model, gauges: list[Gauge]) -> None:
    vector = control_vector(run, gauges[1], 1)
    edited = vector.edit(Pin("planted", 1, hold=True)).what(torch.randn(3, model.d))
    projections = edited @ vector.direction.vector
    torch.testing.assert_close(projections, torch.full((3,), vector.middle + vector.gap / 2), atol=1e-4, rtol=0)
    assert control_vector(run, gauges[1], 0).middle == pytest.approx(-vector.middle)


def test_a_conversation_answers_turn_by_turn_and_a_pin_begins_where_it_says(
    run: Run, model: Model, gauges: list[Gauge]
) -> None:
    edit = control_vector(run, gauges[1], 0).edit(Pin("planted", 0, hold=True))
    turns = [f"so they say {YES}", f"it was told {YES}"]
    chat, replies = converse(
        lambda chat, edits: reply(model, chat, edits, ONE_TOKEN, template=CHAT_TEMPLATE),
        turns,
        lambda turn: [edit] if turn >= 1 else [],
    )
    assert [r.text for r in replies] == ["+", "-"]
    assert chat == (("user", turns[0]), ("assistant", "+"), ("user", turns[1]), ("assistant", "-"))
    plain, steered = (float(reply_nats(model, answer).mean()) for answer in replies)
    assert plain > steered
    assert -steered == pytest.approx(replies[1].surprise, rel=1e-5)


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ((), "got none"),
        ((("assistant", "hi"),), "first and last"),
        ((("user", "a"), ("user", "b")), "first and last"),
        ((("user", "a"), ("assistant", "b")), "first and last"),
        ((("system", "a"), ("user", "b")), "first and last"),
        ((("user", " "),), "must have words"),
        ((("user", "x" * 257),), "has 257 tokens, and the model's context has 256"),
        ((("user", "a"), ("assistant", "b")) * 41 + (("user", "c"),), "at most 40 turns"),
    ],
    ids=range(8),
)
def test_what_is_no_conversation_is_refused(model: Model, chat: Chat, message: str) -> None:
    with pytest.raises(on.BadInput, match=message):
        encode_conversation(model, chat, CHAT_TEMPLATE)


def test_what_cannot_be_pinned_or_rendered_is_refused(run: Run, model: Model, gauges: list[Gauge]) -> None:
    early, late = gauges
    with pytest.raises(on.BadInput, match="not readable"):
        control_vector(run, early, 1)
    with pytest.raises(on.BadInput, match="from 0 to 1, got 2"):
        control_vector(run, late, 2)
    with pytest.raises(on.BadInput, match="one that was traced"):
        control_vector(run, late, 1, "mlp.1")
    assert control_site(run, late).part == "resid"
    for pin in (Pin("planted", 1, gaps=float("nan")), Pin("planted", 1, gaps=1e9), Pin("planted", 1, since=-1)):
        with pytest.raises(on.BadInput, match="must be a"):
            check_pin(pin)
    for template in (False, True, "user: {}"):
        with pytest.raises(on.BadInput, match="chat template"):
            reply(model, (("user", "a"),), template=template)
    with pytest.raises(on.BadInput, match="1 for a reply"):
        reply(model, (("user", "a"),), how=DecodingConfig(temperature=1, samples=2), template=CHAT_TEMPLATE)
    assert make_gauge(run, late.label, None).reason == "it was not traced at this checkpoint"
    with pytest.raises(on.BadInput, match="logistic or mass_mean"):
        make_gauge(run, late.label, None, method="leace")


def test_labels_say_who_is_read_and_what_is_sensitive() -> None:
    named = parse_gauge_names(["calling=farmer,sailor"], ["mood"], ["calling", "mood", "user_age"])
    entries = [
        {"name": "mood", "question": "Is the user sad?"},
        {"name": "user_age", "classes": ["child", "adult"]},
        {"name": "calling", "kind": "binary"},
    ]
    labels = [gauge_label(entry, named) for entry in entries]
    assert [label.subject for label in labels] == ["system", "user", "user"]
    assert [label.sensitive for label in labels] == [False, True, False]
    assert [label.classes for label in labels] == [("no", "yes"), ("child", "adult"), ("farmer", "sailor")]
    assert default_gauges(labels) == ["calling", "mood"]
    for users, systems in ((["nothing"], []), (["mood"], ["mood"]), (["mood=,b"], [])):
        with pytest.raises(on.BadInput, match="a gauge must"):
            parse_gauge_names(users, systems, ["mood"])
    with pytest.raises(on.BadInput, match="must have 2 names"):
        gauge_label(entries[2], {"calling": ("user", ("a", "b", "c"))})
