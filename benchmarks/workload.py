"""The benchmark's model series and texts, made from a seed: random GPT-NeoX of Pythia's shapes, texts of 10 to 80 tokens.

Nothing is downloaded. Texts have lognormal lengths (mean near 40 tokens); a word of one of two small sets near their end decides
the label, with a tenth of the labels flipped, so that probes have something to find and something to miss. Words come again as they
do in texts, by Zipf's law: .20 of the tokens of 1000 texts are distinct (.09 to .21 in the five files of arXiv:2402.19465). By choice
all words are equally likely, as in no text (.68).
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent / ".bench" / "work"
VERSION = 3
TEST = 0.2
MARKS = 40
"""Final words of a text, per class."""
EXPONENTS = {"zipf": 1.1, "uniform": 0.0}
"""Frequency of words: their rank to this power."""


@dataclass(frozen=True)
class Shape:
    layers: int
    d: int
    heads: int
    vocab: int


SHAPES = {
    "tiny": Shape(2, 128, 4, 2048),
    "70m": Shape(6, 512, 8, 50304),
    "160m": Shape(12, 768, 12, 50304),
}


@dataclass(frozen=True)
class Work:
    shape: str
    folder: Path
    """Holds checkpoint-1 … checkpoint-C and the tokenizer."""
    texts: Path
    """CSV for the command line: text, label."""
    ids: Path
    """JSON: token ids and labels, so that no peer pays for a tokenizer."""

    @property
    def checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def make(shape: str, texts: int, checkpoints: int, words: str = "zipf") -> Work:
    """Write missing files."""
    base = ROOT / f"v{VERSION}-{shape}"
    folder = base / f"C{checkpoints}"
    for step in range(1, checkpoints + 1):
        _checkpoint(SHAPES[shape], base / "all" / f"checkpoint-{step}", seed=step)
        link = folder / f"checkpoint-{step}"
        if not link.exists():
            folder.mkdir(parents=True, exist_ok=True)
            # Relative: it moves with the folder.
            link.symlink_to(Path("..", "all", link.name), target_is_directory=True)
    if not (folder / "tokenizer.json").is_file():
        _tokenizer(SHAPES[shape], folder)
    work = Work(shape, folder, base / f"{words}-{texts}.csv", base / f"{words}-{texts}.json")
    if not work.ids.is_file():
        _texts(SHAPES[shape], texts, EXPONENTS[words], work)
    return work


def _texts(shape: Shape, count: int, exponent: float, work: Work) -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.6, 0.43, count).round(), 10, 80).astype(int)
    labels = np.arange(count) % 2
    often = np.arange(1, shape.vocab - 2 * MARKS + 1) ** -exponent
    rows = []
    for length, label in zip(lengths, labels, strict=True):
        words = 2 * MARKS + rng.choice(len(often), length, p=often / often.sum())
        side = label if rng.random() > 0.1 else 1 - label
        words[-1] = side * MARKS + rng.integers(MARKS)
        rows.append(words.tolist())
    work.ids.write_text(json.dumps({"ids": rows, "labels": labels.tolist(), "train": round(count * (1 - TEST))}))
    with work.texts.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(([" ".join(f"w{i}" for i in row), label] for row, label in zip(rows, labels, strict=True)))


def _tokenizer(shape: Shape, folder: Path) -> None:
    """One word is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(shape.vocab)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)


def _checkpoint(shape: Shape, folder: Path, *, seed: int) -> None:
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return
    import torch
    from transformers import AutoModelForCausalLM, GPTNeoXConfig

    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.d,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.d,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
