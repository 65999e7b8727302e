"""Read positions: the last token, the first token or the mean over a region of an example's tokens.

A position counts only the example's own tokens, so padding cannot move it. Written `last`, `mean`, `last:span`, `first:content & ~span`,
`last-2`; regions are `everything`, `content` (no special tokens such as BOS), `span` (characters that the example marks) and `instruction`
(the user's words inside a chat template). Without a region, `last` uses everything, `mean` and `first` use content: the activations of BOS
are huge and equal in all examples, so a mean over them carries nothing about the text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput, unknown_name

Pooling = Literal["last", "mean", "first"]
RegionName = Literal["everything", "content", "span", "instruction"]


@dataclass(frozen=True)
class Encoding:
    """The tokens of one example, without padding."""

    ids: Int[Tensor, " token"]
    offsets: Int[Tensor, "token 2"]
    """First and one past the last character of `text` covered by each token; equal for tokens without characters."""
    special: Bool[Tensor, " token"]
    """BOS, EOS, separators, role markers."""
    text: str
    """The tokenized text: the example's text, or the rendered chat template."""
    span: tuple[int, int] | None = None
    """First and one past the last character of the marked part of `text`."""
    instruction_end: int | None = None
    """One past the last token of the user's words; None outside a chat template."""
    instruction_start: int = 0
    """First token of the user's words."""


@dataclass(frozen=True)
class Region:
    """A set of tokens; regions combine with `&`, `|` and `~`, and are hashable."""

    op: Literal["everything", "content", "span", "instruction", "not", "and", "or"]
    parts: tuple["Region", ...] = ()

    def __and__(self, other: "Region") -> "Region":
        return _joined("and", self, other)

    def __or__(self, other: "Region") -> "Region":
        return _joined("or", self, other)

    def __invert__(self) -> "Region":
        return self.parts[0] if self.op == "not" else Region("not", (self,))

    def __str__(self) -> str:
        if self.op == "not":
            return f"~{_inside(self.parts[0], ('and', 'or'))}"
        if self.op == "and":
            return " & ".join(_inside(part, ("or",)) for part in self.parts)
        return " | ".join(map(str, self.parts)) if self.op == "or" else self.op

    def names(self) -> frozenset[str]:
        """Names of the plain regions in this one."""
        return frozenset[str]().union(*(part.names() for part in self.parts)) if self.parts else frozenset({self.op})

    def mask(self, encoding: Encoding) -> Bool[Tensor, " token"]:
        """True for the tokens inside the region.

        Raises:
            BadInput: the region needs a span or an instruction, and the example has none.
        """
        match self.op:
            case "not":
                return ~self.parts[0].mask(encoding)
            case "and":
                return torch.stack([part.mask(encoding) for part in self.parts]).all(0)
            case "or":
                return torch.stack([part.mask(encoding) for part in self.parts]).any(0)
            case "everything":
                return torch.ones_like(encoding.special)
            case "content":
                return ~encoding.special
            case "span":
                return _in_span(encoding)
            case "instruction":
                return _in_instruction(encoding)


everything, content, span, instruction = (Region(name) for name in get_args(RegionName))


