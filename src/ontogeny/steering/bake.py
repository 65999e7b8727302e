"""Bake edits into the weights: a copy of the model that behaves as the steered one at all positions.

A vector added to the output of a linear map is its bias; a vector on heads or neurons goes through the map that reads them. A direction
ablated from the whole stream is a projection of every map that writes into it (arXiv:2406.11717). Each copy is compared with the steered
model before it is returned: if a norm lies between the map and the stream, no bias has this effect and an error is raised.
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
"""Largest difference from the logits of the steered model, relative to their largest entry."""


@torch.no_grad()
def bake_edits(model: Model, edits: Edits) -> Model:
    """A copy of the model with the edits in its weights.

    Raises:
        BadInput: an edit of some tokens only, or one that has no equivalent in the weights.
    """
    wanted = [step for edit in as_edits(edits) for step in _sub_edits(edit) if not step.what.is_noop]
    for edit in wanted:
        check_edit(model, edit)
        if edit.where != "all":
            raise BadInput(f"a baked edit must be of `all` tokens, got {edit.where!r}: steer with it instead.")
    baked = replace(model, network=copy.deepcopy(model.network))
    for edit in wanted:
        _bake_one(baked, edit)
    _compare(model, wanted, baked)
    return baked


def save_baked(model: Model, folder: Path | str) -> Path:
    """Save the baked model as a folder that transformers opens, then load and compare it.

    Raises:
        BadInput: the model class of the family does not load the baked weights.
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
        baked, loaded = (
            model.network(ids).logits,
            load_model(folder, dtype=model.network.dtype).network(ids.cpu()).logits,
        )
    if not _is_close(loaded.to(baked), baked):
        raise BadInput(
            f"{model.network.config.model_type} does not load the baked weights, so {folder} differs from the baked model: save the "
            "direction, and steer with it."
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
            # Learned positions write into the stream, too.
            for module in model.body.modules():
                if isinstance(module, nn.Embedding) and module.embedding_dim == model.d:
                    module.weight.data = edit.what(module.weight.data)
        case RankOne():
            weight = output_weight(model, edit.site)
            weight.copy_(edit.what(weight))
        case Ablate():
            raise BadInput(
                f"an ablation at {edit.site} has no equivalent in the weights: ablate resid.0 and attn.l and mlp.l of every block, as "
                "`ablate_everywhere` does."
            )
        case _:
            raise BadInput(
                f"{type(edit.what).__name__} at {edit.site} has no equivalent in the weights: steer with it instead."
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
    """The linear map that writes `attn.l` or `mlp.l`; for a site of the stream, the last map before it."""
    return model.part(site.layer, output_weight_path(model, site))


def _input_rows(model: Model, site: Site) -> slice:
    """The inputs of that map that belong to the site's head, or all of them."""
    return slice(None) if site.head is None else slice(site.head * model.d_head, (site.head + 1) * model.d_head)


def _add_zero_biases(model: Model, site: Site) -> None:
    """Zero biases for the maps of attention or of the MLP in all blocks, since a config has one switch for all."""
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
    """The embedding table, untied from the unembedding."""
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
            f"{model.network.config.model_type} has a norm or the like between these maps and the stream, so the edits have no equivalent "
            "in its weights: steer with them instead."
        )


def _is_close(logits: Tensor, expected: Tensor) -> bool:
    tolerance = _BAKING_TOLERANCE if logits.dtype == torch.float32 else 5e-2
    return bool((logits - expected).abs().max() <= tolerance * expected.abs().max())
