"""LLM360 Amber: a 7B model saved after each of its 360 data chunks. Source: arXiv:2312.06550 and its model card."""

from ontogeny.suites import BranchLabel, Suite, numbered

_TOKENS_PER_CHUNK = 1.259e12 / 360


def label_chunk(chunk: int) -> BranchLabel:
    """Checkpoint k was trained on the chunks 0 to k; its step is k, since optimiser steps are not published."""
    return BranchLabel(chunk, (chunk + 1) * _TOKENS_PER_CHUNK)


suite = Suite(
    name="Amber",
    source="arXiv:2312.06550",
    matches=r"LLM360/Amber",
    parse=numbered(r"ckpt_(\d+)", label_chunk),
    repositories=("LLM360/Amber",),
    examples={"ckpt_000": label_chunk(0), "ckpt_100": label_chunk(100), "ckpt_358": label_chunk(358)},
    main=label_chunk(359),
)
