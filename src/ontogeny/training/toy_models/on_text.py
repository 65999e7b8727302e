"""Raise a small model on a text of one's own: a byte-level BPE tokenizer trained on it (arXiv:1508.07909), then a GPT-NeoX.

The last tenth of the text is held out; what the model makes of it is the figure that counts.
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
from ontogeny.training.objectives import language_model
from ontogeny.training.toy_models.in_world import build_network, check_same_settings, toy_model_size, write_lineage_file
from ontogeny.training.train import TrainingCallback, train

_TEXT_CONTEXT = 128
_HELD_OUT_SHARE = 0.1
_MIN_TOKEN_COUNT = 10
"""So often, on average, must a token be seen for its embedding to be learned."""
_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")


@dataclass(frozen=True)
class TextConfig:
    text: Path
    """A text file in UTF-8, plain or .gz."""
    vocabulary: int = 2000
    steps: int = 1000
    size: str = "small"
    rows: int = 8
    """Of 128 tokens, a step."""
    learning_rate: float = 3e-3
    checkpoints: int = 16
    seed: int = 0


@dataclass(frozen=True)
class TextResults:
    """Of the last checkpoint."""

    heldout_loss: float
    """Nats per token of the held-out text."""
    bits_per_byte: float
    tokens: int
    """Of the held-out text."""
    vocabulary: int
    text_tokens: int
    """Of the text that was trained on."""


@dataclass(frozen=True)
class TokenizedText:
    """A text as token ids."""

    tokenizer: PreTrainedTokenizerFast
    seen: Int[Tensor, " token"]
    heldout: Int[Tensor, " token"]
    heldout_bytes: int
    sha256: str


def prepare_text(config: TextConfig) -> TokenizedText:
    """Read, part and tokenize the text.

    Raises:
        BadInput: no such text, no text in it, or too little of it for the vocabulary.
    """
    text = read_training_text(config.text)
    seen, held = split_text(text)
    tokenizer = train_tokenizer(seen, config.vocabulary)
    ids, heldout = (torch.tensor(tokenizer(part)["input_ids"]) for part in (seen, held))
    _check_long_enough(config, len(ids), len(heldout))
    return TokenizedText(tokenizer, ids, heldout, len(held.encode()), hashlib.sha256(text.encode()).hexdigest())


def train_on_text(out: Path, config: TextConfig, *, on_progress: TrainingCallback | None = None) -> TextResults:
    """Train the tokenizer and the model, and measure it on what was held out. What is there is kept, what was interrupted goes on.

    Raises:
        BadInput: a text that cannot be used (see `prepared`), or another model in `out`.
    """
    plan, ready = toy_model_size(config.size), prepare_text(config)
    tokenizer, ids = ready.tokenizer, ready.seen

    def batches(step: int) -> TokenBatch:
        rng = np.random.default_rng([config.seed, step])
        starts = torch.from_numpy(rng.integers(len(ids) - _TEXT_CONTEXT + 1, size=config.rows))
        return TokenBatch(ids[starts[:, None] + torch.arange(_TEXT_CONTEXT)])

    first = min(10, config.steps)
    with run_lock(out):
        check_same_settings(out / "raising.json", {**vars(config), "text": config.text.name, "sha256": ready.sha256})
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
        figures = _measure_text_model(out / "base" / f"checkpoint-{config.steps}", ready)
        write_json(out / "figures.json", vars(figures))
        return figures


def read_training_text(path: Path) -> str:
    """
    Raises:
        BadInput: it cannot be read as text.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"the text {path} cannot be read: {error}. Give a .txt file, plain or .gz.") from error
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode("utf-8-sig")
        if not text.strip():
            raise BadInput(f"the text {path} is empty.")
        if "\0" not in text:
            return text
    raise BadInput(f"{path} is no text in UTF-8. Convert it, or give another file.")


def split_text(text: str) -> tuple[str, str]:
    """What is trained on and the end that is held out, cut at a line where there is one near."""
    place = int(len(text) * (1 - _HELD_OUT_SHARE))
    line = text.find("\n", place) + 1
    cut = line if 0 < line < len(text) - len(text) * _HELD_OUT_SHARE / 2 else place
    return text[:cut], text[cut:]


def train_tokenizer(text: str, vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of exactly so many tokens; every text gets `<s>` in front.

    Raises:
        BadInput: the vocabulary is smaller than the bytes, or larger than the text can fill.
    """
    least = len(_SPECIAL) + 256
    if vocabulary < least:
        raise BadInput(f"a vocabulary of {vocabulary} has no room for the {least} bytes and marks. Take more.")
    made = Tokenizer(models.BPE(unk_token=_SPECIAL[1]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    made.train_from_iterator(text.splitlines(keepends=True), trainer)
    if (found := made.get_vocab_size()) < vocabulary:
        raise BadInput(
            f"the text is too small for a vocabulary of {vocabulary}: it has {found} tokens that occur twice. "
            f"Take --vocabulary {found} or fewer, or more text."
        )
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), _SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def _check_long_enough(config: TextConfig, seen: int, held: int) -> None:
    if seen < _MIN_TOKEN_COUNT * config.vocabulary or min(seen, held) < 2 * _TEXT_CONTEXT:
        raise BadInput(
            f"the text {config.text} is too small: {seen:,} tokens to train on and {held:,} held out. A vocabulary of "
            f"{config.vocabulary} needs {max(_MIN_TOKEN_COUNT * config.vocabulary, 20 * _TEXT_CONTEXT):,}. "
            "Give more text, or a smaller `vocabulary`."
        )


@torch.no_grad()
def _measure_text_model(checkpoint: Path, ready: TokenizedText) -> TextResults:
    with hide_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    heldout = ready.heldout
    rows = heldout[: len(heldout) // _TEXT_CONTEXT * _TEXT_CONTEXT].view(-1, _TEXT_CONTEXT)
    losses = [float(language_model(model, TokenBatch(part))) * len(part) for part in rows.split(32)]
    loss = sum(losses) / len(rows)
    bits = loss * len(heldout) / math.log(2) / ready.heldout_bytes
    return TextResults(loss, bits, rows.numel(), len(ready.tokenizer), len(ready.seen))
