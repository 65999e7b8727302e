"""An unknown family by its structure: a list of blocks that each hold attention and an MLP, told by names and widths.

Nothing here is sure: whatever is found is only used once `model.validate` has held it against the model's own hidden states.
"""

import re
from collections.abc import Sequence

from torch import nn

from ontogeny.architectures import Architecture

_ATTENTION_NAME = re.compile(r"attn|attention")
_MLP_NAME = re.compile(r"mlp|ffn|feed_?forward")
_NORM_NAME = re.compile(r"norm|(^|_)ln|ln(_|$)")
_HEAD_INPUT_NAME = re.compile(r"^w?(q|k|v|qkv|query|key|value|g|gate)(_|$)|query_key_value")
"""Names of the maps into queries, keys and values, as wide as the stream too."""


def infer_from_structure(network: nn.Module) -> Architecture | str:
    """The table that a network's structure suggests, or why there is none."""
    config = network.config.get_text_config()  # type: ignore[operator,union-attr]
    depth, d = getattr(config, "num_hidden_layers", 0), getattr(config, "hidden_size", 0)
    blocks = next((n for n, m in network.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth), None)
    embed = next((n for n, m in network.named_modules() if m is network.get_input_embeddings()), None)  # type: ignore[operator]
    if not depth or not d or blocks is None or embed is None:
        return "it has no embedding and list of blocks that its config counts"
    block = network.get_submodule(f"{blocks}.0")
    attn = _child(block, _ATTENTION_NAME)
    outs = (
        [n for n in _output_maps(block, attn, d) if not _HEAD_INPUT_NAME.search(n.rpartition(".")[2].lower())]
        if attn
        else []
    )
    if attn is None or len(outs) != 1:
        return "its blocks have no attention with one map from the heads to the stream"
    mlp = _child(block, _MLP_NAME)
    neurons = _output_maps(block, mlp, d) if mlp else [n for n, m in block.named_children() if _width(m) == d]
    if not neurons:
        return "its blocks have no MLP that ends in one linear map"
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
    """The one direct part of a block with such a name that holds linear maps."""
    found = [n for n, m in block.named_children() if names.search(n.lower()) and any(map(_width, m.modules()))]
    return found[0] if len(found) == 1 else None


def _output_maps(block: nn.Module, path: str, d: int) -> Sequence[str]:
    """Linear maps inside a part of a block that end in the stream, as paths from the block."""
    return [f"{path}.{n}" for n, m in block.get_submodule(path).named_modules() if n and _width(m) == d]


def _width(module: nn.Module) -> int:
    """How wide what a linear map gives is; 0 for what is no linear map."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return int(module.nf) if type(module).__name__ == "Conv1D" else 0  # type: ignore[arg-type]


def _final_norm(network: nn.Module, blocks: str) -> str:
    above = blocks.rpartition(".")[0]
    beside = network.get_submodule(above).named_children()
    norms = [n for n, _ in beside if _NORM_NAME.search(n.lower()) and "emb" not in n]
    return f"{above}.{norms[-1]}".lstrip(".") if norms else ""
