"""Bake an edit into the weights: a copy of the model that does by itself, at all positions, what steering would do.

A vector added to what a linear map writes is its bias; a vector on heads or neurons goes through the map that reads them. A direction
ablated from the whole stream is a projection of every map that writes into it (arXiv:2406.11717). Each copy is held against the steered
model before it is given out: where a norm lies between the map and the stream there is no such bias, and the edit is refused.
"""

import copy
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.interventions import Ablate, Add, RankOne, Sequential, Zero
from ontogeny.models.loading import silence_transformers
from ontogeny.models.model import Model, load_model, output_weight, output_weight_path
from ontogeny.sites import Site
from ontogeny.steering.steer import Edit, Edits, as_edits, check_edit, steer

_BAKING_TOLERANCE = 1e-4
"""Largest difference of the logits to those of the steered model, relative to their largest entry."""


@torch.no_grad()
def bake_edits(model: Model, edits: Edits) -> Model:
    """A copy of the model with the edits in its weights.

    Raises:
        BadInput: an edit of some tokens only, of a kind that no weight can do, or in a family whose weights cannot hold it.
    """
    wanted = [step for edit in as_edits(edits) for step in _sub_edits(edit) if not step.what.is_noop]
    for edit in wanted:
        check_edit(model, edit)
        if edit.where != "all":
            raise BadInput(
                f"weights act on all tokens, so an edit of {edit.where!r} cannot be baked in. Steer with it instead."
            )
    baked = replace(model, network=copy.deepcopy(model.network))
    for edit in wanted:
        _bake_one(baked, edit)
    _compare(model, wanted, baked)
    return baked


def save_baked(model: Model, folder: Path | str) -> Path:
    """The baked model as a folder that transformers opens, read back and compared.

    Raises:
        BadInput: the family's own code has no place for what was baked in.
    """
    from ontogeny.storage.files import atomic_folder

    def write(inside: Path) -> None:
        model.network.save_pretrained(inside)
        model.tokenizer.save_pretrained(inside)

    folder = Path(folder)
    silence_transformers()
    atomic_folder(folder, write)
    ids = _probe(model)
    with torch.no_grad():
        ours, theirs = (
            model.network(ids).logits,
            load_model(folder, dtype=model.network.dtype).network(ids.cpu()).logits,
        )
    if not _is_close(theirs.to(ours), ours):
        raise BadInput(
            f"{model.network.config.model_type} has no place for the baked weights in its own files, so {folder} is not the "
            "model that was baked. Save the direction, and steer with it."
        )
    return folder


def _sub_edits(edit: Edit) -> list[Edit]:
    return [replace(edit, what=one) for one in edit.what.steps] if isinstance(edit.what, Sequential) else [edit]


def _bake_one(model: Model, edit: Edit) -> None:
    match edit.what:
        case Add(shift=shift):
            _add(model, edit.site, shift)
        case Ablate() | Zero() if edit.site.part.startswith(("attn", "mlp")):
            bias = _writing_linear(model, edit.site).bias
            if isinstance(bias, Tensor):
                bias.data = edit.what(bias.data)
            weight = output_weight(model, edit.site)
            weight.copy_(edit.what(weight))
        case Ablate() | Zero() if edit.site.part in ("head", "neuron"):
            inside = _input_rows(model, edit.site)
            weight = output_weight(model, edit.site)
            weight[inside] = edit.what(weight[inside].T.contiguous()).T
        case Ablate() if edit.site == Site("resid", 0):
            _untie_embedding(model)
            # Positions that are learned write into the stream, too.
            for module in model.body.modules():
                if isinstance(module, nn.Embedding) and module.embedding_dim == model.d:
                    module.weight.data = edit.what(module.weight.data)
        case RankOne():
            weight = output_weight(model, edit.site)
            weight.copy_(edit.what(weight))
        case Ablate():
            raise BadInput(
                f"an ablation at {edit.site} has no equal in the weights. Ablate what writes into the stream: resid.0, and "
                "attn.l and mlp.l of every block, as everywhere(model, direction) does."
            )
        case _:
            raise BadInput(
                f"{type(edit.what).__name__} at {edit.site} has no equal in the weights. Steer with it instead."
            )


def _add(model: Model, site: Site, shift: Float[Tensor, " d"]) -> None:
    if site.part == "resid" and site.layer == 0:
        table = _untie_embedding(model)
        table.data += shift.to(table)
        return
    if site.part in ("head", "neuron"):
        weight = output_weight(model, site)
        shift = shift.to(weight) @ weight[_input_rows(model, site)]
    if _writing_linear(model, site).bias is None:
        _add_zero_biases(model, site)
    _writing_linear(model, site).get_parameter("bias").data += shift.to(output_weight(model, site))


def _writing_linear(model: Model, site: Site) -> nn.Module:
    """The map that writes `attn.l` or `mlp.l`; for a site of the stream, the last before it."""
    return model.part(site.layer, output_weight_path(model, site))


def _input_rows(model: Model, site: Site) -> slice:
    """The inputs of that map which belong to a head, or all of them."""
    return slice(None) if site.head is None else slice(site.head * model.d_head, (site.head + 1) * model.d_head)


def _add_zero_biases(model: Model, site: Site) -> None:
    """Zero biases for the maps of attention or of the MLP, in all blocks: configs know one switch for all, where they know one."""
    attention = output_weight_path(model, site) == model.architecture.heads_out
    part, switch = (model.architecture.attn, "attention_bias") if attention else (model.architecture.mlp, "mlp_bias")
    config = model.network.config
    known = hasattr(config, switch)
    if known:
        setattr(config, switch, True)
    for layer in range(1, model.layers + 1):
        own = model.part(layer, output_weight_path(model, site))
        for linear in model.part(layer, part).modules() if known else [own]:
            if isinstance(linear, nn.Linear) and linear.bias is None:
                weight = linear.get_parameter("weight")
                linear.bias = nn.Parameter(weight.new_zeros(weight.shape[0]), requires_grad=weight.requires_grad)


def _untie_embedding(model: Model) -> nn.Parameter:
    """The embedding table, its own even where the model reads its logits from the same one."""
    table: nn.Parameter = model.network.get_input_embeddings().weight
    out = model.network.get_output_embeddings()
    if out is not None and out.weight is table:
        out.weight = nn.Parameter(table.data.clone(), requires_grad=table.requires_grad)
        model.network.config.tie_word_embeddings = False
        model.network._tied_weights_keys = None
    return table


def _probe(model: Model) -> Tensor:
    vocabulary = model.network.get_input_embeddings().weight.shape[0]
    return (torch.arange(24, device=model.device).view(2, 12) * 7 + 3) % vocabulary


def _compare(model: Model, edits: Edits, baked: Model) -> None:
    ids = _probe(model)
    with steer(model, edits):
        wanted = model.network(ids, use_cache=False).logits
    if not _is_close(baked.network(ids, use_cache=False).logits, wanted):
        raise BadInput(
            f"{model.network.config.model_type} puts something between these maps and the stream (a norm, say), so the edits have no equal "
            "in its weights. Steer with them instead."
        )


def _is_close(ours: Tensor, theirs: Tensor) -> bool:
    tolerance = _BAKING_TOLERANCE if ours.dtype == torch.float32 else 5e-2
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())
