"""Concepts that come with the library; one file each, and its name is the concept's.

A plug-in is one file with

    concept(seed: int = 0) -> Concept

which builds the same concept each time for one seed, states its source, its licence and its question, and gives at least ten groups.
Data of others are not part of the library: a file that needs some names them in `SOURCES`, and reads them through `_data`.
Outside packages join through the entry-point group `ontogeny.concepts`.
"""
