"""Steer: while open, a model's forward passes go on with edited activations, attention or weights; afterwards no trace is left.

An edit that changes nothing (alpha 0, v − v) is not hooked at all, so the numbers are those of the bare model, bit for bit. Edits
count tokens in each row's own order, so that batch, padding side, KV cache and beams do not change what is edited.
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
from ontogeny.interventions import Ablate, Add, Intervention, RankOne, Reweight
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
        """The norm-matched control at the same place."""
        return Edit(self.site, self.what.null(seed), self.where)


Edits = Sequence[Edit | tuple[Site | str, Intervention] | tuple[Site | str, Intervention, TokenSelection]]


def as_edits(given: Edits) -> list[Edit]:
    """Pairs and triples as edits, sites read from their names."""
    found = []
    for one in given:
        site, what, where = (one.site, one.what, one.where) if isinstance(one, Edit) else (*one, "all")[:3]
        found.append(Edit(Site.parse(site) if isinstance(site, str) else site, what, check_token_selection(where)))
    return found


def edits_for_prompts(edits: Edits, rows: Sequence[int]) -> list[Edit]:
    """The same for some of the prompts: their masks, in their order."""
    found = []
    for edit in as_edits(edits):
        what, where = edit.what, edit.where
        if isinstance(where, str):
            found.append(edit)
            continue
        if max(rows) >= len(where):
            raise BadInput(f"{len(where)} masks were given for more prompts than that. Give one mask for each prompt.")
        if isinstance(what, Reweight) and what.seed is not None:
            # A control draws its tokens by the number of the prompt, not by its place in a batch.
            what, where = Reweight(what.factor), [what.reweighted_tokens(mask, row) for row, mask in enumerate(where)]
        found.append(Edit(edit.site, what, [where[row] for row in rows]))
    return found


@contextlib.contextmanager
def steer(model: Model, edits: Edits, *, prompts: Int[Tensor, " row"] | Sequence[int] | None = None) -> Iterator[None]:
    """While open, every forward pass is steered; edits at one site act in their order.

    `prompts` holds the token count of each row's prompt; edits of some tokens only need it.

    Raises:
        BadInput: a site that the model does not have, an edit of another width, or tokens that cannot be told.
    """
    wanted = [edit for edit in as_edits(edits) if not edit.what.is_noop]
    for edit in wanted:
        check_edit(model, edit)
    counts = None if prompts is None else torch.as_tensor(prompts)
    if counts is None and (some := [e for e in wanted if isinstance(e.where, str) and e.where != "all"]):
        raise BadInput(
            f"{some[0].where!r} tokens are told from the length of the prompts. Pass prompts=, their token counts."
        )
    rows = PassTokens(counts)
    with contextlib.ExitStack() as open_hooks:
        if any(edit.where != "all" or edit.what.kind == "attention" for edit in wanted):
            open_hooks.enter_context(call_hooks(model, rows.see))
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
    """Refuse what would fail, or mean something else, in the middle of a pass."""
    site, width = edit.site, edit.what.width
    if site.layer > model.layers or (site.head is not None and site.head >= model.heads):
        raise BadInput(
            f"{site} does not exist: this model has {model.layers} blocks of {model.heads} heads. Choose another site."
        )
    if edit.what.kind == "attention" and site.part != "attn":
        raise BadInput(
            f"attention is re-weighted at attn.{max(1, site.layer)}, not at {site}. Name the attention layer."
        )
    if isinstance(edit.what, Reweight) and edit.what.seed is not None and isinstance(edit.where, str):
        raise BadInput(
            f"the control of re-weighted attention draws other tokens of each prompt, and {edit.where!r} names none. "
            "Give one mask for each prompt."
        )
    if edit.what.kind == "weight" and site.part not in ("attn", "mlp"):
        raise BadInput(f"weights are edited at attn.l or mlp.l, in the map that writes them, not at {site}. Name one.")
    if isinstance(edit.what, RankOne):
        if edit.where != "all":
            raise BadInput(
                f"a weight has no tokens, so it cannot be edited for {edit.where!r} only. Leave the tokens out."
            )
        if len(edit.what.key) != (inside := output_weight(model, site).shape[0]):
            raise BadInput(
                f"a key of {len(edit.what.key)} dimensions does not fit the map that writes {site}, which reads {inside}. Give another."
            )
    if width is not None and width != site_width(model, site):
        raise BadInput(
            f"an edit of {width} dimensions does not fit {site}, which has {site_width(model, site)}. "
            "Take a direction of this model, or of another with this width."
        )


def check_direction(model: Model, direction: Direction) -> None:
    """Refuse a direction of another width, site or tokenizer.

    Raises:
        BadInput: with what differs.
    """

    check_edit(model, Edit(direction.site, Add(direction)))
    if direction.tokenizer and direction.tokenizer != (here := tokenizer_fingerprint(model)):
        raise BadInput(
            f"{direction.origin} was learned with another tokenizer ({direction.tokenizer}; this model has {here}). "
            "Learn it again on this model, or clear its tokenizer on purpose."
        )


@contextlib.contextmanager
def _hook_edit(model: Model, edit: Edit, rows: PassTokens) -> Iterator[None]:
    match edit.what.kind:
        case "weight":
            opened = _edit_weight(output_weight(model, edit.site), edit)
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
        # Nothing to do in this pass, as when a prompt was edited and what follows is generated.
        return h if mask is not None and not mask.any() else self.what(h, mask)


class _AttentionHook:
    def __init__(self, edit: Edit, rows: PassTokens) -> None:
        self.what, self.rows = edit.what, rows
        self.where: TokenSelection = edit.where
        if isinstance(edit.what, Reweight) and not isinstance(edit.where, str):
            self.where = [edit.what.reweighted_tokens(mask, row) for row, mask in enumerate(edit.where)]

    def __call__(self, mask: Tensor | None, h: Tensor) -> Tensor:
        scores, chosen = _additive(mask, self.rows, h), self.rows.looked_at(self.where)
        # A sliding window holds the newest tokens only; a cache of fixed size has room for more than there are.
        chosen = chosen[:, -scores.shape[-1] :]
        return self.what(scores, nn.functional.pad(chosen, (0, scores.shape[-1] - chosen.shape[1])))


def _additive(mask: Tensor | None, rows: PassTokens, h: Tensor) -> Tensor:
    """The mask as what is added to the scores, `[row, 1, query, key]`."""
    query, key = rows.index.shape[1], rows.keys.shape[1]
    if mask is None:
        columns = torch.arange(key, device=h.device)
        mask = (columns[None, :] <= columns[key - query :, None])[None, None] & rows.seen[:, None, None]
    if mask.ndim != 4:
        raise BadInput(
            "this attention takes its mask in a form that cannot be re-weighted. Load the model with eager attention."
        )
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=h.dtype, device=h.device).masked_fill(~mask, torch.finfo(h.dtype).min)
    return mask.expand(len(h), -1, -1, -1)


def control_edits(edits: Edits, seeds: Sequence[int]) -> Iterator[list[Edit]]:
    """The same edits as their norm-matched controls, once for each seed."""
    for seed in seeds:
        yield [edit.null(1000 * seed + i) for i, edit in enumerate(as_edits(edits))]


def ablate_everywhere(model: Model, direction: Direction | Float[Tensor, " d"]) -> list[Edit]:
    """A direction ablated from the whole stream: from the embedding, and from all that the blocks add to it."""
    normed = "_resid" if model.architecture.attn_added else ""
    writers = [f"{part}{normed}.{layer}" for layer in range(1, model.layers + 1) for part in ("attn", "mlp")]
    return [Edit(Site.parse(name), Ablate.of(direction)) for name in ("resid.0", *writers)]
