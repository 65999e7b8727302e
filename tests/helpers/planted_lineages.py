"""Small training runs whose truth is known: random ones, and one in which a concept is planted in the embedding, step by step.

A text ends in a character; the concept is a coin thrown for each character, and characters are the groups. So nothing of it can be
read on held-out characters until their embeddings are pushed apart along one direction. Answers follow a second, later push.
"""

import csv
import json
import math
import random
import string
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.helpers.tiny_models import byte_tokenizer, tiny_model

CHARACTERS = [c for c in string.ascii_letters + string.digits + string.punctuation if c not in "\"',"]
WORDS = ("so they say", "it was told", "we have seen", "one may hear")
SIGMA = 0.02
"""Standard deviation of a fresh embedding."""
YES, NO = "+", "-"
"""The right answers of a true and a false text."""
RISE = {1: 0.0, 2: 0.0, 4: 0.0, 8: 0.0, 16: 4.0, 32: 6.0, 64: 8.0, 128: 8.0}
"""Push of each step, in standard deviations of an embedding."""
SPOKEN = {16: 0.0, 32: 0.0, 64: 1.0, 128: 1.0}
"""How strongly the answers follow: the concept is readable at step 16, and used only at step 64."""


def coin(character: str) -> bool:
    """A label that is balanced and has nothing to do with case or kind of the character."""
    return _coins()[character]


@cache
def _coins() -> dict[str, bool]:
    order = sorted(CHARACTERS)
    random.Random(3).shuffle(order)
    return {character: i % 2 == 0 for i, character in enumerate(order)}


def rows(*, characters: int = len(CHARACTERS), kind: str = "binary", answers: bool = False) -> list[dict[str, Any]]:
    """Two texts a character; classes are three throws, a number is what the other kinds have no order for."""
    made: list[dict[str, Any]] = []
    for i, character in enumerate(CHARACTERS[:characters]):
        for words in (WORDS[i % 4], WORDS[(i + 1) % 4]):
            label = {
                "binary": str(int(coin(character))),
                "classes": ("red", "green", "blue")[i % 3],
                "number": f"{math.sin(i) + 0.01 * len(words):.4f}",
            }[kind]
            row = {"text": f"{words} {character}", "label": label, "group": f"c{i}"}
            if answers:
                right, wrong = (YES, NO) if coin(character) else (NO, YES)
                row |= {"prompt": row["text"], "right": right, "wrong": wrong}
            made.append(row)
    return made


def write(path: Path, table: Sequence[Mapping[str, Any]]) -> Path:
    """A concept file, by its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


def planted(push: float, *, answers: float = 0.0, context: int = 64, fresh: bool = False):
    """A model in which the concept stands out by `push` standard deviations, and is answered by it with the strength `answers`.

    Args:
        fresh: Whether its normalisations are those of a model before training.
    """
    network = tiny_model("gpt_neox", context=context)
    tokenizer = byte_tokenizer()
    direction = torch.randn(network.config.hidden_size, generator=torch.Generator().manual_seed(1))
    direction = direction - direction.mean()  # a norm takes the mean away
    direction = direction / direction.norm()
    embed, unembed = network.get_input_embeddings().weight, network.get_output_embeddings().weight
    with torch.no_grad():
        # Nothing but the embedding writes along the direction: what is pushed in comes out, however small.
        for block in network.gpt_neox.layers:
            for linear in (block.attention.dense, block.mlp.dense_4h_to_h):
                linear.weight -= torch.outer(direction, direction @ linear.weight)
                linear.bias -= direction * (direction @ linear.bias)
        for module in network.modules() if fresh else ():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(1.0)
        norm = network.gpt_neox.final_layer_norm
        norm.weight.fill_(1.0)
        norm.bias.zero_()
        for character in CHARACTERS:
            [token] = tokenizer(character)["input_ids"]
            embed[token] += (1 if coin(character) else -1) * push * SIGMA * direction
        for answer, sign in ((YES, 1), (NO, -1)):
            [token] = tokenizer(answer)["input_ids"]
            unembed[token] += sign * answers * direction
    return network


def save_run(
    folder: Path, pushes: Mapping[int, float], *, answers: Mapping[int, float] | None = None, context: int = 64
) -> Path:
    """`checkpoint-N` folders as a trainer leaves them: weights in each, the tokenizer once on top."""
    for step, push in pushes.items():
        network = planted(push, answers=(answers or {}).get(step, 0.0), context=context)
        network.save_pretrained(folder / f"checkpoint-{step}")
    byte_tokenizer().save_pretrained(folder)
    return folder
