"""Effects of an edit as records: does the model give the new object, where else, and at what cost; each beside its nulls.

Efficacy, paraphrases and neighbourhood as in CounterFact (arXiv:2202.05262); shattering as in arXiv:2410.17194.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.tokenization import encode_answers, encode_texts
from ontogeny.editing.facts import FactEdit
from ontogeny.editing.nulls import NULL_KINDS, norm_matched_edits
from ontogeny.editing.shattering import shattering
from ontogeny.errors import BadInput
from ontogeny.models.forward import forward_padded
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.steering.log_likelihood import TokenizedAnswer, log_likelihoods, token_log_likelihoods
from ontogeny.steering.side_effects import measure_side_effects
from ontogeny.steering.steer import Edit, steer

_Values = dict[tuple[str, str], tuple[float, int]]
"""Value and number of examples by metric and kind of prompt."""


@dataclass(frozen=True)
class EditPrompts:
    """Texts on which an edit is measured."""

    paraphrases: tuple[str, ...] = ()
    """Other prompts that the new object should follow."""
    neighbours: tuple[str, ...] = ()
    """Prompts about other subjects, whose next token should stay."""
    texts: tuple[str, ...] = ()
    """Texts whose likelihood should stay."""
    before: str = ""
    """The old object, as it continues the prompt; empty: the likeliest next token of the unedited model beside the new object."""

    def __post_init__(self) -> None:
        if any(not text.strip() for text in (*self.paraphrases, *self.neighbours)):
            raise BadInput("a paraphrase or a neighbour must have a word, got one without: leave it out.")


def edit_effects(
    model: Model,
    fact: FactEdit,
    edits: Sequence[Edit],
    prompts: EditPrompts,
    *,
    method: str = "rome",
    controls: int = 8,
    seed: int = 0,
    site: Site | None = None,
) -> list[Record]:
    """Records of the effects of edits on one fact: themselves, the unedited model, and the range of `controls` nulls of each kind.

    Args:
        edits: Changes of weights, all that have been made so far.
        method: For the records.
        site: Where representations are compared; by default the stream after the last block.

    Raises:
        BadInput: a text that is too long or too short.
    """
    measure = partial(_measure, _Unedited.of(model, fact, prompts, site or Site("resid", model.layers)))
    reasons = _reasons(prompts)
    rows = [_record(key, [value], method, None, reasons) for key, value in measure(edits).items()]
    rows += [_record(key, [value], method, "unedited", reasons) for key, value in measure([]).items()]
    for kind in NULL_KINDS if edits else ():
        drawn = [measure(norm_matched_edits(edits, kind, seed=seed * 1000 + i)) for i in range(controls)]
        rows += [
            _record(key, [values[key] for values in drawn], method, kind, reasons)
            for key in (drawn[0] if drawn else ())
        ]
    return rows


@dataclass(frozen=True, eq=False)
class _Unedited:
    """Tokens, and the outputs of the unedited model for them."""

    model: Model
    pairs: tuple[tuple[str, TokenizedAnswer, TokenizedAnswer], ...]
    """Kind of prompt, then the prompt with its new and its old object."""
    neighbours: list[Int[Tensor, " token"]]
    scores: Float[Tensor, "neighbour vocab"] | None
    things: list[Int[Tensor, " token"]]
    """Texts whose last tokens are compared by their distances."""
    states: Float[Tensor, "thing d"] | None
    texts: tuple[str, ...]
    site: Site

    @classmethod
    def of(cls, model: Model, fact: FactEdit, prompts: EditPrompts, site: Site) -> "_Unedited":
        kinds = [("fact", fact.prompt), *(("paraphrase", text) for text in prompts.paraphrases)]
        new = _answers(model, [(text, fact.answer) for _, text in kinds])
        if prompts.before:
            old = _answers(model, [(text, prompts.before) for _, text in kinds])
        else:
            bare = new[0].ids[: new[0].prompt]
            scores = _last_scores(model, [bare], ())
            if len(own := new[0].ids[new[0].prompt :]) == 1:  # the model may give the new object already
                scores[0, own] = -math.inf
            likeliest = scores.argmax(-1)
            old = [TokenizedAnswer(torch.cat([a.ids[: a.prompt], likeliest]), a.prompt) for a in new]
        neighbours = _rows(model, prompts.neighbours)
        things = [*neighbours, *_rows(model, prompts.texts)]
        enough = len(things) >= 3
        return cls(
            model,
            tuple((kind, a, b) for (kind, _), a, b in zip(kinds, new, old, strict=True)),
            neighbours,
            _last_scores(model, neighbours, ()) if neighbours else None,
            things,
            last_token_states(model, things, site) if enough else None,
            prompts.texts,
            site,
        )


def _measure(unedited: _Unedited, edits: Sequence[Edit]) -> _Values:
    model, values = unedited.model, _Values()
    scores = token_log_likelihoods(model, [a for _, *two in unedited.pairs for a in two], list(edits))
    chances = log_likelihoods(scores).exp().view(-1, 2)
    kinds = [kind for kind, *_ in unedited.pairs]
    for kind in ("fact", "paraphrase"):
        own = chances[[i for i, name in enumerate(kinds) if name == kind]]
        values["edit_probability", kind] = (float(own[:, 0].mean()), len(own))
        values["edit_success", kind] = (float((own[:, 0] > own[:, 1]).double().mean()), len(own))
    n = len(unedited.neighbours)
    kept, divergence = math.nan, math.nan
    if unedited.scores is not None:
        after = _last_scores(model, unedited.neighbours, edits)
        kept = float((after.argmax(-1) == unedited.scores.argmax(-1)).double().mean())
        divergence = float((unedited.scores.exp() * (unedited.scores - after)).sum(-1).mean())
    values["edit_kept", "neighbour"] = (kept, n)
    values["edit_kl", "neighbour"] = (divergence, n)
    loss, cost, count = math.nan, math.nan, len(unedited.texts)
    if count:
        effects = measure_side_effects(model, unedited.texts, list(edits))
        loss = float((effects.after - effects.before).mean())
        cost = float(effects.divergence.mean())
    values["edit_loss_change", "text"] = (loss, count)
    values["edit_kl", "text"] = (cost, count)
    n = len(unedited.things)
    distances = [math.nan] * 3
    if unedited.states is not None:
        moved = shattering(unedited.states, last_token_states(model, unedited.things, unedited.site, edits))
        distances = [moved.distortion, moved.rearrangement, moved.procrustes]
    for metric, value in zip(("edit_distortion", "edit_rearrangement", "edit_procrustes"), distances, strict=True):
        values[metric, "thing"] = (value, n)
    return values


@torch.no_grad()
def last_token_states(
    model: Model, rows: Sequence[Int[Tensor, " token"]], site: Site, edits: Sequence[Edit] = (), *, batch: int = 64
) -> Float[Tensor, "row d"]:
    """The activation of each row's last token at a site, under the edits."""
    return _last_tokens(model, rows, edits, batch=batch, site=site)


