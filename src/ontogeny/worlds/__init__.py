"""Worlds: generated languages and corpora whose latent factors are known. One file a world, with these functions:

`Config` (frozen, with a seed) · `make(config) -> World` · `tokenizer(world)` · `sample(world, rng, rows)`, token ids without padding ·
`facts(world)`, what a model of it should know · `concepts(world)`, what may be traced in it · and an oracle: `judge(world, text)`, of
a text what is the case, or `wanted(world, prompt)`, of a prompt what should be answered.

A world that is no language has no tokenizer, facts or concepts, for a `Concept` is made of texts. There, `sample(world, rng, n)` gives
a `_batch.Batch` of arrays: inputs, targets, and ground truth by name; `evaluation(world)` gives named batches of that kind, always the
same; and the oracle is `score(world, outputs, batch)`, of a model's outputs how far each is from what is the case.
"""
