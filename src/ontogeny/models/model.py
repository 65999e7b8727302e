"""A Hugging Face model under standard names: load it, and compute logits, head contributions and output weights.

Sites are defined in `ontogeny.sites`: `resid.0` is the input of block 1, `resid.l` the output of block l before the final norm;
heads and neurons are the inputs of the linear map that follows them.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ontogeny import architectures
from ontogeny.architectures import Architecture
from ontogeny.errors import BadInput
from ontogeny.lineage import Checkpoint, Lineage, fetch_checkpoint
from ontogeny.models.loading import (
    ModelOptions,
    as_torch_dtype,
    check_finite_weights,
    check_language_model,
    load_network,
    load_tokenizer,
    nearest_tokenizer,
    random_network,
    read_config,
    silence_transformers,
)
from ontogeny.models.multi_gpu import place_network
from ontogeny.sites import HEAD_PARTS, Site, expand_sites

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Model:
    """A network with its tokenizer, its architecture table and its sizes."""

    network: "PreTrainedModel"
    architecture: Architecture
    tokenizer: "PreTrainedTokenizerBase"
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
    def name(self) -> str:
        """Folder or repository of the network, without the path before it."""
        return Path(str(self.network.name_or_path)).name or str(self.network.config.model_type)

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
        """All sites that match the patterns, see `expand_sites`.

        Raises:
            BadInput: a pattern is invalid, or the model has no such site.
        """
        sites = expand_sites(patterns, layers=self.layers, heads=self.heads)
        kind, routed = self.network.config.model_type, self.routed_layers
        if not self.architecture.neurons and any(site.part == "neuron" for site in sites):
            raise BadInput(
                f"`sites` must be sites of {kind}, got neuron: its experts have neurons of their own, so read mlp."
            )
        if absent := [site for site in sites if site.part == "router" and site.layer not in routed]:
            where = "none" if not routed else f"those of blocks {', '.join(map(str, routed))}"
            raise BadInput(f"`sites` must be sites of {kind}, got {absent[0]}: its routers are {where}.")
        return sites

    @property
    def routed_layers(self) -> tuple[int, ...]:
        """Blocks with a router of experts."""
        path = self.architecture.router
        if not path:
            return ()
        layers = range(1, self.layers + 1)
        return tuple(layer for layer in layers if _has_module(self.block(layer), path))

    @overload
    def generate(
        self,
        prompts: str,
        *,
        tokens: int = 40,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        template: bool | str = False,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompts: Sequence[str],
        *,
        tokens: int = 40,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        template: bool | str = False,
    ) -> list[str]: ...

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        tokens: int = 40,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        template: bool | str = False,
    ) -> str | list[str]:
        """The continuation of each prompt; inside `steer`, that of the steered model.

        Args:
            prompts: One prompt, or several.
            tokens: Maximum number of new tokens.
            temperature: 0 for greedy decoding.
            top_p: Sample from the likeliest tokens that have this share of the probability.
            seed: Of the samples.
            template: In which each prompt is a user's turn: none, own (True), a file or a text.

        Raises:
            BadInput: the model is not causal, or a prompt is empty or too long for the context.
        """
        # Steering is on a floor above, so it is imported by name.
        generation = importlib.import_module("ontogeny.steering.generate")
        how = generation.DecodingConfig(tokens=tokens, temperature=temperature, top_p=top_p, seed=seed)
        alone = isinstance(prompts, str)
        continued = generation.generate(self, [prompts] if alone else prompts, how=how, template=template)
        texts = [str(samples[0].text) for samples in continued]
        return texts[0] if alone else texts


def _has_module(block: nn.Module, path: str) -> bool:
    try:
        block.get_submodule(path)
    except AttributeError:
        return False
    return True


def load_model(
    source: str | Path | Checkpoint | Lineage,
    *,
    step: int | None = None,
    stage: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype | str = torch.float32,
    tokenizer: str | Path | None = None,
    allow_pickle: bool = False,
) -> Model:
    """Load the model of one checkpoint, in evaluation mode.

    Args:
        source: Repository on the Hub, folder of a model or of checkpoints, `Checkpoint`, or `Lineage`.
        step: Training step of the checkpoint; by default the last one of the stage.
        stage: Stage of the checkpoint; by default the last one that has the step.
        device: A torch device, `auto` for the fastest of this machine, or `all` for all visible GPUs.
        dtype: `float32`, `bfloat16` or `float16`, by name or as torch spells it.
        tokenizer: Folder or repository of the tokenizer; by default the checkpoint's own, else that of the folder above.
        allow_pickle: Whether to read `pytorch_model.bin` and `.distcp` shards, which can run code.

    Raises:
        CheckpointError: the weights are missing, incomplete or not finite.
        BadInput: the source has no such step or stage, the architecture is unknown, or the tokenizer is missing or does not fit the model.
    """
    silence_transformers()
    folder = _folder_of_model(source, step, stage, allow_pickle)
    check_language_model(folder)
    network = load_network(folder, as_torch_dtype(dtype), allow_pickle)
    check_finite_weights(network, folder)
    text_reader = Path(tokenizer) if tokenizer else nearest_tokenizer(folder) or folder
    return model_from_network(place_network(network, device).eval(), load_tokenizer(text_reader, network))


def _folder_of_model(
    source: str | Path | Checkpoint | Lineage, step: int | None, stage: str | None, allow_pickle: bool
) -> Path:
    if isinstance(source, Checkpoint):
        return fetch_checkpoint(source, allow_pickle=allow_pickle)
    if isinstance(source, str | Path) and step is None and stage is None:
        folder = Path(source).expanduser()
        if (folder / "config.json").is_file() or (isinstance(source, Path) and not folder.is_dir()):
            return folder
    lineage = source if isinstance(source, Lineage) else Lineage.open(source, allow_pickle=allow_pickle)
    return fetch_checkpoint(pick_checkpoint(lineage, step, stage), allow_pickle=allow_pickle)


def pick_checkpoint(lineage: Lineage, step: int | None = None, stage: str | None = None) -> Checkpoint:
    """One checkpoint of a lineage: at a step, by default the last.

    Raises:
        BadInput: the lineage has no such stage or step.
    """
    candidates = lineage.checkpoints if stage is None else lineage.stage(stage).checkpoints
    chosen = [checkpoint for checkpoint in candidates if step in (None, checkpoint.step)]
    if not chosen:
        steps = sorted({checkpoint.step for checkpoint in candidates if checkpoint.step is not None})
        known = (
            ", ".join(f"{s}" for s in steps[:12]) + (", …" if len(steps) > 12 else "") or "no checkpoint with a step"
        )
        raise BadInput(f"`step` must be one of {lineage.name}, got {step}: it has {known}.")
    return chosen[-1]


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


def model_from_network(network: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> Model:
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
        d_head=linear_matrix(projection).shape[0] // heads,
        context=_image_tokens(config) if architecture.images else _context(config, tokenizer),
    )


def _image_tokens(config: "PretrainedConfig") -> int:
    """Number of tokens of an image: its patches and the class token."""
    (height, width), (patch_height, patch_width) = image_sides(config.image_size), image_sides(config.patch_size)
    return (height // patch_height) * (width // patch_width) + 1


def image_sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width from a config's size, which may be a single number."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _context(config: "PretrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> int:
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
    weight = linear_matrix(model.part(layer, model.architecture.heads_out)).unflatten(0, (model.heads, model.d_head))
    return torch.einsum("bthi,hid->bthd", split, weight.to(split.device))


def attention_output_bias(model: Model, layer: int) -> Float[Tensor, " d"]:
    """Bias of the attention output projection; zeros without one."""
    bias = getattr(model.part(layer, model.architecture.heads_out), "bias", None)
    return (
        bias.to(model.device)
        if isinstance(bias, Tensor)
        else torch.zeros(model.d, device=model.device, dtype=model.network.dtype)
    )


def linear_matrix(linear: nn.Module) -> Float[Tensor, "inside d"]:
    """The matrix of a linear layer, which maps x to x @ matrix + bias, with its adapter if it has one."""
    if hasattr(linear, "get_base_layer"):  # an adapter of PEFT around the map, in a model in training
        return _matrix_with_adapter(linear)
    # nn.Linear stores [out, in]; GPT-2's Conv1D stores [in, out].
    weight: Tensor = linear.get_parameter("weight")
    return weight.T if isinstance(linear, nn.Linear) else weight


@torch.no_grad()
def _matrix_with_adapter(linear: nn.Module) -> Float[Tensor, "inside d"]:
    """The map of a layer and its adapter together, whatever the kind of the adapter: what it makes of each unit vector."""
    weight = linear.get_base_layer().get_parameter("weight")  # type: ignore[operator]
    inside = weight.shape[1] if isinstance(linear.get_base_layer(), nn.Linear) else weight.shape[0]  # type: ignore[operator]
    units = torch.eye(inside, dtype=weight.dtype, device=weight.device)
    mapped: Tensor = linear(units) - linear(torch.zeros_like(units[:1]))
    return mapped


def tokenizer_fingerprint(model: Model) -> str:
    """Digest of the tokenizer's vocabulary, sixteen hex digits."""
    from ontogeny.storage.files import content_digest

    count, digest = _DIGESTS.get(model.tokenizer, (-1, ""))
    if count != len(model.tokenizer):
        digest = content_digest(sorted(model.tokenizer.get_vocab().items()))
        _DIGESTS[model.tokenizer] = (len(model.tokenizer), digest)
    return digest