@torch.no_grad()
def _last_scores(
    model: Model, rows: Sequence[Int[Tensor, " token"]], edits: Sequence[Edit], *, batch: int = 64
) -> Float[Tensor, "row vocab"]:
    """Log-probabilities of the token after each row."""
    return _last_tokens(model, rows, edits, batch=batch).double().log_softmax(-1)


def _last_tokens(
    model: Model,
    rows: Sequence[Int[Tensor, " token"]],
    edits: Sequence[Edit],
    *,
    batch: int,
    site: Site | None = None,
) -> Tensor:
    """Activations at a site, or logits without one, of each row's last token."""
    values: list[Tensor] = []

    @contextlib.contextmanager
    def read(_: list[int]) -> Iterator[None]:
        with contextlib.ExitStack() as hooks:
            if site is not None:
                hooks.enter_context(read_hooks(model, [(site.part, site.layer)], lambda *got: values.append(got[2])))
            yield

    last: list[Tensor] = [torch.empty(0)] * len(rows)
    with steer(model, list(edits)):
        for chosen, output in forward_padded(model, rows, batch=batch, body=site is not None, context=read):
            whole = values.pop() if site is not None else output.logits
            for row, i in enumerate(chosen):
                last[i] = whole[row, len(rows[i]) - 1].float().cpu()
    return torch.stack(last)


def _rows(model: Model, texts: Sequence[str]) -> list[Int[Tensor, " token"]]:
    if not texts:
        return []
    rows = []
    for text, encoding in zip(texts, encode_texts(model.tokenizer, texts, [None] * len(texts)), strict=True):
        if not 1 <= len(encoding.ids) <= model.context:
            raise BadInput(
                f"a text must have 1 to {model.context} tokens, the context, {text[:60]!r} has {len(encoding.ids)}: shorten it."
            )
        rows.append(encoding.ids)
    return rows


def _answers(model: Model, pairs: Sequence[tuple[str, str]]) -> list[TokenizedAnswer]:
    return [TokenizedAnswer(ids, start) for ids, _, start in encode_answers(model.tokenizer, pairs)]


def _reasons(prompts: EditPrompts) -> Mapping[str, str]:
    return {
        "paraphrase": "no paraphrase was given",
        "neighbour": "no neighbour was given",
        "text": "no text was given",
        "thing": f"distances need 3 neighbours or texts, got {len(prompts.neighbours) + len(prompts.texts)}",
    }


def _record(
    key: tuple[str, str],
    drawn: Sequence[tuple[float, int]],
    method: str,
    control: str | None,
    reasons: Mapping[str, str],
) -> Record:
    """One row: the value, or the mean and the range of several nulls."""
    metric, kind = key
    values = [value for value, _ in drawn]
    mean = sum(values) / len(values)
    known = math.isfinite(mean)
    spread = (min(values), max(values)) if control in NULL_KINDS and known else (math.nan, math.nan)
    return Record(
        metric,
        mean if known else math.nan,
        method=method,
        control=control,
        low=spread[0],
        high=spread[1],
        n=drawn[0][1] if known else 0,
        note=None if known else reasons.get(kind, "the representations do not differ from each other"),
        coords={"prompts": kind},
    )
