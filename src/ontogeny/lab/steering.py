"""Steer: while open, a model's forward passes go on with edited activations, attention or weights; afterwards no trace is left.

An edit that changes nothing (alpha 0, v − v) is not hooked at all, so the numbers are those of the bare model, bit for bit. Edits
count tokens in each row's own order, so that batch, padding side, KV cache and beams do not change what is edited.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ontogeny.calls import attending, calling
from ontogeny.direction import Direction
from ontogeny.errors import BadInput
from ontogeny.interventions import Intervention, RankOne, Reweight
from ontogeny.lab.tokens import Rows, Where, checked_where
from ontogeny.model import Model, writing
from ontogeny.sites import Site


@dataclass(frozen=True, eq=False)
class Edit:
    """An intervention at a site, on some of the tokens."""

    site: Site
    what: Intervention
    where: Where = "all"

    def null(self, seed: int = 0) -> "Edit":
        """The norm-matched control at the same place."""
        return Edit(self.site, self.what.null(seed), self.where)


Edits = Sequence[Edit | tuple[Site | str, Intervention] | tuple[Site | str, Intervention, Where]]


def edits_of(given: Edits) -> list[Edit]:
    """Pairs and triples as edits, sites read from their names."""
    found = []
    for one in given:
        site, what, where = (one.site, one.what, one.where) if isinstance(one, Edit) else (*one, "all")[:3]
        found.append(Edit(Site.parse(site) if isinstance(site, str) else site, what, checked_where(where)))
    return found


def for_rows(edits: Edits, rows: Sequence[int]) -> list[Edit]:
    """The same for some of the prompts: their masks, in their order."""
    found = []
    for edit in edits_of(edits):
        what, where = edit.what, edit.where
        if isinstance(where, str):
            found.append(edit)
            continue
        if max(rows) >= len(where):
            raise BadInput(f"{len(where)} masks were given for more prompts than that. Give one mask for each prompt.")
        if isinstance(what, Reweight) and what.seed is not None:
            # A control draws its tokens by the number of the prompt, not by its place in a batch.
            what, where = Reweight(what.factor), [what.chosen(mask, row) for row, mask in enumerate(where)]
        found.append(Edit(edit.site, what, [where[row] for row in rows]))
    return found


@contextlib.contextmanager
def steered(
    model: Model, edits: Edits, *, prompts: Int[Tensor, " row"] | Sequence[int] | None = None
) -> Iterator[None]:
    """While open, every forward pass is steered; edits at one site act in their order.

    `prompts` holds the token count of each row's prompt; edits of some tokens only need it.

    Raises:
        BadInput: a site that the model does not have, an edit of another width, or tokens that cannot be told.
    """
    wanted = [edit for edit in edits_of(edits) if not edit.what.nothing]
    for edit in wanted:
        check_fits(model, edit)
    counts = None if prompts is None else torch.as_tensor(prompts)
    if counts is None and (some := [e for e in wanted if isinstance(e.where, str) and e.where != "all"]):
        raise BadInput(
            f"{some[0].where!r} tokens are told from the length of the prompts. Pass prompts=, their token counts."
        )
    rows = Rows(counts)
    with contextlib.ExitStack() as open_hooks:
        if any(edit.where != "all" or edit.what.kind == "attention" for edit in wanted):
            open_hooks.enter_context(calling(model, rows.see))
        for edit in wanted:
            open_hooks.enter_context(_hooked(model, edit, rows))
        yield


def check_fits(model: Model, edit: Edit) -> None:
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
        if len(edit.what.key) != (inside := writer(model, site).shape[0]):
            raise BadInput(
                f"a key of {len(edit.what.key)} dimensions does not fit the map that writes {site}, which reads {inside}. Give another."
            )
    if width is not None and width != width_at(model, site):
        raise BadInput(
            f"an edit of {width} dimensions does not fit {site}, which has {width_at(model, site)}. "
            "Take a direction of this model, or of another with this width."
        )


def check_direction(model: Model, direction: Direction) -> None:
    """Refuse a direction of another width, site or tokenizer.

    Raises:
        BadInput: with what differs.
    """
    from ontogeny.interventions import Add

    check_fits(model, Edit(direction.site, Add(direction)))
    if direction.tokenizer and direction.tokenizer != (here := fingerprint(model)):
        raise BadInput(
            f"{direction.origin} was learned with another tokenizer ({direction.tokenizer}; this model has {here}). "
            "Learn it again on this model, or clear its tokenizer on purpose."
        )


def fingerprint(model: Model) -> str:
    """Sixteen hex digits of the tokenizer's vocabulary."""
    from ontogeny.store import digest

    return digest(sorted(model.tokenizer.get_vocab().items()))


