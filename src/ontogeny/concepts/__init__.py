"""Concepts that come with the library; one file each, and its name is the concept's.

A plug-in is one file with

    concept(seed: int = 0) -> Concept

which builds the same concept each time for one seed, states its source, its licence and its question, and gives at least ten groups.
Outside packages join through the entry-point group `ontogeny.concepts`.
"""
