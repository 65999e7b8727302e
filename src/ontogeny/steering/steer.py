"""Steer: a context manager that edits activations, attention or weights in a model's forward passes and restores the model afterwards.

No hook is installed for an edit that changes nothing (alpha 0, v − v), so the numbers are those of the unedited model bit for bit. Edits
count tokens within each row, so that batch, padding side, KV cache and beams do not change which tokens are edited.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ontogeny.direction import Direction
from ontogeny.errors import BadInput
from ontogeny.interventions import Ablate, Add, AttentionIntervention, Intervention, RankOne, SplitSoftmax
from ontogeny.models.attention_patterns import AttentionCall, pattern_hooks
from ontogeny.models.forward import forward_padded
from ontogeny.models.hooks import attention_hooks, call_hooks, write_hooks
from ontogeny.models.model import Model, output_weight, site_width, tokenizer_fingerprint
from ontogeny.sites import Site
from ontogeny.steering.token_selection import PassTokens, TokenSelection, check_token_selection


@dataclass(frozen=True, eq=False)
class Edit:
    """An intervention at a site, on some of the tokens."""

    site: Site
    what: Intervention
    where: TokenSelection = "all"

    def null(self, seed: int = 0) -> "Edit":
        """The norm-matched control at the same site."""
        return Edit(self.site, self.what.null(seed), self.where)


SingleEdit = Edit | Intervention | tuple[Site | str, Intervention] | tuple[Site | str, Intervention, TokenSelection]
Edits = Sequence[SingleEdit]
"""Each an `Edit`, an intervention made from a direction, or a site with an intervention and, if not all, the tokens."""


def as_edits(given: Edits | Edit | Intervention) -> list[Edit]:
    """Interventions, pairs and triples as `Edit`s, with sites parsed from their names.

    Raises:
        BadInput: an intervention without a site, made from a plain vector.
    """
    edits = []
    for one in [given] if isinstance(given, Edit | Intervention) else given:
        if isinstance(one, Intervention):
            if one.site is None:
                raise BadInput(
                    f"{type(one).__name__} must be made from a direction, got a vector without a site: write (site, intervention), such "
                    "as ('resid.6', Add(vector))."
                )
            edits.append(Edit(one.site, one))
            continue
        site, what, where = (one.site, one.what, one.where) if isinstance(one, Edit) else (*one, "all")[:3]
        edits.append(Edit(Site.parse(site) if isinstance(site, str) else site, what, check_token_selection(where)))
    return edits


def edits_for_prompts(edits: Edits, rows: Sequence[int]) -> list[Edit]:
    """Edits for some of the prompts, with the masks of these."""
    selected = []
    for edit in as_edits(edits):
        what, where = edit.what, edit.where
        if isinstance(where, str):
            selected.append(edit)
            continue
        if max(rows) >= len(where):
            raise BadInput(
                f"an edit must have one mask for each prompt, got {len(where)} for at least {max(rows) + 1}."
            )
        if isinstance(what, AttentionIntervention) and what.seed is not None:
            # A control draws its tokens by the index of the prompt, not by its row in a batch.
            what, where = what.without_seed(), [what.reweighted_tokens(mask, row) for row, mask in enumerate(where)]
        selected.append(Edit(edit.site, what, [where[row] for row in rows]))
    return selected


@contextlib.contextmanager
def steer(
    model: Model,
    edits: Edits | Edit | Intervention,
    *,
    prompts: Int[Tensor, " row"] | Sequence[int] | None = None,
) -> Iterator[None]:
    """Steer every forward pass inside the context; edits at one site act in their order.

    Args:
        model: From `load_model`.
        edits: An intervention made from a direction (`Add(direction, alpha=4)`), or a list of these, of `Edit` objects and of
            (site, intervention) pairs.
        prompts: token count of each row's prompt, which edits of `prompt`, `generated` and `last` tokens need.

    Raises:
        BadInput: a site that the model does not have, an edit of another width, or missing `prompts`.
    """
    wanted = [edit for edit in as_edits(edits) if not edit.what.is_noop]
    for edit in wanted:
        check_edit(model, edit)
    counts = None if prompts is None else torch.as_tensor(prompts)
    if counts is None and (some := [e for e in wanted if isinstance(e.where, str) and e.where != "all"]):
        raise BadInput(f"edits of {some[0].where!r} tokens need the token counts of the prompts: pass `prompts`.")
    rows = PassTokens(counts)
    with contextlib.ExitStack() as open_hooks:
        if any(edit.where != "all" or edit.what.kind == "attention" for edit in wanted):
            open_hooks.enter_context(call_hooks(model, rows.update))
        for edit in wanted:
            open_hooks.enter_context(_hook_edit(model, edit, rows))
        yield


def forward_steered(
    model: Model,
    ids: Sequence[Int[Tensor, " token"]],
    edits: Edits,
    *,
    prompts: Int[Tensor, " row"] | Sequence[int],
    batch: int,
    body: bool = False,
) -> Iterator[tuple[list[int], Any]]:
    """`forward_padded` under edits; `prompts` holds the token count of each row's prompt."""
    counts = torch.as_tensor(prompts)
    return forward_padded(
        model,
        ids,
        batch=batch,
        body=body,
        context=lambda rows: steer(model, edits_for_prompts(edits, rows), prompts=counts[rows]),
    )


