"""Forward passes: no pass mixes the two sides of a longrope switch, so a text's numbers do not depend on its batch."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ontogeny.activations.batching import ActivationRead, ScoredAnswer, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.models.forward import forward_padded, rope_switch, split_at_switch
from ontogeny.models.model import Model, load_model
from ontogeny.steering.cached_prompts import CachedPrompts
from ontogeny.steering.generate import DecodingConfig, generate
from ontogeny.steering.log_likelihood import TokenizedAnswer
from tests.helpers.tiny_models import byte_tokenizer

SWITCH = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("phi")
    torch.manual_seed(0)
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": SWITCH}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [4.0, 5.0, 6.0, 7.0]}
    config = AutoConfig.for_model(
        "phi3",
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        original_max_position_embeddings=SWITCH,
        rope_parameters=rope,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    network = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(6) if parameter.ndim > 1 else parameter
    network.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return load_model(folder)


def texts(*lengths: int) -> list[torch.Tensor]:
    return [torch.arange(n) * (7 + i) % 250 + 3 for i, n in enumerate(lengths)]


LENGTHS = (5, SWITCH - 1, SWITCH, SWITCH + 1, 40, 90, 95)


def alone(model: Model, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.network(ids[None], use_cache=False).logits[0]


def test_split_at_switch_keeps_the_order() -> None:
    assert split_at_switch([0, 1, 2], [5, 9, 7], None) == [[0, 1, 2]]
    assert split_at_switch([2, 1, 0], [5, 9, 7], 7) == [[2, 0], [1]]
    assert split_at_switch([1], [5, 9, 7], 7) == [[1]]


def test_switch_is_read_from_the_config(model: Model, tiny) -> None:
    assert rope_switch(model) == SWITCH
    assert rope_switch(load_model(tiny("llama"))) is None


@pytest.mark.parametrize("batch", [2, 16])
def test_padded_passes_equal_each_text_alone(model: Model, batch: int) -> None:
    ids = texts(*LENGTHS)
    for rows, output in forward_padded(model, ids, batch=batch):
        for place, row in enumerate(rows):
            assert torch.allclose(output.logits[place, : len(ids[row])], alone(model, ids[row]), atol=1e-4)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("prefix", [0, 12, SWITCH + 6])
def test_captured_activations_and_answers_equal_each_text_alone(model: Model, share: bool, prefix: int) -> None:
    head = tuple(range(10, 10 + prefix))
    sequences = tuple(head + tuple(ids.tolist()) for ids in texts(*(n for n in LENGTHS * 5)))
    sequences = tuple(dict.fromkeys(sequences))
    reads, scored = [], []
    for i, ids in enumerate(sequences):
        weights = torch.zeros(len(ids))
        weights[-1] = 1
        reads.append(ActivationRead(i, weights))
        scored.append(ScoredAnswer(i, len(ids) - 2))
    work = Workload(sequences, tuple(reads), tuple(scored))
    result = capture_workload(model, work, model.sites("resid"), share_prefixes=share)
    for i, ids in enumerate(sequences):
        logits = alone(model, torch.tensor(ids)).log_softmax(-1)
        expected = sum(float(logits[t - 1, ids[t]]) for t in (len(ids) - 2, len(ids) - 1))
        assert float(result.answers[i]) == pytest.approx(expected, abs=1e-3)


def test_cached_prompts_equal_each_text_alone(model: Model) -> None:
    ids = texts(*LENGTHS, 30, 26)
    prompts = [3, 10, SWITCH - 2, SWITCH - 2, 20, 50, 20, 10, SWITCH]
    answers = [TokenizedAnswer(row, prompt) for row, prompt in zip(ids, prompts, strict=True)]
    for row, prompt, found in zip(ids, prompts, CachedPrompts.of(model, answers).scores(), strict=True):
        logits = alone(model, row).log_softmax(-1)
        expected = torch.stack([logits[t - 1, row[t]] for t in range(prompt, len(row))])
        assert torch.allclose(found, expected, atol=1e-3)


def test_prompts_of_different_sides_are_continued_as_alone(model: Model) -> None:
    prompts = ["a" * n for n in (3, SWITCH - 4, SWITCH + 2, 60)]
    how = DecodingConfig(tokens=3)
    together = [c[0].text for c in generate(model, prompts, how=how)]
    assert together == [generate(model, [prompt], how=how)[0][0].text for prompt in prompts]
