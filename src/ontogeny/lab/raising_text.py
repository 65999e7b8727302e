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
from ontogeny.lab.alone import alone
from ontogeny.lab.batches import Tokens
from ontogeny.lab.objectives import language_model
from ontogeny.lab.raising import network, same_settings, sized, write_lineage
from ontogeny.lab.schedules import log_steps
from ontogeny.lab.training import TrainingConfig, Watch, no_bars, train
from ontogeny.store import write_json

CONTEXT = 128
HELD_OUT = 0.1
OFTEN = 10
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
class TextFigures:
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
class Prepared:
    """A text as token ids."""

    tokenizer: PreTrainedTokenizerFast
    seen: Int[Tensor, " token"]
    heldout: Int[Tensor, " token"]
    heldout_bytes: int
    sha256: str


def prepared(config: TextConfig) -> Prepared:
    """Read, part and tokenize the text.

    Raises:
        BadInput: no such text, no text in it, or too little of it for the vocabulary.
    """
    text = read_text(config.text)
    seen, held = parted(text)
    tokenizer = learn_tokenizer(seen, config.vocabulary)
    ids, heldout = (torch.tensor(tokenizer(part)["input_ids"]) for part in (seen, held))
    _enough(config, len(ids), len(heldout))
    return Prepared(tokenizer, ids, heldout, len(held.encode()), hashlib.sha256(text.encode()).hexdigest())


def raise_on_text(out: Path, config: TextConfig, *, on_progress: Watch | None = None) -> TextFigures:
    """Train the tokenizer and the model, and measure it on what was held out. What is there is kept, what was interrupted goes on.

    Raises:
        BadInput: a text that cannot be used (see `prepared`), or another model in `out`.
    """
    plan, ready = sized(config.size), prepared(config)
    tokenizer, ids = ready.tokenizer, ready.seen

    def batches(step: int) -> Tokens:
        rng = np.random.default_rng([config.seed, step])
        starts = torch.from_numpy(rng.integers(len(ids) - CONTEXT + 1, size=config.rows))
        return Tokens(ids[starts[:, None] + torch.arange(CONTEXT)])

    first = min(10, config.steps)
    with alone(out):
        same_settings(out / "raising.json", {**vars(config), "text": config.text.name, "sha256": ready.sha256})
        train(
            batches,
            language_model,
            TrainingConfig(config.steps, config.learning_rate),
            out / "base",
            start=network(plan, len(tokenizer), CONTEXT),
            tokenizer=tokenizer,
            save_at=log_steps(config.steps, config.checkpoints, first=first),
            seed=config.seed,
            on_progress=on_progress,
        )
        write_lineage(out, config.text.name.split(".")[0], config.seed)
        figures = _measured(out / "base" / f"checkpoint-{config.steps}", ready)
        write_json(out / "figures.json", vars(figures))
        return figures


def read_text(path: Path) -> str:
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


def parted(text: str) -> tuple[str, str]:
    """What is trained on and the end that is held out, cut at a line where there is one near."""
    place = int(len(text) * (1 - HELD_OUT))
    line = text.find("\n", place) + 1
    cut = line if 0 < line < len(text) - len(text) * HELD_OUT / 2 else place
    return text[:cut], text[cut:]


def learn_tokenizer(text: str, vocabulary: int) -> PreTrainedTokenizerFast:
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


def _enough(config: TextConfig, seen: int, held: int) -> None:
    if seen < OFTEN * config.vocabulary or min(seen, held) < 2 * CONTEXT:
        raise BadInput(
            f"the text {config.text} is too small: {seen:,} tokens to train on and {held:,} held out. A vocabulary of "
            f"{config.vocabulary} needs {max(OFTEN * config.vocabulary, 20 * CONTEXT):,}. Give more text, or a smaller --vocabulary."
        )


@torch.no_grad()
def _measured(checkpoint: Path, ready: Prepared) -> TextFigures:
    with no_bars():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    heldout = ready.heldout
    rows = heldout[: len(heldout) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    losses = [float(language_model(model, Tokens(part))) * len(part) for part in rows.split(32)]
    loss = sum(losses) / len(rows)
    bits = loss * len(heldout) / math.log(2) / ready.heldout_bytes
    return TextFigures(loss, bits, rows.numel(), len(ready.tokenizer), len(ready.seen))
