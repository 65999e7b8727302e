"""Train a toy model on a text: a byte-level BPE tokenizer (arXiv:1508.07909), then a GPT-NeoX.

The last tenth of the text is held out, for the loss that is reported.
"""

import contextlib
import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from ontogeny.errors import BadInput
from ontogeny.storage.files import write_json
from ontogeny.storage.lock import run_lock
from ontogeny.training.batches import TokenBatch
from ontogeny.training.checkpoint_schedule import log_steps
from ontogeny.training.checkpoints import hide_progress_bars
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.objectives.language_model import language_model
from ontogeny.training.toy_models.in_world import build_network, check_same_settings, toy_model_size, write_lineage_file
from ontogeny.training.train import TrainingCallback, train

_TEXT_CONTEXT = 128
_HELD_OUT_SHARE = 0.1
_MIN_TOKEN_COUNT = 10
"""Minimum mean count of a token in the training text, so that its embedding can be learned."""
_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")


@dataclass(frozen=True)
class TextConfig:
    """Settings of a model trained on a text."""

    text: Path
    """A text file in UTF-8, plain or .gz."""
    vocabulary: int = 2000
    steps: int = 1000
    size: str = "small"
    rows: int = 8
    """Rows of 128 tokens per step."""
    learning_rate: float = 3e-3
    checkpoints: int = 16
    seed: int = 0


@dataclass(frozen=True)
class TextResults:
    """Figures of the last checkpoint."""

    heldout_loss: float
    """Nats per token of the held-out text."""
    bits_per_byte: float
    tokens: int
    """Number of held-out tokens."""
    vocabulary: int
    text_tokens: int
    """Number of training tokens."""


@dataclass(frozen=True)
class TokenizedText:
    """A text as token ids, split into a training and a held-out part."""

    tokenizer: PreTrainedTokenizerFast
    seen: Int[Tensor, " token"]
    heldout: Int[Tensor, " token"]
    heldout_bytes: int
    sha256: str


def prepare_text(config: TextConfig) -> TokenizedText:
    """Read, split and tokenize the text.

    Raises:
        BadInput: the file cannot be read, is not text, or is too short for the vocabulary.
    """
    text = read_training_text(config.text)
    training_text, heldout_text = split_text(text)
    tokenizer = train_tokenizer(training_text, config.vocabulary)
    seen, heldout = (torch.tensor(tokenizer(part)["input_ids"]) for part in (training_text, heldout_text))
    _check_long_enough(config, len(seen), len(heldout))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return TokenizedText(tokenizer, seen, heldout, len(heldout_text.encode()), sha256)


def train_on_text(out: Path, config: TextConfig, *, on_progress: TrainingCallback | None = None) -> TextResults:
    """Train tokenizer and model, and measure the held-out loss; resumes if interrupted.

    Raises:
        BadInput: a text that cannot be used (see `prepare_text`), or another model in `out`.
    """
    plan, text = toy_model_size(config.size), prepare_text(config)
    tokenizer, ids = text.tokenizer, text.seen

    def batches(step: int) -> TokenBatch:
        rng = np.random.default_rng([config.seed, step])
        starts = torch.from_numpy(rng.integers(len(ids) - _TEXT_CONTEXT + 1, size=config.rows))
        return TokenBatch(ids[starts[:, None] + torch.arange(_TEXT_CONTEXT)])

    first = min(10, config.steps)
    with run_lock(out):
        check_same_settings(out / "raising.json", {**vars(config), "text": config.text.name, "sha256": text.sha256})
        train(
            batches,
            language_model,
            TrainingConfig(config.steps, config.learning_rate),
            out / "base",
            start=build_network(plan, len(tokenizer), _TEXT_CONTEXT),
            tokenizer=tokenizer,
            save_at=log_steps(config.steps, config.checkpoints, first=first),
            seed=config.seed,
            on_progress=on_progress,
        )
        write_lineage_file(out, config.text.name.split(".")[0], config.seed)
        figures = _measure_text_model(out / "base" / f"checkpoint-{config.steps}", text)
        write_json(out / "figures.json", vars(figures))
        return figures


def read_training_text(path: Path) -> str:
    """Read a UTF-8 text file, plain or .gz.

    Raises:
        BadInput: the file cannot be read as text, or is empty.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"the text {path} cannot be read ({error}): give a .txt file, plain or .gz.") from error
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode("utf-8-sig")
        if not text.strip():
            raise BadInput(f"the text {path} is empty: give another file.")
        if "\0" not in text:
            return text
    raise BadInput(f"{path} must be UTF-8 text: convert it, or give another file.")


def split_text(text: str) -> tuple[str, str]:
    """Training text and held-out end, cut at a line break if there is one near."""
    place = int(len(text) * (1 - _HELD_OUT_SHARE))
    line = text.find("\n", place) + 1
    cut = line if 0 < line < len(text) - len(text) * _HELD_OUT_SHARE / 2 else place
    return text[:cut], text[cut:]


def train_tokenizer(text: str, vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of exactly `vocabulary` tokens; it puts `<s>` in front of every text.

    Raises:
        BadInput: the vocabulary is smaller than the bytes, or larger than the text can fill.
    """
    least = len(_SPECIAL) + 256
    if vocabulary < least:
        raise BadInput(f"`vocabulary` must be at least {least}, the bytes and special tokens, got {vocabulary}.")
    backend = Tokenizer(models.BPE(unk_token=_SPECIAL[1]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    backend.train_from_iterator(text.splitlines(keepends=True), trainer)
    if (size := backend.get_vocab_size()) < vocabulary:
        raise BadInput(
            f"`vocabulary` must be at most {size}, the tokens that occur twice in the text, got {vocabulary}: reduce it, or give more text."
        )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), _SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def _check_long_enough(config: TextConfig, seen: int, heldout: int) -> None:
    if seen < _MIN_TOKEN_COUNT * config.vocabulary or min(seen, heldout) < 2 * _TEXT_CONTEXT:
        raise BadInput(
            f"the text {config.text} must have {max(_MIN_TOKEN_COUNT * config.vocabulary, 20 * _TEXT_CONTEXT):,} tokens for a "
            f"`vocabulary` of {config.vocabulary}, got {seen:,} for training and {heldout:,} held out: give more text, or reduce it."
        )


@torch.no_grad()
def _measure_text_model(checkpoint: Path, text: TokenizedText) -> TextResults:
    with hide_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, trust_remote_code=False).eval()
    heldout = text.heldout
    rows = heldout[: len(heldout) // _TEXT_CONTEXT * _TEXT_CONTEXT].view(-1, _TEXT_CONTEXT)
    losses = [float(language_model(model, TokenBatch(part))) * len(part) for part in rows.split(32)]
    loss = sum(losses) / len(rows)
    bits = loss * len(heldout) / math.log(2) / text.heldout_bytes
    return TextResults(loss, bits, rows.numel(), len(text.tokenizer), len(text.seen))
