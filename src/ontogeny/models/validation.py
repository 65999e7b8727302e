"""Validation of a live model: check that every site means what its name says, before anything is measured."""

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
from ontogeny.models.model import Model, attention_output_bias, head_contributions, image_sides, next_token_logits
from ontogeny.sites import Site


@torch.no_grad()
def validate_model(model: Model, *, answers: bool = False) -> None:
    """Check on the live model that each site means what its name says; with `answers` also the logits.

    Raises:
        BadInput: a read differs from Hugging Face's hidden states, heads do not sum to the attention output, a block is not the
            sum of its parts, a token of a causal model depends on later ones, or a write has no effect.
    """
    try:
        normed = _check(model)
        if answers:
            logits = model.network(**_sample(model)).logits
            _check_equal(model, "the logits", next_token_logits(model, normed), logits)
    except (AttributeError, RuntimeError) as error:  # a missing module, or shapes that do not fit
        raise _unsupported(model, first_error_line(error)) from None


def _sample(model: Model) -> dict[str, Any]:
    """Two short texts as tokens, or two images."""
    config = model.network.config
    if model.architecture.images:
        shape = (2, config.num_channels, *image_sides(config.image_size))
        values = torch.arange(math.prod(shape), device=model.device).view(shape) * 7 % 255 / 127.5 - 1
        return {"pixel_values": values.to(model.network.dtype)}
    words = model.network.get_input_embeddings().weight.shape[0]
    return {"input_ids": torch.arange(12, device=model.device).view(2, 6) * 7 % words, "use_cache": False}


def _check(model: Model) -> Float[Tensor, "batch token d"]:
    """All checks except that of the logits; returns the output of the body."""
    given = _sample(model)
    shape = (2, model.context) if model.architecture.images else given["input_ids"].shape
    values: dict[tuple[str, int], Tensor] = {}

    def keep(part: str, layer: int, value: Tensor) -> None:
        if value.shape[:2] != shape:
            raise _unsupported(
                model,
                f"the first dimensions of {part}.{layer} must be batch and token, got the shape {list(value.shape)}",
            )
        values[part, layer] = value.clone()  # Falcon changes it in place afterwards

    inside = ["attn", "mlp", "attn_resid", "mlp_resid", "head", *(["neuron"] if model.architecture.neurons else [])]
    wanted = [("resid", layer) for layer in range(model.layers + 1)] + [("norm", 0)]
    wanted += [(part, layer) for layer in range(1, model.layers + 1) for part in inside]
    wanted += [("router", layer) for layer in model.routed_layers]
    with read_hooks(model, wanted, keep):
        expected = model.body(**given, output_hidden_states=True)
    for layer in range(model.layers):
        _check_equal(model, f"resid.{layer}", values["resid", layer], expected.hidden_states[layer])
    # Hugging Face's last hidden state is after the final norm; ours is before it.
    _check_equal(model, f"resid.{model.layers} through the final norm", values["norm", 0], expected.last_hidden_state)
    for layer in range(1, model.layers + 1):
        _check_parts(model, layer, {part: values[part, layer] for part in inside})
        if model.architecture.final_norm:  # BERT normalises the stream itself, so its parts do not sum
            added = values["resid", layer - 1] + values["attn_resid", layer] + values["mlp_resid", layer]
            _check_equal(
                model, f"the sum of resid.{layer - 1} and block {layer}'s parts", added, values["resid", layer]
            )
    if model.architecture.causal:
        short = model.body(**given | {"input_ids": given["input_ids"][:, :3]}).last_hidden_state
        _check_equal(model, "a text without its end", short, expected.last_hidden_state[:, :3])
    with write_hooks(model, Site("resid", model.layers), torch.zeros_like), read_hooks(model, [("norm", 0)], keep):
        model.body(**given)
    last: Tensor = expected.last_hidden_state
    if torch.equal(values["norm", 0], last.to(model.device)):
        raise _unsupported(model, "an edit of the last block's output changes nothing")
    return last


def _check_parts(model: Model, layer: int, values: Mapping[str, Tensor]) -> None:
    through = head_contributions(model, layer, values["head"]).sum(-2) + attention_output_bias(model, layer)
    _check_equal(model, f"head.{layer}.* through W_O", through, values["attn"])
    if not model.architecture.neurons:
        return
    out = model.part(layer, model.architecture.neurons)
    _check_equal(model, f"neuron.{layer} through W_out", out(values["neuron"]), values["mlp"])


def _check_equal(model: Model, name: str, actual: Tensor, expected: Tensor) -> None:
    actual, expected = actual.to(model.device), expected.to(model.device)
    tolerance = 1e-4 if model.network.dtype == torch.float32 else 5e-2
    atol = tolerance * float(expected.abs().max())
    if actual.shape != expected.shape or not torch.allclose(actual, expected, rtol=tolerance, atol=atol):
        raise _unsupported(model, f"{name} differs from the model's own computation")


def _unsupported(model: Model, why: str) -> BadInput:
    kind = model.network.config.model_type
    if model.architecture.is_inferred:
        return architectures.unsupported_model(kind, f"the architecture inferred from its structure is wrong: {why}")
    return BadInput(f"{kind} does not fit its architecture table ({why}): correct the table in architectures/.")
