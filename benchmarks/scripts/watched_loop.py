"""A short training with dropout on, by torch and transformers alone: the same in our environment and in a peer's."""

import random
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig


def save_model(folder: Path, tokenizer, *, layers: int = 2, width: int = 32, context: int = 128) -> None:
    """A random Llama with dropout and its tokenizer, in a folder."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * width,
        max_position_embeddings=context,
        attention_dropout=0.1,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the global generator of a training)
    torch.manual_seed(0)


def loop(network: nn.Module, steps: int, after, *, rows: int = 4, length: int = 16):
    """Train on random tokens; `after` is called before the first step and after each one. The first block stays in evaluation mode."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    network.train()
    network.model.layers[0].eval()
    after(0)
    for step in range(1, steps + 1):
        ids = torch.randint(3, 200, (rows, length))
        network(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        after(step)
    return optimizer


def whole_state(network: nn.Module, optimizer) -> dict[str, list]:
    """Parts of the state of a training that a monitor must leave as they are."""
    kind, numbers, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "weights": list(network.state_dict().values()),
        "optimizer": [value for state in optimizer.state_dict()["state"].values() for value in state.values()],
        "random numbers of torch": [torch.get_rng_state()],
        "random numbers of Python and NumPy": [random.getstate(), kind, numbers.tolist(), rest],
        "modes of modules": [module.training for module in network.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
    }


def changed(a: dict[str, list], b: dict[str, list]) -> list[str]:
    """Parts that are not equal bit for bit."""

    def equal(x, y) -> bool:
        return torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y

    return [name for name in a if len(a[name]) != len(b[name]) or not all(map(equal, a[name], b[name]))]
