"""Chat templates in a process of their own: the same text as in this one, and an end for every template that loops or multiplies."""

import os
import time
from pathlib import Path

import pytest

from ontogeny.data import rendering, templates
from ontogeny.data.tokenization import encode_text
from ontogeny.errors import BadInput
from tests.helpers.tiny_models import byte_tokenizer

PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
ENDLESS = {
    "a loop": "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3,
    "a power in one step": "{{ 10 ** (10 ** 9) }}",
    "a power of a power": "{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
    "a sum in one step": "{{ range(99999) | map('string') | map('center', 9999) | sum(start='') }}",
    "a wide text": "{{ 'x' | center(10 ** 11) }}",
    "a long text": "{{ 'x' * 10 ** 11 }}",
    "a wide format": "{{ '%099999999999d' % 1 }}",
    "a text that doubles": "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "a list that doubles": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
}


@pytest.fixture
def tokenizer():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = PLAIN
    return tokenizer


def children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_template_is_ended(name: str, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "RENDER_SECONDS", 0.3)
    monkeypatch.setattr(rendering, "_SPARE_BYTES", 2**28)
    tokenizer.chat_template = ENDLESS[name]
    with pytest.raises(BadInput, match=r"cannot be rendered \(.+\): leave `template` off"):
        encode_text(tokenizer, "hi", template=True)
    tokenizer.chat_template = PLAIN
    assert encode_text(tokenizer, "hi", template=True).text == "<user>hi<assistant>"


def test_process_answers_as_this_one(tokenizer) -> None:
    for text in ("hi", "a\nb", "ä €", ""):
        turns = [{"role": "user", "content": text}]
        here = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert templates.render_chat(tokenizer, (("user", text),), True) == here


def test_one_process_answers_all_texts_of_a_template(tokenizer) -> None:
    templates.render_chat(tokenizer, (("user", "a"),), True)
    before = children()
    for text in "bcd":
        templates.render_chat(tokenizer, (("user", text),), True)
    assert children() == before
    tokenizer.chat_template = "other " + PLAIN
    assert templates.render_chat(tokenizer, (("user", "a"),), True) == "other <user>a<assistant>"
    assert len(children()) == len(before)
    assert children() != before


def test_template_that_fails_leaves_its_process(tokenizer) -> None:
    tokenizer.chat_template = "{% if messages[0].content == 'x' %}{{ raise_exception('no x') }}{% endif %}" + PLAIN
    with pytest.raises(BadInput, match="no x"):
        templates.render_chat(tokenizer, (("user", "x"),), True)
    before = children()
    assert templates.render_chat(tokenizer, (("user", "y"),), True) == "<user>y<assistant>"
    assert children() == before


def test_process_that_was_killed_is_started_again(tokenizer) -> None:
    templates.render_chat(tokenizer, (("user", "a"),), True)
    running = rendering._running[os.getpid()]
    os.kill(running.process, 9)
    time.sleep(0.05)
    assert templates.render_chat(tokenizer, (("user", "b"),), True) == "<user>b<assistant>"


def test_process_holds_no_file_of_this_one(tokenizer, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w"):
        tokenizer.chat_template = f"{PLAIN} "
        templates.render_chat(tokenizer, (("user", "a"),), True)
        held = Path(f"/proc/{rendering._running[os.getpid()].process}/fd")
        assert not [path for path in held.iterdir() if str(tmp_path) in os.readlink(path)]


def test_panicking_tokenizer_prints_nothing(tokenizer, capfd: pytest.CaptureFixture[str]) -> None:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex("(.|.|.|.|.|..)*(.|.|.|..)*[^a-z]$"), "isolated")
    tokenizer.backend_tokenizer.pre_tokenizer = split
    os.write(2, b"before\n")
    with pytest.raises(BadInput, match="the tokenizer cannot read the texts"):
        encode_text(tokenizer, "it was a long and winding road that leads to your door", template=False)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"
