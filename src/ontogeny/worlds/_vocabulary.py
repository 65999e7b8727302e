"""Word-level languages: a Hugging Face tokenizer, templates with slots, and rows of packed sentences as token ids."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TokenIds = NDArray[np.int64]

PAD, UNK, BOS, EOS = SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")


def build_vocabulary(words: Sequence[str]) -> dict[str, int]:
    """Ids of the special tokens, then of the words in order, without duplicates."""
    return {word: number for number, word in enumerate(dict.fromkeys((*SPECIAL, *words)))}


def word_tokenizer(vocabulary: Mapping[str, int], *, longest: int) -> PreTrainedTokenizerFast:
    """A tokenizer for exactly these words; it splits at white space and puts `<s>` in front of every text."""
    backend = Tokenizer(models.WordLevel(dict(vocabulary), unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=longest,
    )


def lookup_ids(vocabulary: Mapping[str, int], words: Sequence[str]) -> TokenIds:
    return np.array([vocabulary[word] for word in words])


def fill_template(template: str, vocabulary: Mapping[str, int], slots: Mapping[str, TokenIds]) -> TokenIds:
    """Sentences of a template as rows of token ids; the place of `{name}` takes the column of ids `slots[name]`."""
    count = len(next(iter(slots.values())))
    words = template.split()
    sentences = np.empty((count, len(words)), dtype=np.int64)
    for place, word in enumerate(words):
        sentences[:, place] = slots[word[1:-1]] if word.startswith("{") else vocabulary[word]
    return sentences


def sample_text_rows(
    samplers: Sequence[tuple[Callable[[int], TokenIds], float]],
    rng: np.random.Generator,
    *,
    rows: int,
    context: int,
    shortest: int,
    first: int,
) -> TokenIds:
    """Rows of `context` token ids with sentences of each sampler by its share, in random order; `shortest` is the least sentence length."""
    count = rows * -(-context // shortest)
    shares = np.array([share for _, share in samplers])
    counts = rng.multinomial(count, shares / shares.sum())
    blocks = [sampler(n) for (sampler, _), n in zip(samplers, counts, strict=True) if n]
    return pack_sentences(blocks, rng.permutation(count), rows=rows, context=context, first=first)


def pack_sentences(blocks: Sequence[TokenIds], order: TokenIds, *, rows: int, context: int, first: int) -> TokenIds:
    """Concatenate sentences of several lengths, in `order`, into rows of exactly `context` tokens; the last one of a row is cut.

    Every row starts with `first` and a whole sentence, so that a single text, as it is read later, looks like the start of a row.
    """
    widest = max(block.shape[1] for block in blocks)
    lengths = np.repeat([block.shape[1] for block in blocks], [len(block) for block in blocks])
    sentences, end = np.zeros((len(lengths), widest), dtype=np.int64), 0
    for block in blocks:
        sentences[end : end + len(block), : block.shape[1]] = block
        end += len(block)
    order = order.reshape(rows, -1)
    lengths, sentences = lengths[order], sentences[order]
    starts = 1 + np.cumsum(lengths, axis=1) - lengths
    places = starts[:, :, None] + np.arange(widest)
    inside = (np.arange(widest) < lengths[:, :, None]) & (places < context)
    packed = np.full((rows, context), first, dtype=np.int64)
    packed[np.nonzero(inside)[0], places[inside]] = sentences[inside]
    return packed
