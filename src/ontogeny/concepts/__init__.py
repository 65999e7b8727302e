"""Built-in concepts: one plug-in file each, named like the concept.

A plug-in is one file with

    concept(seed: int = 0) -> Concept

which builds the same concept each time for one seed, states its source, licence and question, and has at least ten groups.
Third-party data are not part of the library: a plug-in lists its files in `SOURCES` and reads them with `ontogeny.data.download`.
Concepts of one family (`truth_*`, `tracing_*`, `user_*`, contrast pairs) are rows of a table in an underscored module.
Other packages add concepts through the entry-point group `ontogeny.concepts`.
"""
