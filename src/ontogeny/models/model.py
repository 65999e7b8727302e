"""A Hugging Face model seen through standard names: load, validate, read, write. The only code with hooks.

Sites are read where `ontogeny.sites` says: `resid.0` enters block 1, `resid.l` leaves block l before the final norm, heads and
neurons are the inputs of the linear map that follows them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ontogeny import architectures
from ontogeny.architectures import Architecture
from ontogeny.errors import BadInput
from ontogeny.models import multi_gpu
from ontogeny.models.loading import (
    check_finite_weights,
    check_language_model,
    load_network,
    load_tokenizer,
    random_network,
    read_config,
    silence_transformers,
)
from ontogeny.sites import Site, expand_sites

"""What a write does: `h -> h` on the whole tensor at a site, `[batch, token, d]`."""
"""What a read does with `(part, layer, value)`; it may raise to stop the forward pass."""

"""What a hook does with a value; None leaves it as it is."""


@dataclass(frozen=True)
class Model:
    network: PreTrainedModel
    architecture: Architecture
    tokenizer: PreTrainedTokenizerBase
    layers: int
    heads: int
    d: int
    d_head: int
    context: int
    """Longest text in tokens."""

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def body(self) -> nn.Module:
        """The decoder without its `lm_head`."""
        return self.network.base_model

    def block(self, layer: int) -> nn.Module:
        """Block `layer`, counted from 1."""
        return self.network.get_submodule(f"{self.architecture.blocks}.{layer - 1}")

    def part(self, layer: int, path: str) -> nn.Module:
        return self.block(layer).get_submodule(path)

    def sites(self, patterns: str | Sequence[str]) -> tuple[Site, ...]:
        return expand_sites(patterns, layers=self.layers, heads=self.heads)


def load_model(
    folder: Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tokenizer: Path | None = None,
    allow_pickle: bool = False,
) -> Model:
    """The model of a checkpoint folder, in evaluation mode.

    Raises:
        CheckpointFault: weights that are missing, cut short or not finite.
        BadInput: unknown architecture, or a tokenizer that is missing or of another vocabulary.
    """
    silence_transformers()
    check_language_model(folder)
    network = load_network(folder, dtype, allow_pickle)
    check_finite_weights(network, folder)
    return model_from_network(
        multi_gpu.place_network(network, device).eval(), load_tokenizer(tokenizer or folder, network)
    )


def untrained_model(
    folder: Path, *, seed: int, device: str = "cpu", dtype: torch.dtype = torch.float32, tokenizer: Path | None = None
) -> Model:
    """The same architecture with freshly initialised weights: the floor that training must beat."""
    silence_transformers()
    check_language_model(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = random_network(read_config(folder), dtype)
    return model_from_network(
        multi_gpu.place_network(network, device).eval(), load_tokenizer(tokenizer or folder, network)
    )


def model_from_network(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Model:
    """A network under its standard names.

    Raises:
        BadInput: its family is not known, or its table does not fit.
    """
    config = network.config.get_text_config()
    architecture = architectures.architecture_of(network)
    heads = config.num_attention_heads
    try:
        projection = network.get_submodule(f"{architecture.blocks}.0.{architecture.heads_out}")
    except AttributeError as error:
        raise BadInput(
            f"{config.model_type} has no module {error}: its architecture table does not fit this version."
        ) from None
    return Model(
        network=network,
        architecture=architecture,
        tokenizer=tokenizer,
        layers=config.num_hidden_layers,
        heads=heads,
        d=config.hidden_size,
        d_head=_matrix(projection).shape[0] // heads,
        context=_image_tokens(config) if architecture.images else _context(config, tokenizer),
    )


def _image_tokens(config: PretrainedConfig) -> int:
    """Tokens of an image: its patches, and the class token."""
    sides = [(s, s) if isinstance(s, int) else tuple(s) for s in (config.image_size, config.patch_size)]
    return (sides[0][0] // sides[1][0]) * (sides[0][1] // sides[1][1]) + 1


def _context(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """What the config says; without positions (ALiBi) what the tokenizer was made for, 2048 where it does not say."""
    for told in (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length):
        if told and told < 10**9:
            return int(told)
    return 2048


# --- reading and writing -------------------------------------------------------------------------------------------------


# --- validation ----------------------------------------------------------------------------------------------------------


def next_token_logits(model: Model, normed: Float[Tensor, "*token d"]) -> Float[Tensor, "*token vocab"]:
    """The scores that a causal model gives to each next token, from what its body puts out."""
    scores: Tensor = model.network.get_output_embeddings()(normed)
    return scale_logits(model, scores)


def scale_logits(model: Model, scores: Float[Tensor, "*row"]) -> Float[Tensor, "*row"]:
    """What a family does to its scores behind the unembedding, one by one."""
    config = model.network.config.get_text_config()
    if scale := getattr(config, "logit_scale", None):  # Cohere
        scores = scores * scale
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
        scores = torch.tanh(scores / cap) * cap
    return scores


def head_contributions(
    model: Model, layer: int, heads: Float[Tensor, "batch token heads_d_head"]
) -> Float[Tensor, "batch token head d"]:
    """What each head adds to the stream: its slice of the output projection applied to it, without the bias."""
    split = heads.unflatten(-1, (model.heads, model.d_head))
    weight = _matrix(model.part(layer, model.architecture.heads_out)).unflatten(0, (model.heads, model.d_head))
    return torch.einsum("bthi,hid->bthd", split, weight.to(split.device))


def attention_output_bias(model: Model, layer: int) -> Float[Tensor, " d"]:
    bias = getattr(model.part(layer, model.architecture.heads_out), "bias", None)
    return (
        bias.to(model.device)
        if isinstance(bias, Tensor)
        else torch.zeros(model.d, device=model.device, dtype=model.network.dtype)
    )


def _matrix(linear: nn.Module) -> Float[Tensor, "inside d"]:
    # nn.Linear stores [out, in]; GPT-2's Conv1D stores [in, out].
    weight: Tensor = linear.get_parameter("weight")
    return weight.T if isinstance(linear, nn.Linear) else weight


def tokenizer_fingerprint(model: Model) -> str:
    """Sixteen hex digits of the tokenizer's vocabulary."""
    from ontogeny.storage.files import content_digest

    return content_digest(sorted(model.tokenizer.get_vocab().items()))


def site_width(model: Model, site: Site) -> int:
    """Dimensions of a site."""
    if site.part == "head":
        return model.d_head
    return output_weight(model, site).shape[0] if site.part == "neuron" else model.d


def output_weight(model: Model, site: Site) -> Tensor:
    """The weight that writes `attn.l` or `mlp.l` (and reads heads or neurons), as `[inside, d]`; a view, so it can be edited."""
    linear = model.part(site.layer, output_weight_path(model, site))
    weight: Tensor = linear.get_parameter("weight").data
    # nn.Linear stores [out, in]; GPT-2's Conv1D stores [in, out].
    return weight.T if isinstance(linear, nn.Linear) else weight


def output_weight_path(model: Model, site: Site) -> str:
    """Where that map is, path from a block."""
    return model.architecture.heads_out if site.part.startswith(("attn", "head")) else model.architecture.neurons
