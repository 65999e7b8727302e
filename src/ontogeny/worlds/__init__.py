"""Worlds: generated languages and data sets with known latent factors. A plug-in is one file, or a package that exports these names:

`Config` (frozen, with a seed) · `make(config) -> World` · `tokenizer(world)` · `sample(world, rng, rows)`, token ids without padding ·
`facts(world)`, questions that a trained model should answer · `concepts(world)`, for traces · and an oracle: `judge(world, text)`, the
verdict on a text, or `wanted(world, prompt)`, the expected answer to a prompt.

A world of arrays has no tokenizer, facts or concepts, since a `Concept` consists of texts. Its `sample(world, rng, n)` returns a
`_batch.WorldBatch` of inputs, targets and ground truth by name; `evaluation(world)` returns named batches, always the same; its oracle is
`score(world, outputs, batch)`, the errors of a model's outputs.

A world may build on another one, as nursery does on hearsay. It then imports only names that the other package's `__init__` exports.
"""
