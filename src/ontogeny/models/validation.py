"""TODO docstring of src/ontogeny/models/validation.py"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny import architectures
from ontogeny.errors import BadInput
from ontogeny.models.hooks import read_hooks, write_hooks
from ontogeny.models.loading import first_error_line
from ontogeny.models.model import Model, attention_output_bias, head_contributions, next_token_logits
from ontogeny.sites import Site


@torch.no_grad()
def validate_model(model: Model, *, answers: bool = False) -> None:
    """Check on the live model that each standard name means what it says; with `answers` also the scores of the vocabulary.

    Raises:
        BadInput: a read differs from Hugging Face's own hidden states, heads do not sum to the attention output, a block is not
            the sum of its parts, a token of a causal family sees those behind it, or a write has no effect.
    """
    try:
        theirs = _check(model)
        if answers:
            whole = model.network(**_sample(model)).logits
            _check_equal(model, "what the vocabulary is scored with", next_token_logits(model, theirs), whole)
    except (AttributeError, RuntimeError) as error:  # a path that is not there, or shapes that do not fit
        raise _unsupported(model, first_error_line(error)) from None


def _sample(model: Model) -> dict[str, Any]:
    """Two short texts as tokens, or two images."""
    config = model.network.config
    if model.architecture.images:
        sides = (config.image_size,) * 2 if isinstance(config.image_size, int) else tuple(config.image_size)
        shape = (2, config.num_channels, *sides)
        values = torch.arange(math.prod(shape), device=model.device).view(shape) * 7 % 255 / 127.5 - 1
        return {"pixel_values": values.to(model.network.dtype)}
    words = model.network.get_input_embeddings().weight.shape[0]
    return {"input_ids": torch.arange(12, device=model.device).view(2, 6) * 7 % words, "use_cache": False}


def _check(model: Model) -> Float[Tensor, "batch token d"]:
    """All checks but that of the vocabulary; gives what the body puts out."""
    given = _sample(model)
    shape = (2, model.context) if model.architecture.images else given["input_ids"].shape
    seen: dict[tuple[str, int], Tensor] = {}

    def keep(part: str, layer: int, value: Tensor) -> None:
        if value.shape[:2] != shape:
            raise _unsupported(
                model, f"{part}.{layer} has the shape {list(value.shape)} where batch and token should come first"
            )
        seen[part, layer] = value.clone()  # Falcon goes on to change it in place

    inside = ("attn", "mlp", "attn_resid", "mlp_resid", "head", "neuron")
    wanted = [("resid", layer) for layer in range(model.layers + 1)] + [("norm", 0)]
    wanted += [(part, layer) for layer in range(1, model.layers + 1) for part in inside]
    with read_hooks(model, wanted, keep):
        theirs = model.body(**given, output_hidden_states=True)
    for layer in range(model.layers):
        _check_equal(model, f"resid.{layer}", seen["resid", layer], theirs.hidden_states[layer])
    # Hugging Face's last hidden state is after the final norm; ours is before it.
    _check_equal(model, f"resid.{model.layers} through the final norm", seen["norm", 0], theirs.last_hidden_state)
    for layer in range(1, model.layers + 1):
        _check_parts(model, layer, {part: seen[part, layer] for part in inside})
        if model.architecture.final_norm:  # BERT normalises the stream itself: no sum
            added = seen["resid", layer - 1] + seen["attn_resid", layer] + seen["mlp_resid", layer]
            _check_equal(model, f"the sum of resid.{layer - 1} and block {layer}'s parts", added, seen["resid", layer])
    if model.architecture.causal:
        short = model.body(**given | {"input_ids": given["input_ids"][:, :3]}).last_hidden_state
        _check_equal(model, "a text without its end", short, theirs.last_hidden_state[:, :3])
    with write_hooks(model, Site("resid", model.layers), torch.zeros_like), read_hooks(model, [("norm", 0)], keep):
        model.body(**given)
    if torch.equal(seen["norm", 0], theirs.last_hidden_state.to(model.device)):
        raise _unsupported(model, "an edit of the last block's output changes nothing")
    last: Tensor = theirs.last_hidden_state
    return last


def _check_parts(model: Model, layer: int, seen: Mapping[str, Tensor]) -> None:
    through = head_contributions(model, layer, seen["head"]).sum(-2) + attention_output_bias(model, layer)
    _check_equal(model, f"head.{layer}.* through W_O", through, seen["attn"])
    out = model.part(layer, model.architecture.neurons)
    _check_equal(model, f"neuron.{layer} through W_out", out(seen["neuron"]), seen["mlp"])


def _check_equal(model: Model, what: str, ours: Tensor, theirs: Tensor) -> None:
    ours, theirs = ours.to(model.device), theirs.to(model.device)
    tolerance = 1e-4 if model.network.dtype == torch.float32 else 5e-2
    if ours.shape != theirs.shape or not torch.allclose(
        ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max())
    ):
        raise _unsupported(model, f"{what} is not what the model computes")


def _unsupported(model: Model, why: str) -> BadInput:
    kind = model.network.config.model_type
    if model.architecture.guessed:
        return architectures.unsupported_model(kind, f"what its structure suggests is not what it computes: {why}")
    return BadInput(f"{kind} does not fit its architecture table: {why}. Correct the table in architectures/.")