def width_at(model: Model, site: Site) -> int:
    """Dimensions of a site."""
    if site.part == "head":
        return model.d_head
    return writer(model, site).shape[0] if site.part == "neuron" else model.d


def writer(model: Model, site: Site) -> Tensor:
    """The weight that writes `attn.l` or `mlp.l` (and reads heads or neurons), as `[inside, d]`; a view, so it can be edited."""
    linear = model.part(site.layer, writer_path(model, site))
    weight: Tensor = linear.get_parameter("weight").data
    # nn.Linear stores [out, in]; GPT-2's Conv1D stores [in, out].
    return weight.T if isinstance(linear, nn.Linear) else weight


def writer_path(model: Model, site: Site) -> str:
    """Where that map is, path from a block."""
    return model.architecture.heads_out if site.part.startswith(("attn", "head")) else model.architecture.neurons


@contextlib.contextmanager
def _hooked(model: Model, edit: Edit, rows: Rows) -> Iterator[None]:
    match edit.what.kind:
        case "weight":
            opened = _reweighed(writer(model, edit.site), edit)
        case "attention":
            opened = attending(model, edit.site.layer, _Attention(edit, rows))
        case _:
            opened = writing(model, edit.site, _Activation(edit, rows, _example(model)))
    with opened:
        yield


def _example(model: Model) -> Tensor:
    return next(p for p in model.network.parameters() if p.is_floating_point())


@contextlib.contextmanager
def _reweighed(weight: Tensor, edit: Edit) -> Iterator[None]:
    before = weight.clone()
    try:
        weight.copy_(edit.what(weight))
        yield
    finally:
        weight.copy_(before)


class _Activation:
    def __init__(self, edit: Edit, rows: Rows, like: Tensor) -> None:
        self.what, self.where, self.rows = edit.what.to(like), edit.where, rows

    def __call__(self, h: Tensor) -> Tensor:
        mask = self.rows.mask(self.where)
        # Nothing to do in this pass, as when a prompt was edited and what follows is generated.
        return h if mask is not None and not mask.any() else self.what(h, mask)


class _Attention:
    def __init__(self, edit: Edit, rows: Rows) -> None:
        self.what, self.rows = edit.what, rows
        self.where: Where = edit.where
        if isinstance(edit.what, Reweight) and not isinstance(edit.where, str):
            self.where = [edit.what.chosen(mask, row) for row, mask in enumerate(edit.where)]

    def __call__(self, mask: Tensor | None, h: Tensor) -> Tensor:
        scores, chosen = _additive(mask, self.rows, h), self.rows.looked_at(self.where)
        # A sliding window holds the newest tokens only; a cache of fixed size has room for more than there are.
        chosen = chosen[:, -scores.shape[-1] :]
        return self.what(scores, nn.functional.pad(chosen, (0, scores.shape[-1] - chosen.shape[1])))


def _additive(mask: Tensor | None, rows: Rows, h: Tensor) -> Tensor:
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


def controls(edits: Edits, seeds: Sequence[int]) -> Iterator[list[Edit]]:
    """The same edits as their norm-matched controls, once for each seed."""
    for seed in seeds:
        yield [edit.null(1000 * seed + i) for i, edit in enumerate(edits_of(edits))]
