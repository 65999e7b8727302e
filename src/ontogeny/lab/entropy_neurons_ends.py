"""The end of a model, kept: what the last block puts out and what its neurons say, so that their rows can be changed without another pass.

Nothing before the final norm sees what the last MLP writes. A change of its rows then costs the norm and the vocabulary, not the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.model import Model, reading


@dataclass(frozen=True, eq=False)
class Ends:
    """The tokens of all rows that count, one after another."""

    stream: Float[Tensor, "token d"]
    normed: Float[Tensor, "token d"]
    mlp: Float[Tensor, "token d"]
    added: Float[Tensor, "token d"]
    """What of the MLP's output reaches the stream: the same, unless a norm lies between."""
    neurons: Float[Tensor, "token chosen"]
    chosen: tuple[int, ...]
    owner: Int[Tensor, " token"]
    """Which row a token is of."""

    def of(self, neurons: Sequence[int]) -> Float[Tensor, "token neuron"]:
        """What some of the kept neurons say."""
        at = {neuron: i for i, neuron in enumerate(self.chosen)}
        return self.neurons[:, [at[n] for n in neurons]]

    def mean(self, values: Float[Tensor, " token"]) -> Float[Tensor, " row"]:
        """Over the tokens of each row."""
        return self.sum(values) / self.owner.bincount()

    def sum(self, values: Float[Tensor, " token"]) -> Float[Tensor, " row"]:
        rows = torch.zeros(int(self.owner[-1]) + 1, dtype=torch.float64)
        return rows.index_add(0, self.owner, values.double().cpu())


@torch.no_grad()
def ends(
    model: Model,
    rows: Sequence[Int[Tensor, " token"]],
    chosen: Sequence[int],
    *,
    starts: Sequence[int] | None = None,
    batch: int = 32,
) -> Ends:
    """Run the rows; of each, the tokens from its start on are kept, and of these what the chosen neurons say."""
    parts = [("resid", model.layers), ("norm", 0), *((part, model.layers) for part in ("mlp", "mlp_resid", "neuron"))]
    kept: dict[int, dict[str, Tensor]] = {}
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for first in range(0, len(order), batch):
        mine = order[first : first + batch]
        seen: dict[str, Tensor] = {}

        def keep(part: str, _: int, value: Tensor, seen: dict[str, Tensor] = seen) -> None:
            seen[part] = (value[..., list(chosen)] if part == "neuron" else value).clone()

        ids = torch.nn.utils.rnn.pad_sequence([rows[i] for i in mine], batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(rows[i]) for i in mine], batch_first=True)
        with reading(model, parts, keep):
            model.body(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
        for at, i in enumerate(mine):
            span = slice(starts[i] if starts is not None else 0, len(rows[i]))
            kept[i] = {part: value[at, span] for part, value in seen.items()}
    whole = {part: torch.cat([kept[i][part] for i in range(len(rows))]) for part, _ in parts}
    owner = torch.repeat_interleave(
        torch.arange(len(rows)), torch.tensor([len(kept[i]["norm"]) for i in range(len(rows))])
    )
    return Ends(whole["resid"], whole["norm"], whole["mlp"], whole["mlp_resid"], whole["neuron"], tuple(chosen), owner)


def shifted(model: Model, of: Ends, shift: Float[Tensor, "token d"]) -> Float[Tensor, "token d"]:
    """What a change of the MLP's output changes in the stream: the same, unless a norm lies between."""
    if not (path := model.architecture.mlp_added) or path == model.architecture.mlp:
        return shift
    changed: Tensor = model.part(model.layers, path)(of.mlp + shift)
    return changed - of.added


def renormed(model: Model, of: Ends, shift: Float[Tensor, "token d"]) -> Float[Tensor, "token d"]:
    """What the body puts out where the MLP's output is changed."""
    out: Tensor = model.network.get_submodule(model.architecture.final_norm)(of.stream + shifted(model, of, shift))
    return out
