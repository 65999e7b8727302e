"""The network inside what a training loop holds: torch.compile, DDP, DeepSpeed, PEFT and TRL wrap it. Sharded weights are refused."""

from typing import TYPE_CHECKING, Any, cast

from torch import nn

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_INSIDE = ("_orig_mod", "module", "policy", "pretrained_model")
"""Attributes that hold the wrapped network: of torch.compile, of DDP and DeepSpeed, of TRL's policy and value heads."""
_SHARDED = "`model` must have whole weights on this process, got weights sharded by {}: trace its saved checkpoints, or follow their folder with `ontogeny watch`."  # noqa: E501
_DEEPEST = 12


def inner_network(model: Any) -> "PreTrainedModel":
    """The transformers network inside a model in training, adapters included.

    Args:
        model: The network, or a wrapper of it.

    Raises:
        BadInput: the weights are sharded (FSDP, ZeRO-3) or not in memory, a prompt is learned, or there is no transformers network inside.
    """
    from transformers import PreTrainedModel

    network = model
    for _ in range(_DEEPEST):
        if isinstance(network, PreTrainedModel):
            _refuse_absent_weights(network)
            return network
        if not isinstance(network, nn.Module):
            break
        if type(network).__name__ == "FullyShardedDataParallel":
            raise BadInput(_SHARDED.format("FSDP"))
        network = _wrapped(network)
    raise BadInput(
        f"`model` must be a transformers network or a wrapper of one, got {_described(model)}: give the model itself."
    )


def _wrapped(network: nn.Module) -> Any:
    if hasattr(network, "get_base_model"):  # PEFT puts its layers into the network
        if getattr(getattr(network, "active_peft_config", None), "is_prompt_learning", False):
            raise BadInput(
                "`model` must hold what it learns in its weights, got a learned prompt (PEFT), which is outside of the network: use an "
                "adapter such as LoRA."
            )
        return cast("Any", network).get_base_model()
    return next((getattr(network, name) for name in _INSIDE if hasattr(network, name)), None)


def _refuse_absent_weights(network: nn.Module) -> None:
    for parameter in network.parameters():
        if parameter.is_meta:
            raise BadInput("`model` must have its weights in memory, got weights on the meta device: load them first.")
        if parameter.is_inference():
            raise BadInput(
                "`model` must be one that can be trained, got weights that were made in inference mode: load them outside of it."
            )
        if hasattr(parameter, "ds_id"):
            raise BadInput(_SHARDED.format("DeepSpeed ZeRO-3"))
        if type(parameter.data).__name__ == "DTensor":
            raise BadInput(_SHARDED.format("FSDP"))
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in network.modules()):
        raise BadInput(_SHARDED.format("FSDP"))


def _described(model: Any) -> str:
    if hasattr(model, "param_groups") or hasattr(model, "optimizer"):
        return f"the optimizer {type(model).__name__}"
    return "nothing" if model is None else f"a {type(model).__name__}"
