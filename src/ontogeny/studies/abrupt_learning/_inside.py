"""Inside the encoder on its plateau and at its end: head patterns, least-squares probes, embeddings, patching (arXiv:2410.22244)."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.jobs.study.paper_study import Lab
from ontogeny.records import Record
from ontogeny.studies.abrupt_learning._claims import END, PLATEAU
from ontogeny.studies.abrupt_learning._settings import Settings
from ontogeny.training.toy_models.matrix_encoder import MatrixEncoder
from ontogeny.worlds import low_rank

_PROBE_MATRICES = 1024


def inside_rows(
    settings: Settings,
    lab: Lab,
    world: low_rank.World,
    held_out: low_rank.WorldBatch,
    mirrored: low_rank.WorldBatch,
    load: Callable[[Mapping[str, Tensor]], MatrixEncoder],
    models: Mapping[str, Mapping[str, Tensor]],
) -> Iterator[Record]:
    """Rows of each measurement, under the names of the models, with its null run.

    Args:
        models: Weights by name; the embeddings are read in the principal axes of the last one.
    """
    ids, negative = torch.from_numpy(held_out.inputs), torch.from_numpy(mirrored.inputs)
    train = low_rank.sample(world, np.random.default_rng([lab.seed, 6]), _PROBE_MATRICES)
    final = load(models[END]).body.embeddings.word_embeddings.weight.detach()
    for name, weights in models.items():
        network = load(weights).eval()
        yield from _head_rows(settings, lab, name, network.mean_attention(ids))
        yield from _probe_rows(settings, lab, name, network, train, held_out)
        yield from _embedding_rows(lab, name, network, world, held_out, final)
        for control, source in ((None, ids), ("other_matrices", ids.roll(1, 0))):
            slopes = [
                _slope(network.patched(negative, source, layer).double().numpy(), held_out)
                for layer in range(1, settings.matrix_layers + 1)
            ]
            yield lab.row("patched_slope", max(slopes), name, n=len(held_out), control=control)


def _slope(outputs: np.ndarray, held_out: low_rank.WorldBatch) -> float:
    """Slope of the outputs at missing entries on X: 1 for X, -1 for −X, 0 for neither."""
    missing = held_out.inputs == low_rank.MASK_ID
    x = held_out.targets[missing]
    return float((outputs[missing] * x).mean() / (x**2).mean())


def _head_rows(
    settings: Settings, lab: Lab, name: str, attention: Float[Tensor, "layer head entry entry"]
) -> Iterator[Record]:
    """How far each head looks at its row, its column or its own entry, over a head that looks everywhere alike; mean over heads."""
    n = settings.matrix
    order = torch.from_numpy(np.random.default_rng([lab.seed, 9]).permutation(n * n))
    for control, weights in ((None, attention), ("permuted_entries", attention[..., order])):
        shares = torch.stack(
            [(weights * mask).sum((-1, -2)) / mask.sum() for mask in _patterns(n)]
        )  # pattern, layer, head: mean attention on one such entry
        excess = shares * n * n  # 1 for uniform attention
        yield lab.row("head_pattern", float(excess.amax(0).mean()), name, n=excess[0].numel(), control=control)
        if control is None:
            for pattern, value in zip(("row", "column", "identity"), excess.flatten(1).amax(1), strict=True):
                yield lab.row(f"head_{pattern}", float(value), name, n=excess[0].numel())


def _patterns(n: int) -> list[Bool[Tensor, "entry entry"]]:
    row, column = torch.arange(n * n) // n, torch.arange(n * n) % n
    same_row, same_column = row[:, None] == row, column[:, None] == column
    return [same_row & ~same_column, same_column & ~same_row, same_row & same_column]


def _probe_rows(
    settings: Settings,
    lab: Lab,
    name: str,
    network: MatrixEncoder,
    train: low_rank.WorldBatch,
    test: low_rank.WorldBatch,
) -> Iterator[Record]:
    """Explained variance of least-squares probes after each block: the missing element, and the row as it is given."""
    states = [network.hidden_states(torch.from_numpy(batch.inputs)).double() for batch in (train, test)]
    missing = [torch.from_numpy(batch.inputs == low_rank.MASK_ID) for batch in (train, test)]
    elements = [torch.from_numpy(batch.targets) for batch in (train, test)]
    rows, vectors = zip(*(_row_and_vector(settings, batch) for batch in (train, test)), strict=True)
    order = torch.from_numpy(np.random.default_rng([lab.seed, 10]).permutation(int(missing[0].sum())))
    for layer in range(settings.matrix_layers):
        inside = [state[layer] for state in states]
        n = int(missing[1].sum())
        x = [h[m] for h, m in zip(inside, missing, strict=True)]
        y = [e[m][:, None] for e, m in zip(elements, missing, strict=True)]
        block = _block_name(layer, settings.matrix_layers)
        at = f"{name}, {block}"
        yield lab.row("element_r2", _r2(_least_squares(x[0], y[0]), x[1], y[1]), at, n=n)
        yield lab.row(
            "element_r2", _r2(_least_squares(x[0], y[0][order]), x[1], y[1]), at, n=n, control="shuffled_targets"
        )
        flat = [h.flatten(0, 1) for h in inside]
        row_r2 = _r2(_least_squares(flat[0], rows[0]), flat[1], rows[1])
        yield lab.row("row_r2", row_r2, at, n=len(rows[1]))
        if name == "untrained":
            for other in (PLATEAU, END):
                yield lab.row("row_r2", row_r2, f"{other}, {block}", n=len(rows[1]), control="untrained")
        weights = _least_squares(flat[0], vectors[0])
        predicted = _with_one(flat[1]) @ weights
        cosine = torch.nn.functional.cosine_similarity(predicted, vectors[1], dim=1).abs().mean()
        yield lab.row("singular_vector_cosine", float(cosine), at, n=len(rows[1]))


def _block_name(layer: int, layers: int) -> str:
    return {0: "first block", layers - 1: "last block"}.get(layer, f"block {layer + 1}")


def _row_and_vector(settings: Settings, batch: low_rank.WorldBatch) -> tuple[Tensor, Tensor]:
    """For each entry of each matrix: its row with 0 at missing entries, and the first left singular vector, whose sign is free."""
    n = settings.matrix
    given = np.where(batch.inputs == low_rank.MASK_ID, 0.0, batch.targets).reshape(-1, n, n)
    vector = np.linalg.svd(batch.targets.reshape(-1, n, n))[0][:, :, 0]
    vector = vector * np.where(vector[:, :1] < 0, -1.0, 1.0)
    rows = np.repeat(given, n, axis=1).reshape(-1, n)
    return torch.from_numpy(rows), torch.from_numpy(np.repeat(vector, n * n, axis=0))


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)


def _least_squares(x: Float[Tensor, "row d"], y: Float[Tensor, "row k"]) -> Float[Tensor, "d1 k"]:
    solved: Tensor = torch.linalg.lstsq(_with_one(x), y, driver="gelsd").solution
    return solved


def _r2(weights: Tensor, x: Tensor, y: Tensor) -> float:
    left = (y - _with_one(x) @ weights).square().sum()
    return float(1 - left / (y - y.mean(0)).square().sum())


def _embedding_rows(
    lab: Lab,
    name: str,
    network: MatrixEncoder,
    world: low_rank.World,
    held_out: low_rank.WorldBatch,
    final: Float[Tensor, "token width"],
) -> Iterator[Record]:
    """Embeddings of the numbers that occur: their norms, and their value and magnitude on the last model's principal axes."""
    values = np.unique(held_out.targets[held_out.targets != 0])
    every = world.values(np.arange(1, world.separator))
    unused = np.setdiff1d(every.round(6), [*np.abs(values).round(6), *(-np.abs(values)).round(6), 0.0])
    table = network.body.embeddings.word_embeddings.weight.detach().double()
    tokens = torch.from_numpy(world.tokens(values))
    norms = table[tokens].norm(dim=1)
    for control, numbers in ((None, values), ("unused_numbers", unused)):
        sides = [table[torch.from_numpy(world.tokens(side))].norm(dim=1) for side in (numbers, -numbers)]
        asymmetry = float((sides[0] / sides[1]).log2().abs().mean())
        yield lab.row("embedding_asymmetry", asymmetry, name, n=len(numbers), control=control)
    for value, norm in zip(values, norms, strict=True):
        yield lab.row("embedding_norm", float(norm), name, number=f"{value:+.2f}")
    last = final[tokens].double()
    axes = torch.linalg.svd(last - last.mean(0), full_matrices=False)[2][:2]
    places = ((table[tokens] - last.mean(0)) @ axes.T).numpy()
    for metric, known in (("embedding_value", values), ("embedding_magnitude", np.abs(values))):
        best = max(abs(_correlation(places[:, axis], known)) for axis in range(places.shape[1]))
        known_enough = best if len(values) > 2 else float("nan")
        yield lab.row(metric, known_enough, name, n=len(values), reason="two numbers always lie on one axis")


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() < 1e-12 or b.std() < 1e-12:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
