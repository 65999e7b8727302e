"""Concepts as labelled texts: files, parsing, groups, downloads, tokenization, read positions."""

__all__ = [
    "chats",
    "class_names",
    "concept",
    "concept_sources",
    "download",
    "examples",
    "grouping",
    "open_concept",
    "parsing",
    "plain_texts",
    "positions",
    "rendering",
    "statement_folds",
    "tables",
    "templates",
    "tokenization",
    "verdict_question",
    "writing",
]
