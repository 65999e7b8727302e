"""Worlds: generated languages and corpora whose latent factors are known. One file a world, with these functions:

`Config` (frozen, with a seed) · `make(config) -> World` · `tokenizer(world)` · `sample(world, rng, rows)`, token ids without padding ·
`facts(world)`, what a model of it should know · `concepts(world)`, what may be traced in it · and an oracle: of a text, what is the case.
"""
