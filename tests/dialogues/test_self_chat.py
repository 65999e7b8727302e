"""Self-chat and probes: who sees what, different samples of equal prompts, and an end with a reason at the limit of the context."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ontogeny.dialogues.answers import answer_chats
from ontogeny.dialogues.attention_decay import attention_decay
from ontogeny.dialogues.instructions import INSTRUCTIONS, RECALL_QUESTION
from ontogeny.dialogues.mitigated_prompts import repeat_system_prompt
from ontogeny.dialogues.mitigations import PLAIN, Mitigation, parse_mitigations
from ontogeny.dialogues.persona_axis import persona_caps
from ontogeny.dialogues.probes import probe_dialogues
from ontogeny.dialogues.prompts import PLAIN_TEMPLATE, chat_prompts, dialogue_template
from ontogeny.dialogues.rows import clustered_mean
from ontogeny.dialogues.self_chat import Dialogue, DialogueSettings, Pairing, pair_up, self_chat
from ontogeny.errors import BadInput
from ontogeny.models.model import Model, load_model
from ontogeny.steering.steer import steer
from tests.helpers.tiny_models import outspoken, save_tiny

BLUE, LOUD = INSTRUCTIONS["mentions_blue"], INSTRUCTIONS["upper_case"]
QUICK = DialogueSettings(rounds=2, pairs=2, runs=2, tokens=5, openings=("Hi.", "The sea.", "A bird."))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return outspoken(save_tiny("llama", tmp_path_factory.mktemp("chat"), context=1024))


def test_each_party_sees_its_own_system_prompt_and_the_roles_of_its_view() -> None:
    dialogue = Dialogue(Pairing(BLUE, LOUD, "Hi.", 0), ("Hi.", "AND YOU?"), ("Blue.", "Sea."), (2, 2))
    agent = [("system", BLUE.system), ("user", "Hi."), ("assistant", "Blue.")]
    assert dialogue.agent_chat(1, "What?") == (*agent, ("user", "What?"))
    assert dialogue.partner_chat("{question} {answer}") == (
        ("system", LOUD.system),
        ("user", "Hi. Blue."),
        ("assistant", "AND YOU?"),
        ("user", "Sea."),
    )
    assert dialogue.in_one_turn(2, "What?")[1:] == (("user", "Hi.\n\nBlue.\n\nAND YOU?\n\nSea.\n\nWhat?"),)


def test_repetition_counts_user_turns_from_the_last() -> None:
    chat = (("system", "S"), ("user", "a"), ("assistant", "x"), ("user", "b"), ("assistant", "y"), ("user", "c"))
    assert repeat_system_prompt(chat, 0) == chat
    assert [c for r, c in repeat_system_prompt(chat, 1) if r == "user"] == ["S\n\na", "S\n\nb", "S\n\nc"]
    assert [c for r, c in repeat_system_prompt(chat, 2) if r == "user"] == ["S\n\na", "b", "S\n\nc"]
    assert repeat_system_prompt(chat[1:], 1) == chat[1:]


def test_the_words_of_the_system_prompt_are_marked(model: Model) -> None:
    assert dialogue_template(model, True) == PLAIN_TEMPLATE
    chat = (("system", "Say blue."), ("user", "Say blue."))
    (prompt,) = chat_prompts(model, [chat], PLAIN_TEMPLATE)
    assert model.tokenizer.decode(prompt.ids[prompt.system]) == "Say blue."
    assert prompt.system.nonzero()[0] < 12
    assert model.tokenizer.decode(prompt.ids).endswith("User: Say blue.\n\nAssistant:")
    assert not chat_prompts(model, [chat[1:]], PLAIN_TEMPLATE)[0].system.any()
    with pytest.raises(BadInput, match="leaves out or rewrites the system prompt"):
        chat_prompts(model, [chat], "{% for turn in messages %}{{ turn.content | upper }}{% endfor %}")


def test_equal_chats_get_different_samples_and_each_is_reproducible(model: Model) -> None:
    chats = [(("user", "Hi."),), (("user", "The sea."),), (("user", "Hi."),), (("user", "Hi."),)]
    how = QUICK.decoding(2)
    answers = answer_chats(model, chats, how, PLAIN_TEMPLATE)
    drawn = [one.ids.tolist() for place in (0, 2, 3) for one in answers[place]]
    assert len({tuple(ids) for ids in drawn}) > 3
    again = answer_chats(model, chats[:2], how, PLAIN_TEMPLATE)
    assert [a.text for a in again[0]] == [a.text for a in answers[0]]
    assert [a.text for a in again[1]] == [a.text for a in answers[1]]


def test_probes_are_no_part_of_the_dialogue_and_noops_change_nothing(model: Model) -> None:
    pairings = pair_up([BLUE, LOUD], [BLUE, LOUD], QUICK)
    assert [(one.agent.name, one.partner.name) for one in pairings][1:3] == [
        ("mentions_blue", "upper_case"),
        ("upper_case", "mentions_blue"),
    ]
    dialogues = self_chat(model, pairings, QUICK, PLAIN_TEMPLATE)
    assert all(len(one.answered) == len(one.asked) == 2 for one in dialogues)
    probes = probe_dialogues(model, dialogues, "adherence", range(3), QUICK, PLAIN_TEMPLATE)
    assert [len(one.texts) for one in probes] == [2] * 12
    assert [one.history for one in probes if one.dialogue == dialogues[0]] == sorted(
        one.history for one in probes if one.dialogue == dialogues[0]
    )
    assert self_chat(model, pairings, QUICK, PLAIN_TEMPLATE) == dialogues
    for kind, strength in (("split_softmax", 1.0), ("repetition", 0.0), ("guidance", 1.0), ("capping", 0.0)):
        one = Mitigation(kind, strength)
        assert one.is_noop
        assert self_chat(model, pairings, QUICK, PLAIN_TEMPLATE, one) == dialogues
    changed = self_chat(model, pairings, QUICK, PLAIN_TEMPLATE, Mitigation("split_softmax", 0.2))
    assert [one.answered for one in changed] != [one.answered for one in dialogues]
    (bare,) = {p.history for p in probe_dialogues(model, dialogues[:1], "no_system", [0], QUICK, PLAIN_TEMPLATE)}
    assert bare < probes[0].history
    recall = probe_dialogues(model, dialogues[:1], "recall", [0], QUICK, PLAIN_TEMPLATE)
    assert recall[0].history - probes[0].history == len(RECALL_QUESTION) - len(BLUE.question)


def test_a_dialogue_that_outgrows_the_context_ends_with_a_reason(model: Model) -> None:
    short = replace(model, context=200)
    settings = replace(QUICK, rounds=6)
    dialogues = self_chat(short, pair_up([BLUE], [LOUD], settings), settings, PLAIN_TEMPLATE)
    assert 0 < len(dialogues[0].answered) < 6
    assert dialogues[0].end == "the dialogue outgrows the context of 200 tokens"
    probes = probe_dialogues(short, dialogues, "adherence", [0, 6], settings, PLAIN_TEMPLATE)
    assert [bool(one.texts) for one in probes] == [True, True, False, False]
    assert probes[-1].reason == dialogues[-1].end


def test_attention_decay_is_one_on_nothing_but_the_system_prompt(model: Model) -> None:
    dialogues = self_chat(model, pair_up([BLUE], [LOUD], QUICK), QUICK, PLAIN_TEMPLATE)
    for one in attention_decay(model, dialogues, PLAIN_TEMPLATE, edge=2):
        assert one.mass.shape == (2, 4, 2)
        assert 0 <= one.mass.min() < one.mass.max() <= 1
        assert one.mass[..., 1].mean() < one.mass[..., 0].mean()
        assert one.between == one.between


def test_persona_caps_raise_what_lies_below_the_quantile(model: Model) -> None:
    (edit,) = persona_caps(model, BLUE, 0.5, QUICK, PLAIN_TEMPLATE)
    assert (str(edit.site), edit.where) == ("resid.1", "last")
    ids = torch.tensor([[5, 17, 40, 9]])
    seen = []
    with torch.no_grad(), steer(model, [edit], prompts=[4]):
        hook = model.block(2).register_forward_pre_hook(lambda _, args: seen.append(args[0][0] @ edit.what.axis))
        model.network(ids)
        hook.remove()
    assert seen[0][-1] >= edit.what.low - 1e-4


def test_intervals_cover_dialogues_not_answers() -> None:
    values, groups = [0.0, 0.0, 1.0, 1.0] * 4, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    mean, low, high = clustered_mean(values, groups, share=True)
    _, low_alone, high_alone = clustered_mean(values[::2], groups[::2], share=True)
    assert mean == 0.5
    assert (low, high) == pytest.approx((low_alone, high_alone))
    assert clustered_mean([], [], share=True)[0] != clustered_mean([], [], share=True)[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: parse_mitigations(["split_softmx"]), "did you mean split_softmax"),
        (lambda: parse_mitigations(["split_softmax=1.5"]), "above 0 and at most 1, got 1.5"),
        (lambda: parse_mitigations(["repetition=0.5"]), "a whole number from 0 on"),
        (lambda: parse_mitigations(["guidance=inf"]), "a number from 0 on, got inf"),
        (lambda: parse_mitigations(["capping=1"]), "from 0 to below 1"),
        (lambda: parse_mitigations(["capping=a"]), "numbers separated by commas"),
        (lambda: parse_mitigations(["plain=2"]), "plain has no strength"),
        (lambda: parse_mitigations(["plain", "plain"]), "plain twice"),
        (lambda: Mitigation("guidance", 1.5, control=1), "only split_softmax and capping have a control"),
        (lambda: DialogueSettings(rounds=0), "`rounds` must be at least 1, got 0"),
        (lambda: DialogueSettings(pairs=1), "`pairs` must be at least 2, got 1"),
        (lambda: DialogueSettings(temperature=0), "`runs` must be 1 without sampling"),
        (lambda: DialogueSettings(tokens=0), "`tokens`"),
        (lambda: pair_up([BLUE], [BLUE], QUICK), "needs a partner with another instruction"),
        (lambda: pair_up([BLUE], [LOUD], replace(QUICK, openings=())), "`openings` must have at least one text"),
    ],
)
def test_wrong_settings_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make()
    assert PLAIN.name == "plain"
    assert Mitigation("split_softmax", 0.7).name == "split_softmax .7"


def test_a_masked_model_holds_no_dialogue(tiny: Callable[..., Path]) -> None:
    with pytest.raises(BadInput, match="masked language model"):
        self_chat(load_model(tiny("bert")), pair_up([BLUE], [LOUD], QUICK), QUICK, PLAIN_TEMPLATE)