@dataclass(frozen=True)
class Position:
    """A read position: how tokens are pooled, over which region; see the module's docstring."""

    reduce: Pooling
    region: Region
    shift: int = 0
    """Number of tokens before the last, or after the first, inside the region."""

    def __post_init__(self) -> None:
        if self.shift < 0 or (self.shift and self.reduce == "mean"):
            raise BadInput(
                f"a shift must belong to last or first, got {self.reduce} with {self.shift}: write last-2 or first+1."
            )

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read a position from its name; `str` is the inverse.

        Raises:
            BadInput: the text is not the name of a position.
        """
        match = re.fullmatch(r"\s*([a-z]+)\s*(?:([-+])\s*(\d+)\s*)?(?::(.*))?", text)
        if match is None:
            raise BadInput(
                f"{text!r} is not a position: write one like last, mean, last-2, last:span or mean:content & ~span."
            )
        reduce, sign, shift, where = match.groups()
        if reduce not in get_args(Pooling):
            if reduce in get_args(RegionName):
                raise BadInput(
                    f"{text!r} is a region, not a token in it: write last:{reduce}, first:{reduce} or mean:{reduce}."
                )
            raise unknown_name("position", reduce, get_args(Pooling))
        if sign and sign != {"last": "-", "first": "+"}.get(reduce):
            raise BadInput(
                f"{text!r} is outside the text: count back from the last token (last-2) or on from the first (first+2)."
            )
        region = _DEFAULT[reduce] if where is None else parse_region(where)
        return cls(reduce, region, int(shift or 0))  # type: ignore[arg-type]

    def __str__(self) -> str:
        shift = f"{'-' if self.reduce == 'last' else '+'}{self.shift}" if self.shift else ""
        where = "" if self.region == _DEFAULT[self.reduce] else f":{self.region}"
        return f"{self.reduce}{shift}{where}"

    def weights(self, encoding: Encoding) -> Float[Tensor, " token"]:
        """Weight of each token, with the sum 1: a single 1 for last and first, equal shares for mean.

        Raises:
            BadInput: the region is empty, or the text has only special tokens.
        """
        if bool(encoding.special.all()):
            raise BadInput(f"the text {_short(encoding.text)} has only special tokens: remove it from the concept.")
        inside = self.region.mask(encoding).nonzero().flatten()
        if len(inside) <= self.shift:
            raise BadInput(
                f"nothing to read at {self}: the region has {len(inside)} tokens in the text {_short(encoding.text)}: choose another "
                "position, or correct this example."
            )
        weights = torch.zeros(len(encoding.special))
        if self.reduce == "mean":
            weights[inside] = 1 / len(inside)
        else:
            weights[inside[self.shift if self.reduce == "first" else -1 - self.shift]] = 1.0
        return weights

    def weights_of_all(self, encodings: Sequence[Encoding]) -> list[Float[Tensor, " token"]]:
        """`weights` of each encoding; those that must be equal, by length and special tokens, are one tensor.

        Raises:
            BadInput: as `weights`.
        """
        if self.region.names() & {"span", "instruction"}:
            return [self.weights(encoding) for encoding in encodings]
        known: dict[bytes, Tensor] = {}
        found = []
        for encoding in encodings:
            key = encoding.special.numpy().tobytes()
            if key not in known:
                known[key] = self.weights(encoding)
            found.append(known[key])
        return found


_DEFAULT: dict[str, Region] = {"last": everything, "mean": content, "first": content}
last, mean, first = (Position(reduce, _DEFAULT[reduce]) for reduce in get_args(Pooling))


def pad_weights(
    weights: Sequence[Float[Tensor, " _"]], attention_mask: Int[Tensor, "example column"]
) -> Float[Tensor, "example column"]:
    """Weights of many examples as rows of a batch padded on either side; tokens are where the mask is 1."""
    padded = torch.zeros(attention_mask.shape)
    real = attention_mask.bool()
    if real.sum(1).tolist() != [len(row) for row in weights]:
        raise BadInput(
            "the attention mask and the weights must have equally many tokens per example: tokenize both alike."
        )
    padded[real] = torch.cat(list(weights))
    return padded


def tokens_in_span(offsets: Int[Tensor, "token 2"], start: int, end: int) -> Bool[Tensor, " token"]:
    """Tokens that cover at least one of the characters from `start` up to, not including, `end`."""
    begins, ends = offsets.unbind(1)
    return (begins < end) & (ends > start) & (ends > begins)


def parse_region(text: str) -> Region:
    """Read a region from a text like `content & ~span`; `~` binds before `&`, and `&` before `|`.

    Raises:
        BadInput: the text is not a region.
    """
    tokens = re.findall(r"[a-z_]+|\S", text)
    region, rest = _alternatives(tokens, text)
    if rest:
        raise _bad_region(text, rest)
    return region


def _alternatives(tokens: list[str], text: str) -> tuple[Region, list[str]]:
    region, tokens = _conjunction(tokens, text)
    while tokens[:1] == ["|"]:
        other, tokens = _conjunction(tokens[1:], text)
        region = region | other
    return region, tokens


def _conjunction(tokens: list[str], text: str) -> tuple[Region, list[str]]:
    region, tokens = _factor(tokens, text)
    while tokens[:1] == ["&"]:
        other, tokens = _factor(tokens[1:], text)
        region = region & other
    return region, tokens


def _factor(tokens: list[str], text: str) -> tuple[Region, list[str]]:
    head, rest = tokens[:1], tokens[1:]
    if head == ["~"]:
        region, rest = _factor(rest, text)
        return ~region, rest
    if head == ["("]:
        region, rest = _alternatives(rest, text)
        if rest[:1] != [")"]:
            raise _bad_region(text, rest)
        return region, rest[1:]
    if not head or not head[0].isidentifier():
        raise _bad_region(text, tokens)
    if head[0] not in get_args(RegionName):
        raise unknown_name("region", head[0], get_args(RegionName))
    return Region(head[0]), rest  # type: ignore[arg-type]


def _bad_region(text: str, rest: list[str]) -> BadInput:
    at = f"at {rest[0]!r}" if rest else "at its end"
    return BadInput(
        f"{text.strip()!r} is not a region (error {at}): write one like span, content & ~span or (span | instruction)."
    )


def _joined(op: Literal["and", "or"], *regions: Region) -> Region:
    parts = [part for region in regions for part in (region.parts if region.op == op else (region,))]
    return Region(op, tuple(parts))


def _inside(region: Region, weaker: tuple[str, ...]) -> str:
    return f"({region})" if region.op in weaker else str(region)


def _in_span(encoding: Encoding) -> Bool[Tensor, " token"]:
    if encoding.span is None:
        raise BadInput(
            f"the text {_short(encoding.text)} has no span: give span_start and span_end, or choose another position."
        )
    return tokens_in_span(encoding.offsets, *encoding.span)


def _in_instruction(encoding: Encoding) -> Bool[Tensor, " token"]:
    if encoding.instruction_end is None:
        raise BadInput(
            f"the text {_short(encoding.text)} is not in a chat template: set `template`, or choose another position."
        )
    token = torch.arange(len(encoding.special))
    return (token >= encoding.instruction_start) & (token < encoding.instruction_end)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
