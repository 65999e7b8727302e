"""Concepts as labelled texts: files, parsing, groups, downloads, tokenization, read positions."""

__all__ = [
    "chats",
    "concept",
    "download",
    "examples",
    "grouping",
    "open_concept",
    "parsing",
    "positions",
    "tables",
    "templates",
    "tokenization",
    "writing",
]
