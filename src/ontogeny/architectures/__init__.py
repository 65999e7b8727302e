"""One table a model family: standard names -> module paths. To add a family, write one file with an `architecture` in it."""

from dataclasses import dataclass

from ontogeny import plugins
from ontogeny.errors import BadInput


@dataclass(frozen=True)
class Architecture:
    """Where a family of Hugging Face causal language models keeps its parts."""

    model_types: tuple[str, ...]
    """Values of `config.model_type` that this table serves."""
    embed: str
    """Token embedding, path from the model."""
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
    """The norm after the last block, path from the model."""
    causal: bool = True
    """Whether no token sees those behind it: texts of nearly one length then share a pass."""


def find(model_type: str) -> Architecture:
    """The table that serves a `config.model_type`.

    Raises:
        BadInput: no table serves it.
    """
    served: list[str] = []
    for name in plugins.names("architectures"):
        architecture: Architecture = plugins.load("architectures", name).architecture
        if model_type in architecture.model_types:
            return architecture
        served.extend(architecture.model_types)
    raise BadInput(
        f"no architecture file serves models of type {model_type!r}; known: {', '.join(sorted(served))}. "
        "Add one table as docs/add-an-architecture.md shows."
    )
