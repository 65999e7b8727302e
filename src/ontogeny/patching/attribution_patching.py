"""Attribution patching: first-order effects of all patches from one forward and one backward pass (arXiv:2310.10348).

The effect of a patch is approximated by the gradient of the log odds at the corrupt run times the change of the stream. Report its
correlation with exact patching beside it.
"""

import contextlib

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.models.hooks import read_hooks, write_hooks
from ontogeny.models.model import Model
from ontogeny.patching.activation_patching import BaselineRun, PatchingCost, answer_log_odds
from ontogeny.sites import Site


def attribution_patch(
    model: Model, run: BaselineRun, values: Float[Tensor, "layer row token d"], cost: PatchingCost
) -> Float[Tensor, "layer row token"]:
    """First-order approximation of the log odds after each patch."""
    slopes = stream_gradients(model, run, cost)
    change = values.to(slopes) - run.streams
    return run.odds[None, :, None] + (slopes * change).sum(-1)


def stream_gradients(model: Model, run: BaselineRun, cost: PatchingCost) -> Float[Tensor, "layer row token d"]:
    """Gradient of each prompt's log odds with respect to the stream of every layer at every token after the prefix."""
    prefix, prompts = run.prefix, run.prompts
    ids = torch.cat([prefix.ids.expand(len(prompts), -1), prompts.ids], 1)
    streams: list[Tensor] = []
    ends: list[Tensor] = []

    def keep(h: Tensor) -> Tensor:
        # A copy, since a block may change its input in place.
        h = h.clone() if streams else h.detach().clone().requires_grad_()
        streams.append(h)
        return h

    with torch.enable_grad(), contextlib.ExitStack() as hooks:
        for layer in range(model.layers + 1):
            hooks.enter_context(write_hooks(model, Site("resid", layer), keep))
        hooks.enter_context(read_hooks(model, [("norm", 0)], lambda _, __, value: ends.append(value[:, -1])))
        model.body(input_ids=ids, use_cache=False)
        odds = answer_log_odds(model, ends[0], prompts.right, prompts.wrong)
        gradients = torch.autograd.grad(odds.sum(), streams)
    # A backward pass costs two forward passes.
    cost.computed += 3 * ids.numel() * model.layers
    cost.needed += 3 * ids.numel() * model.layers
    cost.passes += 1
    return torch.stack(gradients)[:, :, len(prefix.ids) :]
