"""Architecture tables: standard names -> module paths, one file per model family.

To add a family, write one file in this folder with `architecture: Architecture` (docs/add-an-architecture.md). Without a table the
structure of the network is used if it is unambiguous; `models.validation` checks either on the live model.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ontogeny import plugins
from ontogeny.errors import BadInput

__all__ = [
    "Architecture",
    "Attend",
    "OwnAttention",
    "architecture_of",
    "find_architecture",
    "infer_architecture",
    "unsupported_model",
]

_ATTENTION_NAME = re.compile(r"attn|attention")
_MLP_NAME = re.compile(r"mlp|ffn|feed_?forward")
_NORM_NAME = re.compile(r"norm|(^|_)ln|ln(_|$)")
_HEAD_INPUT_NAME = re.compile(r"^w?(q|k|v|qkv|query|key|value|g|gate)(_|$)|query_key_value")
"""Names of the query, key and value projections, which also have the width of the residual stream."""


Attend = Callable[..., Any]
"""Attention in transformers' common form, `attend(module, query, key, value, mask, scaling=None, bias=None)`.

It returns the outputs of the heads `[row, query, head, v]` and the pattern. A bias `[row, head, 1, key]` is added to the scores."""


@dataclass(frozen=True)
class OwnAttention:
    """The method in which a family computes its attention, if it does not call the common function of transformers."""

    method: Callable[[nn.Module, Attend], tuple[nn.Module, str, Callable[..., Any]]]
    """From a block and `attend`: the module, the name of its method, and a method that does the same by calling `attend`."""
    has_position_bias: Callable[[Any], bool] = lambda config: False
    """Whether a model of this config adds a bias by position to the scores (ALiBi): one more coordinate of its queries and keys."""


@dataclass(frozen=True)
class Architecture:
    """Module paths of the parts of a Hugging Face model family."""

    model_types: tuple[str, ...]
    """Values of `config.model_type`; empty if inferred from the structure."""
    embed: str
    """Embedding of tokens or patches, as a path from the model."""
    blocks: str
    """List of blocks, as a path from the model."""
    attn: str
    """Attention module, as a path from a block; its (first) output is `attn.l`."""
    heads_out: str
    """Output projection of attention, as a path from a block; its input is the concatenated heads."""
    mlp: str
    """MLP, as a path from a block; its output is `mlp.l`."""
    neurons: str
    """Second linear layer of the MLP, as a path from a block; its input is the neurons after the non-linearity. Empty for a mixture of
    experts, each of which has neurons of its own."""
    final_norm: str
    """Norm after the last block, as a path from the model; empty if the blocks normalise the residual stream."""
    attn_added: str = ""
    """Module whose output is added to the residual stream, as a path from a block, if it is not the attention module."""
    mlp_added: str = ""
    """The same for the MLP."""
    router: str = ""
    """Router of a mixture of experts, as a path from a block; its first output, a row for each token, is `router.l`. Blocks may lack it."""
    flat_mlp: bool = False
    """Whether the MLP receives the tokens of a batch as one row, `[batch * token, d]`."""
    causal: bool = True
    """Whether tokens attend to earlier tokens only, so that texts of similar length can share a batch."""
    images: bool = False
    """Whether the input is pixels instead of tokens."""
    own_attention: OwnAttention | None = None
    """How its queries, keys and patterns are reached, if its attention is not the common function of transformers."""

    @property
    def is_inferred(self) -> bool:
        """Whether it was inferred from the structure of a model instead of a table."""
        return not self.model_types


def find_architecture(model_type: str) -> Architecture | None:
    """The table for a `config.model_type`, if there is one."""
    return next((table for table in _tables() if model_type in table.model_types), None)


def _tables() -> list[Architecture]:
    return [plugins.load_plugin("architectures", name).architecture for name in plugins.list_plugins("architectures")]


def architecture_of(network: Any) -> Architecture:
    """The architecture of a network: the table of its family, else inferred from its structure.

    Raises:
        BadInput: there is no table and the structure is ambiguous.
    """
    kind = network.config.model_type
    architecture = find_architecture(kind) or infer_architecture(network)
    if isinstance(architecture, str):
        raise unsupported_model(kind, architecture)
    return architecture


def unsupported_model(model_type: str, why: str) -> BadInput:
    """The error for a model of unknown architecture."""
    known = ", ".join(sorted(kind for table in _tables() for kind in table.model_types))
    return BadInput(
        f"no architecture table supports models of type {model_type!r} ({why}): add one as in docs/add-an-architecture.md; "
        f"known types are {known}."
    )


def infer_architecture(network: Any) -> Architecture | str:
    """The architecture suggested by a network's structure, or the reason why there is none."""
    config = network.config.get_text_config()
    depth, d = getattr(config, "num_hidden_layers", 0), getattr(config, "hidden_size", 0)
    blocks = next((n for n, m in network.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth), None)
    embed = next((n for n, m in network.named_modules() if m is network.get_input_embeddings()), None)
    if not depth or not d or blocks is None or embed is None:
        return "it has no embedding, or no list of as many blocks as its config says"
    block = network.get_submodule(f"{blocks}.0")
    attn = _child(block, _ATTENTION_NAME)
    outs = _output_maps(block, attn, d) if attn else []
    outs = [n for n in outs if not _HEAD_INPUT_NAME.search(n.rpartition(".")[2].lower())]
    if attn is None or len(outs) != 1:
        return "its blocks have no attention with exactly one output projection"
    mlp = _child(block, _MLP_NAME)
    neurons = _output_maps(block, mlp, d) if mlp else [n for n, m in block.named_children() if _width(m) == d]
    if not neurons:
        return "its blocks have no MLP with a linear output layer"
    return Architecture(
        model_types=(),
        embed=embed,
        blocks=blocks,
        attn=attn,
        heads_out=outs[0],
        mlp=mlp or neurons[-1],
        neurons=neurons[-1],
        final_norm=_final_norm(network, blocks),
    )


def _child(block: nn.Module, names: re.Pattern[str]) -> str | None:
    """The only child of a block with such a name and with linear layers."""
    children = [n for n, m in block.named_children() if names.search(n.lower()) and any(map(_width, m.modules()))]
    return children[0] if len(children) == 1 else None


def _output_maps(block: nn.Module, path: str, d: int) -> list[str]:
    """Linear layers inside a part of a block with the width of the residual stream, as paths from the block."""
    return [f"{path}.{n}" for n, m in block.get_submodule(path).named_modules() if n and _width(m) == d]


def _width(module: nn.Module) -> int:
    """Output width of a linear layer; 0 for other modules."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return int(module.nf) if type(module).__name__ == "Conv1D" else 0  # type: ignore[arg-type]


def _final_norm(network: nn.Module, blocks: str) -> str:
    above = blocks.rpartition(".")[0]
    beside = network.get_submodule(above).named_children()
    norms = [n for n, _ in beside if _NORM_NAME.search(n.lower()) and "emb" not in n]
    return f"{above}.{norms[-1]}".lstrip(".") if norms else ""
