"""Sites of a network: `resid.12`, `attn.7`, `mlp.7`, `head.3.5`, `neuron.7`, `attn_resid.7`, `mlp_resid.7`, `router.7`, `query.3.5`.

`resid.0` is the embedding, `resid.l` the residual stream after block l (l = 1..L), before the final norm. The parts of block l have the
same l; heads count from 0 and are read before the output projection. `attn` and `mlp` are raw outputs, `attn_resid` and `mlp_resid` the
terms added to the stream, which differ from them only if a family normalises in between. `router` is the logit of each expert of a mixture.
`query` and `key` are those of a head after their rotation; keys of a group are those of each of its heads.
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self, get_args

from ontogeny.errors import BadInput

SitePart = Literal["resid", "attn", "mlp", "head", "neuron", "attn_resid", "mlp_resid", "router", "query", "key"]
SITE_PARTS: tuple[str, ...] = get_args(SitePart)
HEAD_PARTS = ("head", "query", "key")
"""Parts of which each head has one."""


@dataclass(frozen=True, order=True)
class Site:
    part: SitePart
    layer: int
    head: int | None = None

    @classmethod
    @functools.lru_cache(maxsize=100_000)
    def parse(cls, text: str) -> Self:
        """Read one site from its name.

        Raises:
            BadInput: the text is not a site name.
        """
        match = re.fullmatch(
            r"(resid|attn_resid|mlp_resid|attn|mlp|neuron|router)\.(\d{1,9})|(head|query|key)\.(\d{1,9})\.(\d{1,9})",
            text.strip(),
        )
        if match is None:
            raise BadInput(f"{text!r} is not a site: it must look like resid.12, attn.7, mlp.7, head.3.5 or neuron.7.")
        part, layer, head_part, head_layer, head = match.groups()
        site = cls(head_part, int(head_layer), int(head)) if head_part else cls(part, int(layer))  # type: ignore[arg-type]
        if site.layer == 0 and site.part != "resid":
            raise BadInput(
                f"{text!r} does not exist: blocks count from 1, and only resid.0, the embedding, has the number 0."
            )
        return site

    def __str__(self) -> str:
        return f"{self.part}.{self.layer}" if self.head is None else f"{self.part}.{self.layer}.{self.head}"


def expand_sites(patterns: str | Iterable[str], *, layers: int, heads: int) -> tuple[Site, ...]:
    """All sites of a model with `layers` blocks of `heads` heads that match patterns like `resid`, `head.3`, `mlp.2-5`, `resid.-1`.

    Raises:
        BadInput: a pattern is invalid, or the model lacks a layer or head.
    """
    listed = patterns.split(",") if isinstance(patterns, str) else list(patterns)
    sites = {site for pattern in listed if pattern.strip() for site in _expand(pattern.strip(), layers, heads)}
    if not sites:
        raise BadInput(f"`sites` must name a site, got {patterns!r}: try resid, head or resid.0-{layers}.")
    return tuple(sorted(sites, key=lambda s: (SITE_PARTS.index(s.part), s.layer, s.head or 0)))


def _expand(pattern: str, layers: int, heads: int) -> list[Site]:
    part, *rest = pattern.split(".", 1)
    if part not in SITE_PARTS:
        raise BadInput(f"{pattern!r} is not a site: it must begin with one of {', '.join(SITE_PARTS)}.")
    fields = rest[0].split(".") if rest else []
    if len(fields) > (2 if part in HEAD_PARTS else 1):
        raise BadInput(
            f"{pattern!r} is not a site: {part} takes {'a layer and a head' if part in HEAD_PARTS else 'one layer'}."
        )
    first = 0 if part == "resid" else 1
    span = _span(fields[0] if fields else "*", first, layers, pattern, "layer")
    if part not in HEAD_PARTS:
        return [Site(part, layer) for layer in span]  # type: ignore[arg-type]
    inside = _span(fields[1] if len(fields) > 1 else "*", 0, heads - 1, pattern, "head")
    return [Site(part, layer, head) for layer in span for head in inside]  # type: ignore[arg-type]


def _span(text: str, first: int, last: int, pattern: str, what: str) -> range:
    if text == "*":
        return range(first, last + 1)
    match = re.fullmatch(r"(\d{1,15})-(\d{1,15})|(-?\d{1,15})", text)
    if match is None:
        raise BadInput(f"{pattern!r} is not a site: a {what} must be a number, a range like 2-5, or *, got {text!r}.")
    if match.group(3) is not None:
        low = high = int(text) if int(text) >= 0 else last + 1 + int(text)
    else:
        low, high = int(match.group(1)), int(match.group(2))
    if not first <= low <= high <= last:
        raise BadInput(f"{pattern!r} does not exist: this model's {what}s are {first} to {last}.")
    return range(low, high + 1)
