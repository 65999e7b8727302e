"""Siblings along a data-mix axis: one network and one tokenizer, so that only the data differ."""

from pathlib import Path

from ontogeny.errors import BadInput
from ontogeny.lineage import Checkpoint, Lineage
from ontogeny.lineage.fetch import checkpoint_config
from ontogeny.lineage.siblings import sibling_stages
from ontogeny.models.identity import own_tokenizer_digest
from ontogeny.models.shape import model_shape


def check_equal_networks(lineage: Lineage, tokenizer: str | Path | None = None) -> None:
    """Check that siblings differ in their data alone, from their configs and tokenizer files.

    Args:
        tokenizer: A tokenizer for all of them in place of their own.

    Raises:
        BadInput: two have another architecture, shape or tokenizer.
    """
    siblings = sibling_stages(lineage.stages)
    if len(siblings) < 2:
        return
    first, *others = [(stage.name, stage.checkpoints[-1]) for _, stage in siblings]
    network, words = _network(first[1]), None if tokenizer else own_tokenizer_digest(first[1])
    for name, checkpoint in others:
        if (other := _network(checkpoint)) != network:
            raise BadInput(
                f"stages with a data_share must have the same network, got {network} of {first[0]} and {other} of {name}: leave one out."
            )
        if tokenizer is None and own_tokenizer_digest(checkpoint) != words:
            raise BadInput(
                f"stages with a data_share must have the same tokenizer, {first[0]} and {name} have different ones: leave one out, or give "
                "a `tokenizer` for all."
            )


def _network(checkpoint: Checkpoint) -> str:
    config = checkpoint_config(checkpoint)
    shape = model_shape(config)
    return f"{config.get('model_type', 'no model_type')} of {shape.layers} layers, {shape.heads} heads and width {shape.width}"
