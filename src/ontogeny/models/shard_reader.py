"""Read sharded weights of FSDP, torchtitan and Accelerate in one process, without a process group.

The reader of torch.distributed.checkpoint fills one tensor after the other from its shards; the optimiser's state beside the model is not
read. torchtitan names the weights of Llama as Meta does, with the two halves of each rotated pair side by side: they are renamed and
reordered. Source: docs.pytorch.org, "Distributed Checkpoint"; rotary positions: arXiv:2104.09864.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ontogeny.errors import CheckpointError
from ontogeny.lineage import weight_files
from ontogeny.lineage.shard_metadata import ShardFolder, read_shard_metadata

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_META_NAMES = {
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
"""Modules of a Llama by the names of Meta and torchtitan."""
_META_TABLE = "tok_embeddings.weight"
_META_NAME = re.compile(r"(?P<layer>layers\.\d+\.)?(?P<module>[^.]+(?:\.[^.]+)?)\.weight")
_META_PARTS = ("tok_embeddings", "layers", "norm", "output")


def read_shards(folder: Path, network: "PreTrainedModel") -> dict[str, Tensor]:
    """The tensors of a model in a folder of `.distcp` shards, by their names in the network.

    Args:
        network: The network that they belong to; its own weights are not needed (`meta`).

    Raises:
        CheckpointError: a shard is missing or damaged, the names are not those of this network, or they hold it twice.
    """
    shards = read_shard_metadata(folder)
    names, meta = _names_in_network(shards, network)
    entries = shards.tensors()
    tensors = {stored: torch.empty(entries[stored].size, dtype=entries[stored].properties.dtype) for stored in names}
    try:
        _fill(tensors, shards)
    except Exception as error:  # broken files raise many types
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"the shards of {folder} cannot be read ({line}): fetch or save them again.") from None
    own = {name: tensors[stored] for stored, name in names.items()}
    return {name: _half_by_half(name, value, network) for name, value in own.items()} if meta else own


def _fill(tensors: dict[str, Tensor], shards: ShardFolder) -> None:
    """Read each tensor from its shards by the steps of torch.distributed.checkpoint's `load`, without collectives."""
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    reader = FileSystemReader(shards.folder)
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), shards.metadata, is_coordinator=True)
    reader.set_up_storage_reader(shards.metadata, is_coordinator=True)
    plan = reader.prepare_local_plan(planner.create_local_plan())
    (plan,) = reader.prepare_global_plan(planner.create_global_plan([plan]))
    reader.read_data(planner.finish_plan(plan), planner).wait()


def _names_in_network(shards: ShardFolder, network: "PreTrainedModel") -> tuple[dict[str, str], bool]:
    """The name in the network of each stored tensor of the model, and whether Meta's layout must be reordered."""
    wanted = set(network.state_dict())
    plain = weight_files.unwrapped_names(shards.tensors())
    if network.config.model_type == "llama" and (meta := _meta_names(plain)):
        return meta, True
    prefix = _prefix(plain.values(), wanted, shards.folder)
    if prefix is not None:
        parts = {name.split(".")[0] for name in wanted}
        own = {stored: name.removeprefix(prefix) for stored, name in plain.items() if name.startswith(prefix)}
        return {stored: name for stored, name in own.items() if name.split(".")[0] in parts}, False
    example = next(iter(sorted(set(plain.values()) - wanted)), "no tensor")
    raise CheckpointError(
        f"the shards of {shards.folder} hold {example} and few of the names of a {network.config.model_type}: give the config.json of "
        "their model, or convert them to its names."
    )


def _prefix(stored: Collection[str], wanted: Collection[str], folder: Path) -> str | None:
    """Prefix of the names of the network, such as `model.` or `app.model.`; None if most of its tensors are not there."""
    covered: dict[str, int] = {}
    for name in stored:
        for start in (0, *(match.end() for match in re.finditer(r"\.", name))):
            if name[start:] in wanted:
                covered[name[:start]] = covered.get(name[:start], 0) + 1
    most = max(covered.values(), default=0)
    if 2 * most < len(wanted):
        return None
    best = sorted(prefix for prefix, count in covered.items() if count == most)
    trained = [prefix for prefix in best if prefix in ("", "model.", "app.model.", "state_dict.", "module.")]
    if len(best) > 1 and len(trained) != 1:
        raise CheckpointError(
            f"the shards of {folder} hold the model {len(best)} times, under {' and '.join(map(repr, best))}: save the wanted one alone."
        )
    return next(iter(trained or best), None)


def _meta_names(plain: Mapping[str, str]) -> dict[str, str]:
    """Names of transformers for names of Meta; a tensor that the table lacks keeps its name, and is refused when the model is built."""
    tables = [name for name in plain.values() if name == _META_TABLE or name.endswith(f".{_META_TABLE}")]
    if len(tables) != 1:
        return {}
    prefix, names = tables[0].removesuffix(_META_TABLE), {}
    for stored, name in plain.items():
        own = name.removeprefix(prefix)
        if not name.startswith(prefix) or own.split(".")[0] not in _META_PARTS:
            continue
        match = _META_NAME.fullmatch(own)
        module = _META_NAMES.get(match["module"], "") if match else ""
        layer = f"model.{match['layer']}" if match and match["layer"] else ""
        names[stored] = f"{layer}{module}.weight" if module else f"model.{own}"
    return names


def _half_by_half(name: str, value: Tensor, network: Any) -> Tensor:
    """Rows of a query or key matrix with the first halves of all rotated pairs before the second ones, as transformers rotates."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return value
    config = network.config
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
    return value.reshape(heads, -1, 2, value.shape[1]).transpose(1, 2).reshape(value.shape)
