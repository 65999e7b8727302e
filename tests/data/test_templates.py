"""Chat templates: a fixed date, turns of a chat, questions as turns, and special tokens that a text already holds."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ontogeny.data.positions import instruction
from ontogeny.data.templates import TEMPLATE_DATE
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
