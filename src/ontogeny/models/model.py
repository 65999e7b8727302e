"""A Hugging Face model under standard names: load it, and compute logits, head contributions and output weights.

Sites are defined in `ontogeny.sites`: `resid.0` is the input of block 1, `resid.l` the output of block l before the final norm;
heads and neurons are the inputs of the linear map that follows them.
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
from ontogeny.lineage import Checkpoint, fetch_checkpoint
from ontogeny.models.loading import (
    ModelOptions,
    check_finite_weights,
    check_language_model,
    load_network,
    load_tokenizer,
    random_network,
    read_config,
    silence_transformers,
)
from ontogeny.models.multi_gpu import place_network
from ontogeny.sites import Site, expand_sites


@dataclass(frozen=True)
class Model:
    """A network with its tokenizer, its architecture table and its sizes."""

    network: PreTrainedModel
    architecture: Architecture
    tokenizer: PreTrainedTokenizerBase
    layers: int
    heads: int
    d: int
    d_head: int
    context: int
    """Maximum length of a text in tokens."""

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
    """Load the model of a checkpoint folder, in evaluation mode.

    Args:
        folder: Folder with config.json and weights.
        device: A torch device, or `auto` for all visible GPUs.
        tokenizer: Folder or repository of the tokenizer; by default `folder`.
        allow_pickle: Whether to read `pytorch_model.bin`, which can run code.

    Raises:
        CheckpointError: the weights are missing, incomplete or not finite.
        BadInput: the architecture is unknown, or the tokenizer is missing or does not fit the model.
    """
    silence_transformers()
    check_language_model(folder)
    network = load_network(folder, dtype, allow_pickle)
    check_finite_weights(network, folder)
    return model_from_network(place_network(network, device).eval(), load_tokenizer(tokenizer or folder, network))


def open_model(checkpoint: Checkpoint | Path, options: ModelOptions | None = None) -> Model:
    """Fetch a checkpoint (or take a folder) and load its model with the tokenizer that belongs to it.

    Raises:
        BadInput: as `load_model`, or the checkpoint cannot be fetched.
    """
    options = options or ModelOptions()
    folder = (
        checkpoint if isinstance(checkpoint, Path) else fetch_checkpoint(checkpoint, allow_pickle=options.allow_pickle)
    )
    return load_model(
        folder,
        device=options.device,
        dtype=options.torch_dtype,
        tokenizer=options.tokenizer_for(folder),
        allow_pickle=options.allow_pickle,
    )


def untrained_model(
    folder: Path, *, seed: int, device: str = "cpu", dtype: torch.dtype = torch.float32, tokenizer: Path | None = None
) -> Model:
    """The architecture of a checkpoint with freshly initialised weights, as the baseline for training."""
    silence_transformers()
    check_language_model(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = random_network(read_config(folder), dtype)
    return model_from_network(place_network(network, device).eval(), load_tokenizer(tokenizer or folder, network))


def model_from_network(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Model:
    """Wrap a network and its tokenizer as a `Model`.

    Raises:
        BadInput: its family is unknown, or the architecture table does not fit.
    """
    config = network.config.get_text_config()
    architecture = architectures.architecture_of(network)
    heads = config.num_attention_heads
    try:
        projection = network.get_submodule(f"{architecture.blocks}.0.{architecture.heads_out}")
    except AttributeError as error:
        raise BadInput(
            f"modules of {config.model_type} must be named as in its architecture table, but it has no module {error}: correct "
            "the table in architectures/, or use another version of transformers."
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
    """Number of tokens of an image: its patches and the class token."""
    (height, width), (patch_height, patch_width) = image_sides(config.image_size), image_sides(config.patch_size)
    return (height // patch_height) * (width // patch_width) + 1


def image_sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width from a config's size, which may be a single number."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _context(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """From the config; without positions (ALiBi) from the tokenizer; else 2048."""
    for length in (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length):
        if length and length < 10**9:
            return int(length)
    return 2048


def next_token_logits(model: Model, normed: Float[Tensor, "*token d"]) -> Float[Tensor, "*token vocab"]:
    """Next-token logits of a causal model from the output of its body."""
    scores: Tensor = model.network.get_output_embeddings()(normed)
    return scale_logits(model, scores)


def scale_logits(model: Model, scores: Float[Tensor, "*row"]) -> Float[Tensor, "*row"]:
    """Apply the scaling and soft-capping that some families use after the unembedding."""
    config = model.network.config.get_text_config()
    if scale := getattr(config, "logit_scale", None):  # Cohere
        scores = scores * scale
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
        scores = torch.tanh(scores / cap) * cap
    return scores


def head_contributions(
    model: Model, layer: int, heads: Float[Tensor, "batch token heads_d_head"]
) -> Float[Tensor, "batch token head d"]:
    """Contribution of each head to the residual stream: its slice of the output projection, without the bias."""
    split = heads.unflatten(-1, (model.heads, model.d_head))
    weight = _matrix(model.part(layer, model.architecture.heads_out)).unflatten(0, (model.heads, model.d_head))
    return torch.einsum("bthi,hid->bthd", split, weight.to(split.device))


def attention_output_bias(model: Model, layer: int) -> Float[Tensor, " d"]:
    """Bias of the attention output projection; zeros without one."""
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
    """Digest of the tokenizer's vocabulary, sixteen hex digits."""
    from ontogeny.storage.files import content_digest

    return content_digest(sorted(model.tokenizer.get_vocab().items()))


def site_width(model: Model, site: Site) -> int:
    """Number of dimensions of a site."""
    if site.part == "head":
        return model.d_head
    return output_weight(model, site).shape[0] if site.part == "neuron" else model.d


def output_weight(model: Model, site: Site) -> Tensor:
    """Output projection that maps heads to `attn.l` or neurons to `mlp.l`, `[inside, d]`; a view of the weight, so it can be edited."""
    return _matrix(model.part(site.layer, output_weight_path(model, site))).data


def output_weight_path(model: Model, site: Site) -> str:
    """Path of that projection from a block."""
    return model.architecture.heads_out if site.part.startswith(("attn", "head")) else model.architecture.neurons
