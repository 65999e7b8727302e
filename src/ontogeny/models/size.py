"""Model size from config.json: parameters and FLOPs; checks before any weight is fetched or read."""

import time
from dataclasses import dataclass

import torch
from torch import nn

from ontogeny import architectures
from ontogeny.errors import BadInput, CheckpointError
from ontogeny.lineage import Checkpoint
from ontogeny.lineage.fetch import checkpoint_config
from ontogeny.models import loading


@dataclass(frozen=True)
class ModelSize:
    """Number of parameters, and of multiplications per token."""

    parameters: int
    products: int
    """Multiplications per token in the body: weights without embeddings and `lm_head`; of experts only the active ones."""


def model_size(checkpoint: Checkpoint, *, weights: int) -> ModelSize:
    """Size from the config, by building the network without memory; else from `weights`, its bytes, assuming float32."""
    config = network = None
    try:
        config = loading.parse_config(checkpoint_config(checkpoint))
        with torch.device("meta"):
            network = loading.random_network(config) if config is not None else None
    except BadInput:
        pass  # loading raises the proper error
    if config is None or network is None:
        return ModelSize(weights // 4, weights // 4)
    tables = {id(m.weight) for m in network.base_model.modules() if isinstance(m, nn.Embedding)}
    active = getattr(config.get_text_config(), "num_experts_per_tok", None) or 1
    products = 0.0
    for p in network.base_model.parameters():
        if p.ndim > 1 and id(p) not in tables:
            # All experts are in one tensor; a token passes through a few of them.
            products += p.numel() * (min(active, p.shape[0]) / p.shape[0] if p.ndim > 2 else 1)
    return ModelSize(sum(p.numel() for p in network.parameters()), round(products))


def check_family_supported(checkpoint: Checkpoint) -> None:
    """Check before the download that the model can be read.

    Raises:
        BadInput: it reads images, or its architecture is unknown.
    """
    try:
        settings = checkpoint_config(checkpoint)
        table = architectures.find_architecture(str(settings.get("model_type")))
        if table is not None and not table.images:
            return  # known without transformers, which takes half a second to import
        config = loading.parse_config(settings)
    except CheckpointError:
        return  # loading raises the proper error
    if config is not None:
        loading.check_loadable(config)


def measure_flops_per_second(device: str, dtype: torch.dtype) -> float:
    """Measured FLOPs per second of a linear map of typical shape, run as in a trace."""
    from ontogeny.models.onednn import packed_linears

    linear, x = nn.Linear(768, 3072, device=device, dtype=dtype), torch.randn(512, 768, device=device, dtype=dtype)
    rounds, best = 5, 0.0
    with torch.inference_mode(), packed_linears(nn.Sequential(linear)):
        for _ in range(3):  # the first includes one-time costs
            began = time.perf_counter()
            for _ in range(rounds):
                y = linear(x)
            y.sum().item()
            best = max(best, 2 * 512 * 768 * 3072 * rounds / (time.perf_counter() - began))
    return best
