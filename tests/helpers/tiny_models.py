"""Two-layer random models of each family, and a byte-level tokenizer: instantaneous, offline."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    PreTrainedTokenizerFast,
)

from ontogeny.models.model import Model, load_model

VOCAB = 300
PLAIN = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
GROUPED = PLAIN | dict(num_key_value_heads=2, intermediate_size=48)
SHAPES = {
    "gpt_neox": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
    "llama": dict(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        tie_word_embeddings=True,
    ),
    "gpt2": dict(n_embd=32, n_layer=2, n_head=4),
    "gptj": dict(n_embd=32, n_layer=2, n_head=4, rotary_dim=4),
    "bloom": dict(hidden_size=32, n_layer=2, n_head=4),
    "falcon": PLAIN,
    "phi": PLAIN | dict(intermediate_size=64),
    "bert": PLAIN | dict(intermediate_size=64),
    "opt": PLAIN | dict(ffn_dim=64, word_embed_proj_dim=32),
    **dict.fromkeys(("mistral", "qwen2", "olmo", "olmo2", "olmo3", "stablelm", "phi3"), GROUPED),
    "ministral": GROUPED | dict(head_dim=8),
    **dict.fromkeys(("qwen3", "gemma"), GROUPED | dict(head_dim=12)),
    "gemma2": GROUPED | dict(head_dim=12, final_logit_softcapping=0.5),
    "gemma3_text": GROUPED | dict(head_dim=12, layer_types=["sliding_attention", "full_attention"], sliding_window=8),
}

EXPERTS = dict(num_experts_per_tok=2, moe_intermediate_size=24)
SHAPES |= {
    "olmoe": GROUPED | dict(num_experts=4, num_experts_per_tok=2),
    "mixtral": GROUPED | dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
    "qwen2_moe": GROUPED | EXPERTS | dict(num_experts=4, shared_expert_intermediate_size=24),
    "qwen3_moe": GROUPED | EXPERTS | dict(num_experts=4, head_dim=12),
}
"""Mixtures of experts, two for each token."""

PICTURES = {"vit": PLAIN | dict(intermediate_size=64, image_size=16, patch_size=4)}
"""Families that look at images."""


def byte_tokenizer(*, bos: bool = False) -> PreTrainedTokenizerFast:
    """Each byte is a token; `bos` puts one in front as Llama's tokenizer does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(["<s>", "</s>", "<pad>", *alphabet])}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def tiny_model(family: str, *, seed: int = 0, context: int = 128):
    torch.manual_seed(seed)
    if family in PICTURES:
        config = AutoConfig.for_model(family, **PICTURES[family])
        return _uneven(AutoModelForImageClassification.from_config(config).eval())
    length = "n_positions" if family in ("gpt2", "gptj") else "max_position_embeddings"
    config = AutoConfig.for_model(
        family, vocab_size=VOCAB, bos_token_id=0, eos_token_id=1, pad_token_id=2, **{length: context}, **SHAPES[family]
    )
    kind = AutoModelForMaskedLM if family == "bert" else AutoModelForCausalLM
    return _uneven(kind.from_config(config).eval())


def _uneven(network):
    with torch.no_grad():  # biases and norms away from 0 and 1, so that leaving one out shows
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def outspoken(folder: Path):
    """A random model whose tokens do speak to each other: at its initial size, what one does to another is lost in rounding."""
    from ontogeny.models.model import load_model

    model = load_model(folder)
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


def save_tiny(family: str, folder: Path, *, seed: int = 0, context: int = 128) -> Path:
    tiny_model(family, seed=seed, context=context).save_pretrained(folder)
    if family in PICTURES:
        return folder
    byte_tokenizer(bos=family == "llama").save_pretrained(folder)
    return folder


@torch.no_grad()
def refusing(folder: Path, axis: int, *, strength: float = 6.0, says: str = " No") -> Model:
    """A model that moves its stream along an axis if the prompt holds a `z`, and then answers with the first token of `says`."""
    model = load_model(folder)
    u = torch.zeros(model.d)
    u[axis], u[axis + 1] = 1 / 2**0.5, -1 / 2**0.5
    # Each block adds what stands before it to its own: all attention spreads the mark, of a letter that only harmful texts have.
    (letter,) = model.tokenizer("z", add_special_tokens=False).input_ids
    (no,) = {model.tokenizer(p, add_special_tokens=False).input_ids[0] for p in (says,)}
    table = model.network.get_input_embeddings().weight
    table -= torch.outer(table @ u + 0.003, u)  # all others lie a little on the other side
    table[letter] = strength * u
    for layer in (1, 2):
        attention = model.part(layer, model.architecture.attn)
        d = model.d
        # Values and outputs pass the axis on, with heads that look everywhere.
        attention.query_key_value.weight.view(model.heads, 3, model.d_head, d)[:, :2] = 0
        attention.query_key_value.bias.view(model.heads, 3, model.d_head)[:] = 0
        value = attention.query_key_value.weight.view(model.heads, 3, model.d_head, d)[0, 2]
        value[0] = 3 * u
        attention.dense.weight[:, 0] = 3 * u
    out = model.network.get_output_embeddings().weight
    out[no] = 2 * u
    return model
