"""Cost of the training loop compared with a hand-written one, at the demo's shapes; cost of Trainer; gain of batched seeds.

Run: `OMP_NUM_THREADS=1 python benchmarks/training.py` (about two minutes). All ratios come from one process, in which the loops take
turns, so that a busy machine slows all of them alike; CPU time of the process is compared, medians over rounds.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPTNeoXConfig
from transformers.utils import logging

from ontogeny.training.batches import TokenBatch
from ontogeny.training.loop import TrainingConfig, learning_rate_at
from ontogeny.training.multi_seed import train_seeds
from ontogeny.training.objectives.language_model import language_model
from ontogeny.training.recorder import RecordingPlan
from ontogeny.training.toy_models.in_world import TOY_MODEL_SIZES, build_network
from ontogeny.training.train import train, train_module
from ontogeny.worlds import hearsay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    told = parser.parse_args()
    logging.disable_progress_bar()
    rows = language_models(told.steps, told.rounds) + seeds(told.seeds, told.rounds)
    if told.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'what':58} {'CPU s':>8} {'ratio':>7}  of")
    for row in rows:
        print(f"{row['what']:58} {row['seconds']:8.2f} {row['ratio']:7.2f}  {row['of']}")


def language_models(steps: int, rounds: int) -> list[dict]:
    demo = TOY_MODEL_SIZES["demo"]
    world = hearsay.make()
    tokenizer = hearsay.tokenizer(world)
    shape = build_network(demo, len(tokenizer), world.config.context)
    config = TrainingConfig(steps=steps, warmup=5)

    def ids(step: int) -> torch.Tensor:
        return torch.from_numpy(hearsay.sample(world, np.random.default_rng([0, step]), demo.stages["base"].rows))

    def ours(folder: Path, record: RecordingPlan | None = None) -> None:
        train(
            lambda step: TokenBatch(ids(step)), language_model, config, folder, start=shape, tokenizer=tokenizer,
            save_at=(steps,), record=record,
        )  # fmt: skip

    def recorded(folder: Path) -> None:
        ours(folder, RecordingPlan(states_every=10))

    loops: dict[str, Callable[[Path], None]] = {
        "bare loop": lambda folder: bare(shape, ids, config, folder, tokenizer),
        "ours": ours,
        "ours, recorded, a state every 10 steps": recorded,
    }
    with contextlib.suppress(ImportError):
        import accelerate  # noqa: F401

        loops["transformers' Trainer"] = lambda folder: trainer(shape, ids, config, folder, demo.stages["base"].rows)
    return table(measured(loops, rounds), "bare loop", f"4 layers × 128, 16 rows of 64 tokens, {steps} steps: ")


def bare(shape: GPTNeoXConfig, ids, config: TrainingConfig, folder: Path, tokenizer) -> None:
    """A hand-written loop with one checkpoint at the end."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(shape).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=0.1)
    for step in range(1, config.steps + 1):
        batch = ids(step)
        optimiser.param_groups[0]["lr"] = learning_rate_at(step, config)
        logits = model(batch, use_cache=False).logits
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loss.item()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def trainer(shape: GPTNeoXConfig, ids, config: TrainingConfig, folder: Path, rows: int) -> None:
    from transformers import Trainer, TrainingArguments

    class Steps(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return config.steps * rows

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            if index // rows + 1 != self.__dict__.get("step"):
                self.step, self.batch = index // rows + 1, ids(index // rows + 1)
            row = self.batch[index % rows]
            return {"input_ids": row, "labels": row}

    torch.manual_seed(0)
    settings = TrainingArguments(
        folder, max_steps=config.steps, per_device_train_batch_size=rows, learning_rate=config.learning_rate,
        lr_scheduler_type="cosine", warmup_steps=config.warmup, weight_decay=0.1, save_strategy="no",
        logging_steps=20, report_to=[], disable_tqdm=True, use_cpu=True, dataloader_num_workers=0,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        made = Trainer(AutoModelForCausalLM.from_config(shape), settings, train_dataset=Steps())
        made.train()
        made.save_model()


def seeds(count: int, rounds: int) -> list[dict]:
    rows = []
    for name, make, objective, batch in (
        ("MLP 4-16-4, 32 rows", perceptron, squares, points),
        ("2-layer transformer, width 16, 8 rows of 8", reader, next_token, words),
    ):
        config = TrainingConfig(steps=200, warmup=5)

        def one_by_one(folder: Path, make=make, objective=objective, batch=batch, config=config) -> None:
            for seed in range(count):
                train_module(
                    lambda step, seed=seed: batch(step, seed), objective, config, folder / str(seed), make=make,
                    save_at=(200,), seed=seed,
                )  # fmt: skip

        def together(folder: Path, make=make, objective=objective, batch=batch, config=config) -> None:
            train_seeds(batch, objective, config, folder, make=make, save_at=(200,), seeds=range(count))

        loops = {"seed by seed": one_by_one, "batched": together}
        rows += table(measured(loops, rounds), "seed by seed", f"{name}, {count} seeds, 200 steps: ")
    return rows


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4))


def squares(network: nn.Module, batch, reference=None) -> torch.Tensor:
    return (network(batch[0]) - batch[1]).square().mean()


def points(step: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1000 * seed + step))
    return x, x.flip(-1)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        unseen = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool).triu(1)
        x = x + self.out(scores.masked_fill(unseen, -torch.inf).softmax(-1) @ v)
        return x + self.mlp(x)


def reader() -> nn.Module:
    return nn.Sequential(nn.Embedding(20, 16), Block(16), Block(16), nn.LayerNorm(16), nn.Linear(16, 20))


def next_token(network: nn.Module, ids: torch.Tensor, reference=None) -> torch.Tensor:
    return nn.functional.cross_entropy(network(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def words(step: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 20, (8, 8), generator=torch.Generator().manual_seed(1000 * seed + step))


def measured(loops: dict[str, Callable[[Path], None]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, without the first round."""
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds + 1):
        for name, loop in loops.items():
            with tempfile.TemporaryDirectory() as folder:
                before = time.process_time()
                loop(Path(folder) / "run")
                taken[name].append(time.process_time() - before)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


def table(seconds: dict[str, float], base: str, what: str) -> list[dict]:
    return [
        {"what": what + name, "seconds": value, "ratio": value / seconds[base], "of": base}
        for name, value in seconds.items()
    ]


if __name__ == "__main__":
    main()