def check_can_generate(model: Model) -> None:
    """Raise if the model is not causal, such as BERT."""
    if not model.architecture.causal:
        raise BadInput(
            f"{model.network.config.model_type} is a masked language model and predicts no next token: use a causal model."
        )


def check_edit(model: Model, edit: Edit) -> None:
    """Raise if the edit does not fit the model."""
    site, width = edit.site, edit.what.width
    if site.layer > model.layers or (site.head is not None and site.head >= model.heads):
        raise BadInput(f"{site} does not exist: this model has {model.layers} blocks of {model.heads} heads.")
    if edit.what.kind == "attention" and site.part != "attn":
        raise BadInput(f"attention is re-weighted at attention sites only, got {site}: use attn.{max(1, site.layer)}.")
    if isinstance(edit.what, AttentionIntervention) and edit.what.seed is not None and isinstance(edit.where, str):
        raise BadInput(f"the control of re-weighted attention needs one mask for each prompt, got {edit.where!r}.")
    if edit.what.kind == "weight" and site.part not in ("attn", "mlp"):
        raise BadInput(f"weights are edited at attn.l or mlp.l, in the map that writes them, got {site}.")
    if isinstance(edit.what, RankOne):
        if edit.where != "all":
            raise BadInput(f"a weight edit must be of `all` tokens, got {edit.where!r}.")
        if len(edit.what.key) != (inside := output_weight(model, site).shape[0]):
            raise BadInput(
                f"the key of a weight edit at {site} must have {inside} dimensions, got {len(edit.what.key)}."
            )
    if width is not None and width != site_width(model, site):
        raise BadInput(
            f"an edit at {site} must have {site_width(model, site)} dimensions, got {width}: use a direction of a model of this width."
        )


def check_direction(model: Model, direction: Direction) -> None:
    """Raise if a direction has another width or tokenizer than the model, or a site that it does not have."""
    check_edit(model, Edit(direction.site, Add(direction)))
    if direction.tokenizer and direction.tokenizer != (here := tokenizer_fingerprint(model)):
        raise BadInput(
            f"{direction.origin} was fitted with another tokenizer ({direction.tokenizer}, this model has {here}): fit it on this "
            "model, or remove the tokenizer from the direction."
        )


@contextlib.contextmanager
def _hook_edit(model: Model, edit: Edit, rows: PassTokens) -> Iterator[None]:
    match edit.what.kind:
        case "weight":
            opened = _edit_weight(output_weight(model, edit.site), edit)
        case "attention" if isinstance(edit.what, SplitSoftmax):
            opened = pattern_hooks(model, _PatternHook(edit, rows))
        case "attention":
            opened = attention_hooks(model, edit.site.layer, _AttentionHook(edit, rows))
        case _:
            opened = write_hooks(model, edit.site, _ActivationHook(edit, rows, _example(model)))
    with opened:
        yield


