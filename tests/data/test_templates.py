"""Chat templates: a fixed date, turns of a chat, questions as turns, and special tokens that a text already holds."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ontogeny.data.positions import instruction
from ontogeny.data.templates import TEMPLATE_DATE, parse_template, template_name
from ontogeny.data.tokenization import encode_answer, encode_text, encode_texts
from ontogeny.errors import BadInput

SPECIAL = ["<s>", "</s>", "<end>"]
CHATML = (
    "<s>{% for m in messages %}{{ m['role'] }} : {{ m['content'] | trim }} <end>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)
SPACED = "{% for m in messages %}[{{ m['role'] }}]{{ ' ' + m['content'] }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
ONE_TURN = "User said: {{ messages[0]['content'] }} Then the answer came:"
CHAT = (("system", "be brief"), ("user", "is it so"), ("assistant", "it is"), ("user", "is it brief"))


def tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    characters = [*map(chr, range(32, 127)), "\n", "é"]
    inner = Tokenizer(
        models.WordLevel({c: i for i, c in enumerate([*SPECIAL, "<unk>", *characters])}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.add_special_tokens(SPECIAL)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    made.chat_template = template
    return made


@pytest.mark.parametrize(
    "template",
    [
        "{% set today = strftime_now( \"%Y-%m-%d\" ) %}Today is {{ today[8:] }} Jul 2024. {{ messages[0]['content'] }}",
        "Today is {{ strftime_now('%d %b %Y') }}. {{ messages[0]['content'] }}",
        "Today is {{ date_string }}. {{ messages[0]['content'] }}",
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "Today is {{ date_string }}. {{ messages[0]['content'] }}",
    ],
)
def test_templates_with_a_date_get_a_fixed_one(template: str) -> None:
    assert encode_text(tokenizer(template), "hello", template=True).text == "Today is 26 Jul 2024. hello"
    assert TEMPLATE_DATE.year == 2024


def test_turns_of_a_chat_are_rendered_and_the_last_words_of_the_user_are_the_instruction() -> None:
    plain, chat = encode_texts(tokenizer(CHATML), ["hello", "whatever"], [None] * 2, template=True, chats=[(), CHAT])
    assert plain.text == "<s>user : hello <end>\nassistant : "
    assert chat.text == (
        "<s>system : be brief <end>\nuser : is it so <end>\nassistant : it is <end>\nuser : is it brief <end>\nassistant : "
    )
    marked = chat.offsets[instruction.mask(chat)]
    assert chat.text[int(marked[0, 0]) : int(marked[-1, 1])] == "is it brief"
    assert marked[0, 0] == chat.text.rindex("is it brief")


def test_a_chat_that_ends_with_the_assistant_has_no_further_turn() -> None:
    (chat,) = encode_texts(tokenizer(CHATML), ["x"], [None], template=True, chats=[CHAT[:3]])
    assert chat.text.endswith("assistant : it is <end>\n")
    marked = chat.offsets[instruction.mask(chat)]
    assert chat.text[int(marked[0, 0]) : int(marked[-1, 1])] == "is it so"


def test_chats_without_a_template_are_their_text() -> None:
    assert encode_texts(tokenizer(), ["be brief"], [None], chats=[CHAT])[0].text == "be brief"


@pytest.mark.parametrize(
    ("chat", "span", "message"),
    [
        (CHAT[2:3], None, "a turn of the user, got assistant"),
        (CHAT, (0, 2), "must have no span"),
    ],
)
def test_rejects_chats_that_a_template_cannot_hold(chat, span, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        encode_texts(tokenizer(CHATML), ["some text"], [span], template=True, chats=[chat])


@pytest.mark.parametrize(
    ("template", "whole", "answer"),
    [
        (CHATML, "<s>user : is it <end>\nassistant : so", "so"),
        (SPACED, "[user] is it[assistant] so", " so"),
        (ONE_TURN, "User said: is it Then the answer came: so", " so"),
    ],
)
def test_questions_are_asked_in_the_template(template: str, whole: str, answer: str) -> None:
    read = tokenizer(template)
    ids, special, start = encode_answer(read, "is it", " so", template=True)
    assert "".join(read.convert_ids_to_tokens(ids.tolist())) == whole
    assert "".join(read.convert_ids_to_tokens(ids[start:].tolist())) == answer
    assert special.tolist() == [token == "<s>" for token in read.convert_ids_to_tokens(ids.tolist())]
    bare, _, _ = encode_answer(read, "is it", " so")
    assert "".join(read.convert_ids_to_tokens(bare.tolist())) == "<s>is it so"


@pytest.mark.parametrize("text", ["<s>hello", "<s> hello", "<s>user : hello <end>"])
def test_rejects_a_first_token_that_would_be_there_twice(text: str) -> None:
    with pytest.raises(BadInput, match="begins with '<s>', which the tokenizer adds itself"):
        encode_text(tokenizer(), text)
    assert encode_text(tokenizer(), f"the mark {text}").ids.tolist().count(0) == 2


def test_a_format_in_a_variable_gets_the_fixed_date_too() -> None:
    template = "{% set form = '%d %b %Y' %}Today is {{ strftime_now(form) }}. {{ messages[0]['content'] }}"
    assert encode_text(tokenizer(template), "hello", template=True).text == "Today is 26 Jul 2024. hello"
    assert encode_text(tokenizer(), "hello", template=template).text == "Today is 26 Jul 2024. hello"


def test_of_several_chat_templates_the_default_is_used() -> None:
    read = tokenizer(CHATML)
    read.chat_template = {"default": CHATML, "tool_use": "x"}
    assert encode_text(read, "hello", template=True).text == "<s>user : hello <end>\nassistant : "
    read.chat_template = {"rag": CHATML, "tool_use": "x"}
    with pytest.raises(BadInput, match=r"several chat templates \(rag, tool_use\) and none called default"):
        encode_text(read, "hello", template=True)


@pytest.mark.parametrize(
    ("template", "whole"),
    [
        ("Q: {} A:", "<s>Q: is it A: so"),
        ("<s>Q: {} A:", "<s>Q: is it A: so"),
        ("Q: {} A: ", "<s>Q: is it A: so"),
        ("{} or {}", "<s>is it or is it so"),
        (CHATML, "<s>user : is it <end>\nassistant : so"),
    ],
)
def test_a_given_template_holds_each_special_token_and_space_once(template: str, whole: str) -> None:
    read = tokenizer()
    ids, _, start = encode_answer(read, "is it", " so", template=template)
    assert "".join(read.convert_ids_to_tokens(ids.tolist())) == whole
    assert "".join(read.convert_ids_to_tokens(ids[start:].tolist())).strip() == "so"
    asked = encode_text(read, "is it", template=template)
    assert asked.ids.tolist() == ids[: len(asked.ids)].tolist()
    words = asked.offsets[instruction.mask(asked)]
    assert asked.text[int(words[0, 0]) : int(words[-1, 1])] == "is it"


def test_a_template_is_none_own_a_file_or_a_text(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_bytes(b"\xef\xbb\xbf" + CHATML.encode() + b"\n")
    assert parse_template(tmp_path / "t.jinja") == parse_template(str(tmp_path / "t.jinja")) == CHATML
    assert [parse_template(one) for one in ("none", "own", None, True, "{}", "Q {}")] == [
        *(False, True, False, True, False, "Q {}")
    ]
    (tmp_path / "wide.txt").write_bytes("Q {}".encode("utf-16"))
    for broken in ("", "no slot", tmp_path, tmp_path / "wide.txt", "missing.jinja"):
        with pytest.raises(BadInput, match="`template` must be"):
            parse_template(broken)


def test_a_chat_of_several_turns_needs_a_chat_template() -> None:
    with pytest.raises(BadInput, match="a chat of 4 turns needs a chat template"):
        encode_texts(tokenizer(), ["x"], [None], template="Q {}", chats=[CHAT])
    (one,) = encode_texts(tokenizer(), ["x"], [None], template="Q {}", chats=[(("user", "hi"),)])
    assert one.text == "Q hi"


def test_names_of_templates_tell_whose_they_are() -> None:
    read = tokenizer(CHATML)
    own = template_name(read, True)
    assert own.startswith("own ")
    assert template_name(read, CHATML) == own.replace("own", "given")
    assert template_name(tokenizer(), True) == template_name(read, False) == "none"
    assert template_name(tokenizer(SPACED), True) != own
