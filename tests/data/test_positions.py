"""Read positions: their names, regions, and invariance to padding and templates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ontogeny.data.positions import (
    Encoding,
    Position,
    Region,
    content,
    everything,
    instruction,
    last,
    mean,
    pad_weights,
    parse_region,
    span,
)
from ontogeny.data.tokenization import encode_text, encode_texts
from ontogeny.errors import BadInput

PLAIN = st.sampled_from([everything, content, span, instruction])
REGIONS = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        inner.map(lambda r: ~r),
        st.tuples(inner, inner).map(lambda p: p[0] & p[1]),
        st.tuples(inner, inner).map(lambda p: p[0] | p[1]),
    ),
    max_leaves=6,
)
WORDS = ["<unk>", "<s>", "</s>", "<user>", "<end>", "the", "cat", "sat", "on", "mat", "user", "assistant", "hello", "?"]


def encoding(special: str = "S....", span: tuple[int, int] | None = (4, 7)) -> Encoding:
    """`the cat sat on` behind a BOS: S marks special tokens."""
    offsets = torch.tensor([(0, 0), (0, 3), (4, 7), (8, 11), (12, 14)])
    return Encoding(
        torch.arange(5), offsets, torch.tensor([mark == "S" for mark in special]), "the cat sat on", span, 4, 1
    )


def tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(["<s>", "</s>", "<user>", "<end>"])
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<user>", "<end>"],
    )
    made.chat_template = template
    return made


CHAT = "<s><user> user {% for m in messages %}{{ m['content'] | trim }}{% endfor %} <end> assistant"


@given(region=REGIONS, reduce=st.sampled_from(["last", "first", "mean"]), shift=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_position_is_parsed_from_its_name(region: Region, reduce: str, shift: int) -> None:
    position = Position(reduce, region, 0 if reduce == "mean" else shift)
    assert Position.parse(str(position)) == position
    assert hash(Position.parse(str(position))) == hash(position)


@given(left=REGIONS, right=REGIONS)
@settings(max_examples=60, deadline=None)
def test_regions_combine_like_sets(left: Region, right: Region) -> None:
    some = encoding("S...S")
    a, b = left.mask(some), right.mask(some)
    assert torch.equal((left & right).mask(some), a & b)
    assert torch.equal((left | right).mask(some), a | b)
    assert torch.equal((~left).mask(some), ~a)
    assert torch.equal(parse_region(str(left & ~right)).mask(some), a & ~b)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("last", [0, 0, 0, 0, 1]),
        ("last-2", [0, 0, 1, 0, 0]),
        ("first", [0, 1, 0, 0, 0]),
        ("first+1", [0, 0, 1, 0, 0]),
        ("first:everything", [1, 0, 0, 0, 0]),
        ("mean", [0, 0.25, 0.25, 0.25, 0.25]),
        ("mean:everything", [0.2, 0.2, 0.2, 0.2, 0.2]),
        ("last:span", [0, 0, 1, 0, 0]),
        ("mean:content & ~span", [0, 1 / 3, 0, 1 / 3, 1 / 3]),
        ("last:instruction", [0, 0, 0, 1, 0]),
        ("last:~instruction", [0, 0, 0, 0, 1]),
    ],
)
def test_weights_of_each_position(name: str, weights: list[float]) -> None:
    assert torch.allclose(Position.parse(name).weights(encoding()), torch.tensor(weights).float())


def test_last_reads_eos_and_last_content_does_not() -> None:
    assert Position.parse("last").weights(encoding("S...S")).argmax() == 4
    assert Position.parse("last:content").weights(encoding("S...S")).argmax() == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lst", "did you mean last"),
        ("span", "last:span"),
        ("", "not a position"),
        ("last:", "error at its end"),
        ("last:spam", "did you mean span"),
        ("last:(span", "not a region"),
        ("last:span span", "error at 'span'"),
        ("last:~", "not a region"),
        ("last+1", "last-2"),
        ("mean-1", "outside"),
    ],
)
def test_rejects_invalid_position_names(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        Position.parse(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "some", "message"),
    [
        ("last:span", encoding(span=None), "has no span"),
        ("last:span & ~content", encoding(), "nothing to read at last:span & ~content.*'the cat sat on'"),
        ("last-5", encoding(), "the region has 5 tokens"),
        ("last", encoding("SSSSS"), "has only special tokens"),
    ],
)
def test_empty_region_error_names_the_text(name: str, some: Encoding, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Position.parse(name).weights(some)


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    side=st.sampled_from(["left", "right"]),
    name=st.sampled_from(["last", "mean"]),
)
@settings(max_examples=30, deadline=None)
def test_padding_side_does_not_move_the_position(lengths: list[int], side: str, name: str) -> None:
    rows = [
        Encoding(torch.arange(n), torch.zeros(n, 2, dtype=torch.int64), torch.zeros(n, dtype=torch.bool), "x")
        for n in lengths
    ]
    weights = [Position.parse(name).weights(row) for row in rows]
    width = max(lengths) + 1
    ids = torch.full((len(rows), width), -1)
    for i, n in enumerate(lengths):
        ids[i, slice(width - n, None) if side == "left" else slice(0, n)] = torch.arange(n)
    placed = pad_weights(weights, (ids >= 0).long())
    assert torch.allclose(
        (placed * ids).sum(1), torch.tensor([float(w @ row.ids.float()) for w, row in zip(weights, rows, strict=True)])
    )
    assert not placed[ids < 0].any()


def test_rejects_mask_of_other_lengths() -> None:
    with pytest.raises(BadInput, match="equally many tokens"):
        pad_weights([torch.ones(2)], torch.ones(1, 3, dtype=torch.int64))


def test_encoding_has_bos_and_span() -> None:
    made = encode_text(tokenizer(), "the zebra sat", span=(4, 9))
    assert made.special.tolist() == [True, False, False, False]  # the unknown word is a word
    assert Position.parse("last:span").weights(made).tolist() == [0, 0, 1, 0]
    assert mean.weights(made)[0] == 0


@pytest.mark.parametrize("text", ["hello", "user", "assistant", " hello cat ", "the cat sat"])
def test_instruction_tokens_are_located_in_the_template(text: str) -> None:
    """Also if the template contains the same words, or trims them."""
    made = encode_text(tokenizer(CHAT), text, span=(len(text) - len(text.lstrip()), len(text.rstrip())), template=True)
    words = [WORDS[i] for i in made.ids[Position.parse("mean:instruction").weights(made) > 0]]
    assert words == text.split()
    assert [WORDS[i] for i in made.ids[Position.parse("mean:span").weights(made) > 0]] == text.split()
    assert [WORDS[i] for i in made.ids[made.special]] == ["<s>", "<user>", "<end>"]
    assert WORDS[made.ids[last.weights(made).argmax()]] == "assistant"
    assert WORDS[made.ids[Position.parse("last-1").weights(made).argmax()]] == "<end>"


def test_batch_encoding_equals_single_encoding() -> None:
    texts = ["hello", "the cat sat", "on ?"]
    for one, text in zip(encode_texts(tokenizer(CHAT), texts, [None] * 3, template=True), texts, strict=True):
        alone = encode_text(tokenizer(CHAT), text, template=True)
        assert torch.equal(one.ids, alone.ids)
        assert (one.instruction_start, one.instruction_end) == (alone.instruction_start, alone.instruction_end)


def test_rejects_missing_or_rewriting_template() -> None:
    with pytest.raises(BadInput, match="no chat template"):
        encode_text(tokenizer(), "hello", template=True)
    with pytest.raises(BadInput, match="rewrites"):
        encode_text(tokenizer("{{ messages[0]['content'] | upper }}"), "hello", template=True)
    with pytest.raises(BadInput, match="is not in a chat template"):
        Position.parse("last:instruction").weights(encode_text(tokenizer(), "hello"))


def test_span_in_byte_level_tokenizer(shared) -> None:
    """With characters of several bytes and words of several tokens, exactly the span's characters are read."""
    neox = PreTrainedTokenizerFast(
        tokenizer_file=str(shared / "tokenizers" / "neox_20b_tokenizer.json"), eos_token="<|endoftext|>"
    )
    text = "The city of Krasnodar is in Rüssia 😀."
    for part in ("Krasnodar", "Rüssia", "😀", "The", "."):
        start = text.index(part)
        made = encode_text(neox, text, span=(start, start + len(part)))
        read = made.ids[Position.parse("mean:span").weights(made) > 0]
        assert neox.decode(read).strip() == part