def _example(model: Model) -> Tensor:
    return next(p for p in model.network.parameters() if p.is_floating_point())


@contextlib.contextmanager
def _edit_weight(weight: Tensor, edit: Edit) -> Iterator[None]:
    before = weight.clone()
    try:
        weight.copy_(edit.what(weight))
        yield
    finally:
        weight.copy_(before)


class _ActivationHook:
    def __init__(self, edit: Edit, rows: PassTokens, like: Tensor) -> None:
        self.what, self.where, self.rows = edit.what.to(like), edit.where, rows

    def __call__(self, h: Tensor) -> Tensor:
        mask = self.rows.mask(self.where)
        # No edited token in this pass, as in the generation after an edit of the prompt.
        return h if mask is not None and not mask.any() else self.what(h, mask)


class _KeyHook:
    """An edit of the attention to chosen keys."""

    def __init__(self, edit: Edit, rows: PassTokens) -> None:
        self.what, self.rows, self.layer = edit.what, rows, edit.site.layer
        self.where: TokenSelection = edit.where
        if isinstance(edit.what, AttentionIntervention) and not isinstance(edit.where, str):
            self.where = [edit.what.reweighted_tokens(mask, row) for row, mask in enumerate(edit.where)]

    def chosen(self, keys: int) -> Tensor:
        """The chosen ones of the last `keys` keys: a sliding window has the newest only, a static cache is longer than the tokens."""
        mask = self.rows.key_mask(self.where)[:, -keys:]
        return nn.functional.pad(mask, (0, keys - mask.shape[1]))


class _AttentionHook(_KeyHook):
    def __call__(self, mask: Tensor | None, h: Tensor) -> Tensor:
        scores = _additive(mask, self.rows, h)
        return self.what(scores, self.chosen(scores.shape[-1]))


class _PatternHook(_KeyHook):
    def __call__(self, call: AttentionCall) -> Tensor | None:
        if call.layer != self.layer:
            return None
        return self.what(call.pattern, self.chosen(call.pattern.shape[-1]))


def _additive(mask: Tensor | None, rows: PassTokens, h: Tensor) -> Tensor:
    """The mask in its additive form, `[row, 1, query, key]`."""
    query, key = rows.index.shape[1], rows.keys.shape[1]
    if mask is None:
        columns = torch.arange(key, device=h.device)
        mask = (columns[None, :] <= columns[key - query :, None])[None, None] & rows.key_is_real[:, None, None]
    if mask.ndim != 4:
        raise BadInput(
            f"re-weighting needs an attention mask of 4 dimensions, got {mask.ndim}: load the model with eager attention."
        )
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=h.dtype, device=h.device).masked_fill(~mask, torch.finfo(h.dtype).min)
    return mask.expand(len(h), -1, -1, -1)


def control_edits(edits: Edits, seeds: Sequence[int]) -> Iterator[list[Edit]]:
    """The norm-matched controls of the edits, once for each seed."""
    for seed in seeds:
        yield [edit.null(1000 * seed + i) for i, edit in enumerate(as_edits(edits))]


def split_softmax_everywhere(model: Model, k: float, tokens: TokenSelection) -> list[Edit]:
    """Edits that raise the share of attention to the given tokens to its k-th power in every head of every layer."""
    return [Edit(Site("attn", layer), SplitSoftmax(k), tokens) for layer in range(1, model.layers + 1)]


def ablate_everywhere(model: Model, direction: Direction | Float[Tensor, " d"]) -> list[Edit]:
    """Edits that ablate a direction from the embedding and from everything that blocks add to the stream."""
    normed = "_resid" if model.architecture.attn_added else ""
    writers = [f"{part}{normed}.{layer}" for layer in range(1, model.layers + 1) for part in ("attn", "mlp")]
    return [Edit(Site.parse(name), Ablate.of(direction)) for name in ("resid.0", *writers)]
