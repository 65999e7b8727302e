"""Tokens per second of every generated world, compared with the training speed of a small model.

    python benchmarks/generators.py [--threads 1] [--seconds 2]

The model is that of the demo (GPT-NeoX, 4 layers of 128) on rows of the same world's vocabulary and context. Every figure is the median
of repeated calls in this process after a warm-up, by CPU time (of one thread), so that a busy machine blurs it little.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from ontogeny import plugins
from ontogeny.worlds import grammar

ROWS = 16
AIM = 10
"""Required ratio of the speed of a generator to that of the model."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens a second of every generated world, beside a small model's.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per figure")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'world':<22}{'tokens/s by row batches of':>30}{'':>14}{'model':>12}{'times':>8}")
    print(f"{'':<22}{ROWS:>30}{512:>14}{'trains on':>12}{f'({ROWS})':>8}")
    for name, sample, context, vocabulary in worlds():
        small = rate(functools.partial(sample, rows=ROWS), ROWS * context, options.seconds)
        large = rate(functools.partial(sample, rows=512), 512 * context, options.seconds)
        model = trained(vocabulary, context, options.seconds, options.threads)
        mark = "" if small >= AIM * model else f"  below {AIM}x"
        print(f"{name:<22}{small:>30,.0f}{large:>14,.0f}{model:>12,.0f}{small / model:>8.1f}{mark}")
    print(
        f"\n{'grammar':<22}{'strings':>12}{'words':>12}{'too long':>10}{'drawn/s':>14}{'judged/s':>14}   (words a second)"
    )
    for name, language in grammar.PRESETS.items():
        told(name, grammar.make(grammar.Config(language)), options.seconds)


def worlds() -> list[tuple[str, Callable[..., object], int, int]]:
    """Name, sampler of a number of rows, tokens of a row, size of the vocabulary."""
    found = []
    for name in plugins.list_plugins("worlds"):
        module = plugins.load_plugin("worlds", name)
        if name == "grammar":
            configs = {f"grammar: {key}": module.Config(language) for key, language in module.PRESETS.items()}
        else:
            configs = {name: module.Config()}
        for title, config in configs.items():
            world = module.make(config)
            if hasattr(module, "tokenizer"):
                context, size = world.config.context, len(module.tokenizer(world))
            elif hasattr(world, "vocabulary"):
                context, size = world.config.rows * world.config.columns, world.vocabulary
            else:
                continue  # points of a space have no tokens
            found.append((title, sampler(module.sample, world), context, size))
    return found


def sampler(sample: Callable[..., object], world: object) -> Callable[..., object]:
    return lambda seed, rows: sample(world, np.random.default_rng(seed), rows)


def rate(call: Callable[[int], object], tokens: float, seconds: float) -> float:
    """Tokens per second of the median call."""
    call(0)
    spent, begun, i = [], time.perf_counter(), 0
    while len(spent) < 3 or time.perf_counter() - begun < seconds:
        i += 1
        start = time.process_time()
        call(i)
        spent.append(time.process_time() - start)
    return tokens / statistics.median(spent)


def trained(vocabulary: int, context: int, seconds: float, threads: int) -> float:
    """Forward, backward and a step of AdamW on one batch of random rows."""
    torch.manual_seed(0)
    network = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocabulary, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512,
            max_position_embeddings=context,
        )
    )  # fmt: skip
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    ids = torch.randint(vocabulary, (ROWS, context))

    def step() -> float:
        start = time.process_time()
        network(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return (time.process_time() - start) / threads

    step()
    spent, begun = [], time.perf_counter()
    while len(spent) < 3 or time.perf_counter() - begun < seconds:
        spent.append(step())
    return ids.numel() / statistics.median(spent)


def told(name: str, world: grammar.World, seconds: float) -> None:
    """Speed of sampling and judging strings, and the share that the length limit rejects."""
    strings = grammar.strings(world, np.random.default_rng(0), 4096)
    words = float(strings.lengths.sum())
    drawn = rate(lambda i: grammar.strings(world, np.random.default_rng(i), 4096), words, seconds)
    judged = rate(lambda i: grammar.verdicts(world, strings.words, strings.lengths), words, seconds)
    lost = strings.rejected / strings.drawn
    print(f"{name:<22}{len(strings):>12}{words / len(strings):>12.1f}{lost:>10.1%}{drawn:>14,.0f}{judged:>14,.0f}")


if __name__ == "__main__":
    main()
