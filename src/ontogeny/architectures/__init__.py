"""One table a model family: standard names -> module paths. To add a family, write one file with an `architecture` in it.

A family without a table is described by its structure, where that says enough; `model.validate` then has the last word.
"""

from dataclasses import dataclass
from typing import Any

from ontogeny import plugins
from ontogeny.errors import BadInput


@dataclass(frozen=True)
class Architecture:
    """Where a family of Hugging Face models keeps its parts."""

    model_types: tuple[str, ...]
    """Values of `config.model_type` that this table serves; empty where the structure was asked."""
    embed: str
    """Embedding of tokens or patches, path from the model."""
    blocks: str
    """The list of blocks, path from the model."""
    attn: str
    """Attention module, path from a block; its (first) output is `attn.l`."""
    heads_out: str
    """Output projection of attention, path from a block; its input is the heads, side by side."""
    mlp: str
    """MLP, path from a block; its output is `mlp.l`."""
    neurons: str
    """Second linear map of the MLP, path from a block; its input is the neurons, after the non-linearity."""
    final_norm: str
    """The norm after the last block, path from the model; empty where the blocks normalise the stream themselves."""
    attn_added: str = ""
    """Where the output of attention is not added as it is: the module whose output is, path from a block."""
    mlp_added: str = ""
    """The same for the MLP."""
    flat_mlp: bool = False
    """Whether the MLP sees the tokens of a batch in one row, `[batch * token, d]`."""
    causal: bool = True
    """Whether no token sees those behind it: texts of nearly one length then share a pass."""

    images: bool = False
    """Whether it reads prepared pixels instead of tokens."""

    @property
    def is_inferred(self) -> bool:
        """Whether it comes from the structure of a model, not from a table."""
        return not self.model_types


def find_architecture(model_type: str) -> Architecture | None:
    """The table that serves a `config.model_type`, if there is one."""
    tables: list[Architecture] = [
        plugins.load_plugin("architectures", n).architecture for n in plugins.list_plugins("architectures")
    ]
    return next((table for table in tables if model_type in table.model_types), None)


def architecture_of(network: Any) -> Architecture:
    """What describes a network: its family's table, else its structure.

    Raises:
        BadInput: no table serves it and its structure does not say enough.
    """
    kind = network.config.model_type
    table = find_architecture(kind)
    if table is not None:
        return table
    found = infer_architecture(network)
    if isinstance(found, str):
        raise unsupported_model(kind, found)
    return found


def infer_architecture(network: Any) -> Architecture | str:
    """What the structure of a network suggests, or why it suggests nothing; `model.validate` decides whether it holds."""
    from ontogeny.architectures._infer import infer_from_structure  # torch: not before it is needed

    return infer_from_structure(network)


def unsupported_model(model_type: str, why: str) -> BadInput:
    """The error for a model that cannot be read."""
    tables = [plugins.load_plugin("architectures", name).architecture for name in plugins.list_plugins("architectures")]
    known = ", ".join(sorted(kind for table in tables for kind in table.model_types))
    return BadInput(
        f"no architecture file serves models of type {model_type!r} ({why}); known: {known}. "
        "Add one table as docs/add-an-architecture.md shows."
    )