_DIGESTS: "WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, str]]" = WeakKeyDictionary()
"""Size and digest of each vocabulary: sorting 50,000 words takes as long as several tokens of an answer."""


def site_width(model: Model, site: Site) -> int:
    """Number of dimensions of a site."""
    if site.part in HEAD_PARTS:
        own = model.architecture.own_attention
        has_bias = own is not None and own.has_position_bias(model.network.config)
        return model.d_head + (site.part != "head" and has_bias)
    return output_weight(model, site).shape[0] if site.part == "neuron" else model.d


def output_weight(model: Model, site: Site) -> Tensor:
    """Output projection that maps heads to `attn.l` or neurons to `mlp.l`, `[inside, d]`; a view of the weight, so it can be edited."""
    return linear_matrix(model.part(site.layer, output_weight_path(model, site))).data


def output_weight_path(model: Model, site: Site) -> str:
    """Path of that projection from a block.

    Raises:
        BadInput: the block is a mixture of experts, each of which has a projection of its own.
    """
    if site.part.startswith(("attn", "head")):
        return model.architecture.heads_out
    if not model.architecture.neurons:
        raise BadInput(
            f"the model must have one MLP in each block to use the neurons or the output weights of {site}, got "
            f"{model.network.config.model_type}, a mixture of experts: use a site of attention, or a dense model."
        )
    return model.architecture.neurons
