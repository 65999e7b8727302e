"""LLM360 Amber: a 7B model saved after each of its 360 data chunks. Source: arXiv:2312.06550 and its model card."""

import re

from ontogeny.lineages import Mark, Suite

TOKENS_A_CHUNK = 1.259e12 / 360


def mark(chunk: int) -> Mark:
    """Checkpoint k has seen the chunks 0 to k; its step is k, as optimiser steps are not published."""
    return Mark(chunk, (chunk + 1) * TOKENS_A_CHUNK)


def parse(branch: str) -> Mark | None:
    match = re.fullmatch(r"ckpt_(\d+)", branch)
    return mark(int(match[1])) if match else None


suite = Suite(
    name="Amber",
    source="arXiv:2312.06550",
    matches=r"LLM360/Amber",
    parse=parse,
    repositories=("LLM360/Amber",),
    examples={"ckpt_000": mark(0), "ckpt_100": mark(100), "ckpt_358": mark(358)},
    main=mark(359),
)
