"""Per-token reading: the score of a probe at every token of a text."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.data.positions import Encoding
from ontogeny.data.templates import Template, template_of
from ontogeny.data.tokenization import encode_text
from ontogeny.direction import Direction
from ontogeny.errors import BadInput
from ontogeny.measurements.fitted_probe import FittedProbe
from ontogeny.models.model import Model
from ontogeny.notebook import rich_html
from ontogeny.sites import Site
from ontogeny.steering.steer import check_direction


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Score of a probe at each token of a text, one row per site or per checkpoint."""

    tokens: tuple[str, ...]
    """Text of each token; together they are the text, special tokens aside."""
    scores: Float[Tensor, "row token"]
    """Positive for the positive class; with a direction, the projection on the unit vector in units of the stream."""
    rows: tuple[str, ...]
    """Site or checkpoint of each row."""
    probe: str
    """Concept, model and method of the probe."""

    def _repr_html_(self) -> str:
        return rich_html("token_scores", self)


def read(
    model: Model,
    probe: FittedProbe | Direction,
    text: str,
    sites: str | Sequence[str] | None = None,
    *,
    template: Template = False,
) -> TokenScores:
    """The score of a probe at every token of a text: at which word does it become true to the model?

    Each token is read in its left context, as a causal model sees it. The probe was fitted at its own read position, so scores of other
    tokens are an extrapolation.

    Args:
        model: From `load_model`.
        probe: From `fit_probe`, or a direction, such as `Run.direction`, which is read at its own site.
        text: One text, at most as long as the context.
        sites: Sites of the probe, one row each; by default all at which the examples differ.
        template: Template that the text is put into, see `ontogeny.data.templates`.

    Raises:
        BadInput: the probe has more than two classes or lacks the site, or the text is empty or too long.
    """
    encoding = encode_text(model.tokenizer, text, template=template_of(model.tokenizer, template))
    if not text.strip() or not len(encoding.ids):
        raise BadInput(f"`text` must not be empty, got {text!r}: give a sentence.")
    if len(encoding.ids) > model.context:
        raise BadInput(
            f"`text` must have at most {model.context} tokens, the context of the model, got {len(encoding.ids)}: shorten it."
        )
    wanted = _sites_of(model, probe, sites)
    reads = tuple(
        ActivationRead(0, one_hot(torch.tensor(i), len(encoding.ids)).float()) for i in range(len(encoding.ids))
    )
    captured = capture_workload(model, Workload((tuple(encoding.ids.tolist()),), reads), wanted)
    rows = []
    for site in wanted:
        x = captured.parts[site.part][captured.sites[site.part].index(site)].float().cpu()
        rows.append(_token_scores(probe, site, x))
    name = probe.origin if isinstance(probe, Direction) else f"{probe.origin.name}@{probe.origin.model}/{probe.method}"
    return TokenScores(token_texts(model, encoding), torch.stack(rows), tuple(map(str, wanted)), name)


def _sites_of(model: Model, probe: FittedProbe | Direction, sites: str | Sequence[str] | None) -> list[Site]:
    if isinstance(probe, Direction):
        check_direction(model, probe)
        if sites is not None and [str(site) for site in model.sites(sites)] != [str(probe.site)]:
            raise BadInput(f"`sites` must be {probe.site}, the site of the direction, got {sites!r}: leave it out.")
        return [probe.site]
    fitted = [site for group in probe.sites.values() for site in group]
    wanted = [site for site in fitted if probe.is_fitted(site)] if sites is None else list(model.sites(sites))
    if not wanted:
        raise BadInput(
            f"the probe of {probe.origin.name} has no direction at any site, since its examples are alike there: capture them at another "
            "`position`."
        )
    for site in wanted:
        probe.direction(site)  # raises for a site that was not fitted, and for several classes
    return wanted


def _token_scores(probe: FittedProbe | Direction, site: Site, x: Float[Tensor, "token d"]) -> Float[Tensor, " token"]:
    if isinstance(probe, Direction):
        return x @ probe.unit().vector.to(x)
    readout, at = probe.readout(site)
    return (x @ readout.direction[at, :, 0].to(x)) + readout.bias[at, 0].to(x)


def token_texts(model: Model, encoding: Encoding) -> tuple[str, ...]:
    """The part of the text that each token covers, spaces before it included; of a token without characters its name."""
    texts, past = [], 0
    for number, (start, end) in enumerate(encoding.offsets.tolist()):
        if start == end:
            texts.append(str(model.tokenizer.convert_ids_to_tokens(int(encoding.ids[number]))))
            continue
        texts.append(encoding.text[min(past, start) : end])
        past = max(past, end)
    return tuple(texts)
