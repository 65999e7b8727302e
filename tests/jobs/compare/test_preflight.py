"""The preflight finds differences without loading a model: BOS, phantom tokens, templates, padding, shapes."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, PreTrainedTokenizerBase

from ontogeny.errors import BadInput
from ontogeny.jobs.compare.preflight import (
    PreflightReport,
    StageInfo,
    compare_stage_info,
    describe_stage,
    run_preflight,
)
from ontogeny.jobs.compare.stages import lineage_from_names
from ontogeny.lineage import Checkpoint
from tests.helpers.tiny_models import byte_tokenizer, save_tiny

TEXTS = ["the sky is blue .", "the sea is red ."]
TEMPLATE = "{% for m in messages %}user {{ m['content'] }} end{% endfor %}{% if add_generation_prompt %} go{% endif %}"


def _sheet(name: str, tokenizer: PreTrainedTokenizerBase, requests: tuple[str, ...] = (), **config: Any) -> StageInfo:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300} | config
    made = AutoConfig.for_model("gpt_neox", **shape)
    return describe_stage(name, Checkpoint(f"x/{name}", step=1), made, tokenizer, TEXTS, requests)


def _line(found: PreflightReport, what: str) -> dict[str, str]:
    [line] = [line for line in found.lines if line.what == what]
    return dict(line.values)


def test_equal_stages_do_not_differ() -> None:
    found = compare_stage_info([_sheet("base", byte_tokenizer()), _sheet("post", byte_tokenizer())])
    assert found.differing == []
    assert found.cannot == ()
    assert found.texts == 2


def test_additional_bos_is_a_phantom_token_in_every_text() -> None:
    found = compare_stage_info([_sheet("base", byte_tokenizer()), _sheet("post", byte_tokenizer(bos=True))])
    assert _line(found, "tokens before a text") == {"base": "–", "post": "<s>"}
    assert _line(found, "token ids of the texts")["post"] == "2 of 2 differ: phantom tokens [0] in text 1"
    [why] = found.cannot
    assert "token by token" in why
    assert "base and post" in why


def test_vocabularies_differ_even_if_the_token_ids_are_equal() -> None:
    other = byte_tokenizer()
    other.add_tokens(["<|new|>"])
    found = compare_stage_info([_sheet("base", byte_tokenizer()), _sheet("post", other)])
    assert [line.what for line in found.differing] == ["tokenizer size"]
    assert found.cannot == ()


def test_chat_templates_and_their_last_tokens_differ() -> None:
    other = byte_tokenizer()
    other.chat_template = TEMPLATE
    found = compare_stage_info([_sheet("base", byte_tokenizer()), _sheet("post", other)])
    behind = _line(found, "template tokens after a request")
    assert behind["base"] == "–"
    assert behind["post"].startswith("7: ")  # " end go", byte by byte
    assert _line(found, "chat template")["base"] == "none"
    assert "template" in found.cannot[0]


def test_post_instruction_tokens_are_shown_with_their_ids() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer(" ?:")["input_ids"]
    found = compare_stage_info([_sheet("base", tokenizer, ("break a ?:", "paint b ?:"))] * 2)
    assert (
        _line(found, "post-instruction tokens")["base"] == f"3: {' '.join(tokenizer.convert_ids_to_tokens(ids))} {ids}"
    )
    found = compare_stage_info([_sheet("base", tokenizer, ("break a", "paint b"))] * 2)
    assert _line(found, "post-instruction tokens")["base"].startswith("none")


def test_other_shapes_rule_out_exchanges() -> None:
    wide = _sheet("wide", byte_tokenizer(), hidden_size=64)
    deep = _sheet("deep", byte_tokenizer(), num_hidden_layers=3)
    found = compare_stage_info([_sheet("base", byte_tokenizer()), wide, deep])
    assert [why.split(":")[0] for why in found.cannot] == ["base and wide", "base and deep", *["wide and deep"] * 2]
    assert "32 and 64 dimensions" in found.cannot[0]
    assert "2 and 3 blocks" in found.cannot[1]


def test_padding_sides_differ() -> None:
    left = byte_tokenizer()
    left.padding_side = "left"
    found = compare_stage_info([_sheet("base", byte_tokenizer()), _sheet("post", left)])
    assert _line(found, "padding") == {"base": "right, <pad>", "post": "left, <pad>"}


def test_preflight_loads_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [save_tiny("gpt2", tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    _, stages = lineage_from_names([f"{folder.name}={folder}" for folder in folders])
    monkeypatch.setattr("ontogeny.models.loading.load_network", lambda *_: pytest.fail("weights were read"))
    found = run_preflight(stages, TEXTS)
    assert found.as_json()["stages"] == ["a", "b"]
    assert found.differing == []


def test_rejects_stage_without_tokenizer(tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "inner" / "a")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(BadInput, match="`tokenizer`"):
        run_preflight({"a": Checkpoint(str(folder)), "b": Checkpoint(str(folder))}, TEXTS)
