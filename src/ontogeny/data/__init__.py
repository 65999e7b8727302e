"""Concepts as labelled texts: files, parsing, groups, downloads, tokenization, read positions."""

__all__ = [
    "chats",
    "concept",
    "download",
    "examples",
    "grouping",
    "parsing",
    "positions",
    "tables",
    "tokenization",
    "writing",
]
