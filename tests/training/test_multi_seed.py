"""Seeds trained together equal seeds trained one by one, also when killed and resumed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ontogeny.errors import BadInput
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.multi_seed import train_seeds
from ontogeny.training.train import train_module

SEEDS = (0, 3, 4)
CONFIG = TrainingConfig(steps=40, warmup=5, learning_rate=1e-2, clip=0.3, weight_decay=0.5)


class Killed(Exception):
    pass


class Attention(nn.Module):
    """Without a bias of keys: softmax does not see it, so its gradient is rounding alone, which Adam makes as large as any other."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.qkv, self.out = (
            nn.Embedding(9, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 24, bias=False),
            nn.Linear(8, 9),
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(self.embed(ids))).chunk(3, -1)
        unseen = torch.ones(ids.shape[-1], ids.shape[-1], dtype=torch.bool).triu(1)
        return self.out((q @ k.mT).masked_fill(unseen, -torch.inf).softmax(-1) @ v)


def next_token(network: nn.Module, ids: torch.Tensor, reference=None) -> torch.Tensor:
    return nn.functional.cross_entropy(network(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def words(step: int, seed: int) -> torch.Tensor:
    start = torch.randint(0, 9, (4, 1), generator=torch.Generator().manual_seed(100 * seed + step))
    return (start + torch.arange(6)) % 9


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def squares(network: nn.Module, batch, reference=None) -> torch.Tensor:
    return (network(batch["x"]) - batch["y"][0]).square().mean()


def points(step: int, seed: int) -> dict:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(100 * seed + step))
    return {"x": x, "y": (x.sum(-1, keepdim=True),)}


CASES = {"transformer": (Attention, next_token, words), "perceptron": (perceptron, squares, points)}


def saved(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / f"checkpoint-{step}" / "model.safetensors")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_training_together_equals_one_by_one(tmp_path, case, optimiser):
    make, objective, batches = CASES[case]
    config = TrainingConfig(**{**vars(CONFIG), "optimiser": optimiser})
    runs = train_seeds(batches, objective, config, tmp_path / "all", make=make, save_at=(0, 20, 40), seeds=SEEDS)
    ends = []
    for run, seed in zip(runs, SEEDS, strict=True):
        alone = train_module(
            lambda step, seed=seed: batches(step, seed), objective, config, tmp_path / str(seed), make=make,
            save_at=(0, 20, 40), seed=seed,
        )  # fmt: skip
        assert all(torch.equal(value, saved(alone, 0)[name]) for name, value in saved(run, 0).items())
        torch.testing.assert_close(saved(run, 40), saved(alone, 40), rtol=1e-3, atol=1e-4)
        ends.append(saved(run, 40))
    name = next(iter(ends[0]))
    assert float((ends[0][name] - ends[1][name]).abs().max()) > 0.1  # the tolerance tells seeds apart


def test_gradients_are_clipped_per_seed(tmp_path):
    """A common norm would make each seed's steps depend on the other seeds."""
    steps = TrainingConfig(**{**vars(CONFIG), "optimiser": "sgd"})
    both = train_seeds(points, squares, steps, tmp_path / "both", make=perceptron, save_at=(40,), seeds=(0, 3))
    one = train_seeds(points, squares, steps, tmp_path / "one", make=perceptron, save_at=(40,), seeds=(3,))
    torch.testing.assert_close(saved(both[1], 40), saved(one[0], 40), rtol=1e-4, atol=1e-5)


def test_killed_and_resumed_run_equals_one_run(tmp_path):
    def go(out: Path, batches=points) -> tuple[Path, ...]:
        return train_seeds(batches, squares, CONFIG, out, make=perceptron, save_at=(0, 10, 20, 40), seeds=SEEDS)

    def until(step: int, seed: int) -> dict:
        if step > 27:
            raise Killed
        return points(step, seed)

    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    whole = go(tmp_path / "whole")
    assert torch.equal(torch.rand(2), expected)
    with pytest.raises(Killed):
        go(tmp_path / "again", until)
    again = go(tmp_path / "again")
    for one, other in zip(whole, again, strict=True):
        for step in (0, 10, 20, 40):
            assert all(torch.equal(value, saved(other, step)[name]) for name, value in saved(one, step).items())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "whole").rglob("*")}
    go(tmp_path / "whole", until)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "whole").rglob("*")}


def test_rejects_networks_and_batches_that_cannot_be_stacked(tmp_path):
    def go(make=perceptron, batches=points, seeds=SEEDS, **settings):
        config = TrainingConfig(**{**vars(CONFIG), **settings})
        return train_seeds(batches, squares, config, tmp_path / "run", make=make, save_at=(40,), seeds=seeds)

    with pytest.raises(BadInput, match="running values"):
        go(lambda: nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1)))
    with pytest.raises(BadInput, match="dropout"):
        go(lambda: nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.1)))
    with pytest.raises(BadInput, match="each once"):
        go(seeds=(1, 1))
    with pytest.raises(BadInput, match="one shape"):
        go(batches=lambda step, seed: {"x": torch.ones(seed + 1, 3), "y": (torch.ones(1),)})
    with pytest.raises(BadInput, match="tuple or a dictionary"):
        go(batches=lambda step, seed: [1.0])
    with pytest.raises(BadInput, match="seed 0 is not finite"):
        go(learning_rate=float("inf"))
