"""Capture against Hugging Face: pooled reads, answers, batches, padding, KV caches; and the cost of a pass."""

import itertools
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from ontogeny.activations.batching import Workload, padded_length
from ontogeny.activations.capture import capture_workload
from ontogeny.activations.workload import build_workload
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.positions import Position
from ontogeny.models.model import load_model

EXACT = 5e-6
"""Relative float32 error of another order of operations."""
CLOSE = 1e-5
FAMILIES = ("gpt_neox", "llama", "gpt2")
POSITIONS = ("last", "mean", "last:span", "mean:span", "last-2")
SITES = ("resid", "attn", "mlp", "head", "neuron")
PATHS = {
    "gpt_neox": ("gpt_neox.layers.{}", "attention", "mlp", "attention.dense", "mlp.dense_4h_to_h"),
    "llama": ("model.layers.{}", "self_attn", "mlp", "self_attn.o_proj", "mlp.down_proj"),
    "gpt2": ("transformer.h.{}", "attn", "mlp", "attn.c_proj", "mlp.c_proj"),
}
"""Where each family keeps block, attention, MLP, and the maps whose inputs are heads and neurons; written by hand."""


def examples() -> tuple[Example, ...]:
    """Texts of many lengths, some of one, each with a marked part."""
    words = ["moon", "a lighthouse", "bread", "the long river", "x", "seven"]
    made = []
    for i, (a, b) in enumerate(itertools.permutations(words, 2)):
        text = f"Is {a} more than {b}?"
        start = text.index(b, 4 + len(a))
        made.append(Example(text, i % 2 == 0, f"g{i % 12}", span=(start, start + len(b))))
    return tuple(made)


def concept(position: str = "last", *, answers: int = 0) -> Concept:
    asked = tuple(
        Answer(f"{e.text} It is", " so." if e.target else " not", " never" if i % 3 else " so.", e.group)
        for i, e in enumerate(examples()[:answers])
    )
    asked = tuple(replace(a, wrong=" neither") if a.right == a.wrong else a for a in asked)
    return Concept("order", examples(), position=Position.parse(position), answers=asked)


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def model(family, tiny):
    return load_model(tiny(family))


@pytest.fixture
def theirs(family, tiny):
    """The same weights, loaded by Hugging Face alone."""
    return AutoModelForCausalLM.from_pretrained(tiny(family), dtype=torch.float32).eval()


def hidden(network, family: str, ids: list[int], **more) -> dict[str, torch.Tensor]:
    """Activations of one sequence at every site, by plain hooks."""
    seen: dict[str, torch.Tensor] = {}
    block, attn, mlp, heads, neurons = PATHS[family]

    def output(name):
        return lambda _m, _a, out: seen.__setitem__(name, (out[0] if isinstance(out, tuple) else out)[0].clone())

    def given(name):
        return lambda _m, args: seen.__setitem__(name, args[0][0].clone())

    with torch.no_grad():
        handles = []
        for layer in (1, 2):
            path = block.format(layer - 1)
            handles.append(network.get_submodule(path).register_forward_hook(output(f"resid.{layer}")))
            handles.append(network.get_submodule(f"{path}.{attn}").register_forward_hook(output(f"attn.{layer}")))
            handles.append(network.get_submodule(f"{path}.{mlp}").register_forward_hook(output(f"mlp.{layer}")))
            handles.append(network.get_submodule(f"{path}.{heads}").register_forward_pre_hook(given(f"head.{layer}")))
            handles.append(
                network.get_submodule(f"{path}.{neurons}").register_forward_pre_hook(given(f"neuron.{layer}"))
            )
        made = network(torch.tensor([ids]), output_hidden_states=True, **more)
        for handle in handles:
            handle.remove()
    seen["resid.0"] = made.hidden_states[0][0]
    torch.testing.assert_close(seen["resid.1"], made.hidden_states[1][0], rtol=0, atol=0)
    for layer in (1, 2):
        for head, values in enumerate(seen.pop(f"head.{layer}").unflatten(-1, (4, -1)).unbind(-2)):
            seen[f"head.{layer}.{head}"] = values
    return seen


def pooled(values: torch.Tensor, position: str, span: tuple[int, int], bos: int) -> torch.Tensor:
    """Pooling by hand; each byte is a token, behind the BOS if there is one."""
    own = values[bos:]
    marked = own[span[0] : span[1]]
    return {
        "last": own[-1],
        "mean": own.mean(0),
        "last:span": marked[-1],
        "mean:span": marked.mean(0),
        "last-2": own[-3],
    }[position]


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, relative to the largest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def read(model, position: str = "last", patterns=SITES, **more) -> dict[str, torch.Tensor]:
    """Every site's values for the examples, in their order."""
    work, rows = build_workload([concept(position)], model.tokenizer, model.context)
    found = capture_workload(model, work, model.sites(patterns), **more)
    return {
        str(site): found.parts[part][at][rows["order"].reads]
        for part, sites in found.sites.items()
        for at, site in enumerate(sites)
    }


@pytest.mark.parametrize("position", POSITIONS)
def test_pooled_reads_equal_hugging_face(model, theirs, family, position):
    ours = read(model, position)
    bos = 1 if family == "llama" else 0
    expected: dict[str, list[torch.Tensor]] = {name: [] for name in ours}
    for example in examples():
        for name, values in hidden(theirs, family, model.tokenizer(example.text)["input_ids"]).items():
            expected[name].append(pooled(values, position, example.span, bos))
    assert set(ours) == set(expected)
    assert len(ours) == 3 + 2 + 2 + 2 * 4 + 2
    worst = {name: apart(ours[name], torch.stack(expected[name])) for name in ours}
    assert max(worst.values()) <= EXACT, max(worst.items(), key=lambda item: item[1])
    # The control: rows shifted by one example are other numbers, so an order that is wrong would be seen.
    assert apart(ours["resid.1"].roll(1, 0), torch.stack(expected["resid.1"])) > 1e-2


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("depth", [1, 2])
def test_last_block_is_computed_for_the_read_tokens_only(model, family, position, depth):
    parts = [f"{part}.{depth}" for part in ("resid", "attn", "mlp", "head")]
    whole = read(model, position)  # neurons are wanted, too: everything is computed
    seen = []
    mlp = model.network.get_submodule(f"{PATHS[family][0].format(depth - 1)}.{PATHS[family][2]}")
    inner = next(m for m in mlp.modules() if m is not mlp)
    handle = inner.register_forward_pre_hook(lambda _m, args: seen.append(args[0].shape[:-1].numel()))
    spared = read(model, position, parts)
    handle.remove()
    assert max(apart(spared[name], whole[name]) for name in spared) <= CLOSE
    every = sum(len(model.tokenizer(e.text)["input_ids"]) for e in examples())
    if position.startswith("mean"):
        assert every <= sum(seen) <= 1.02 * every  # what fills up shorter rows of a pass
    else:
        assert sum(seen) == len(examples())


def test_inputs_are_mean_token_embeddings(model, theirs, family):
    work, rows = build_workload([concept()], model.tokenizer, model.context)
    found = capture_workload(model, work, model.sites("resid.1"))
    bos = 1 if family == "llama" else 0
    expected = [
        hidden(theirs, family, model.tokenizer(e.text)["input_ids"])["resid.0"][bos:].mean(0) for e in examples()
    ]
    assert apart(found.inputs[rows["order"].sequences], torch.stack(expected)) <= EXACT


@pytest.mark.parametrize("budget", [1, 40, 100_000])
def test_batch_size_and_order_change_no_number(model, budget):
    plain = read(model, "mean")
    other = read(model, "mean", token_budget=budget)
    assert all(apart(other[name], plain[name]) <= CLOSE for name in plain)
    backwards = replace(concept("mean"), examples=examples()[::-1])
    work, rows = build_workload([backwards], model.tokenizer, model.context)
    found = capture_workload(model, work, model.sites("resid"), token_budget=budget)
    turned = found.parts["resid"][2][rows["order"].reads].flip(0)
    assert apart(turned, plain["resid.2"]) <= CLOSE
    assert apart(turned.flip(0), plain["resid.2"]) > 1e-2  # the control: the order of the rows does matter


@pytest.mark.parametrize("side", ["left", "right"])
def test_matches_a_padded_batch_of_hugging_face(model, theirs, family, side):
    ours = read(model, "last", "resid")["resid.1"]
    sequences = [model.tokenizer(e.text)["input_ids"] for e in examples()]
    width = max(map(len, sequences))
    ids, mask = torch.full((len(sequences), width), 2), torch.zeros(len(sequences), width, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        place = slice(0, len(sequence)) if side == "right" else slice(width - len(sequence), width)
        ids[row, place], mask[row, place] = torch.tensor(sequence), 1
    with torch.no_grad():
        states = theirs(
            ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), output_hidden_states=True
        ).hidden_states[1]
    last = torch.arange(width).mul(mask).argmax(1)
    padded = states[torch.arange(len(sequences)), last]
    assert apart(padded, ours) <= CLOSE
    if side == "right":
        # The control: reading the end of the padded row, as scripts do, is something else.
        assert apart(states[:, -1], ours) > 1e-2


def test_matches_a_kv_cache(model, theirs):
    ours = read(model, "last", "resid")["resid.1"]
    with torch.no_grad():
        for row, example in enumerate(examples()[:6]):
            ids = torch.tensor([model.tokenizer(example.text)["input_ids"]])
            first = theirs(ids[:, :5], use_cache=True)
            then = theirs(
                ids[:, 5:], past_key_values=first.past_key_values, use_cache=True, output_hidden_states=True
            ).hidden_states[1][0, -1]
            assert apart(then, ours[row]) <= CLOSE
            alone = theirs(ids[:, 5:], output_hidden_states=True).hidden_states[1][0, -1]
            assert apart(alone, ours[row]) > 1e-3  # the control: without what came before it differs


def test_likelihoods_of_answers_equal_a_loop_over_all_logits(model, theirs):
    asked = concept(answers=12)
    work, rows = build_workload([asked], model.tokenizer, model.context)
    found = capture_workload(model, work, model.sites("resid"))
    for which in ("right", "wrong"):
        ours = found.answers[getattr(rows["order"], which)]
        for value, answer in zip(ours.tolist(), asked.answers, strict=True):
            prompt = model.tokenizer(answer.prompt)["input_ids"]
            whole = model.tokenizer(answer.prompt + getattr(answer, which))["input_ids"]
            assert whole[: len(prompt)] == prompt
            with torch.no_grad():
                logits = theirs(torch.tensor([whole])).logits[0].log_softmax(-1)
            by_hand = sum(float(logits[at - 1, whole[at]]) for at in range(len(prompt), len(whole)))
            assert value == pytest.approx(by_hand, rel=CLOSE)
            shifted = sum(float(logits[at, whole[at]]) for at in range(len(prompt), len(whole)))
            assert value != pytest.approx(shifted, rel=10 * CLOSE)  # the control: off by one is seen
    assert found.counts.answer_rows == sum(len(work.sequences[s.sequence]) - s.start for s in work.scored)


def shapes_at(module) -> list[tuple[int, ...]]:
    """The shape of whatever the module is given from now on."""
    seen: list[tuple[int, ...]] = []
    module.register_forward_pre_hook(lambda _m, args: seen.append(tuple(args[0].shape)))
    return seen


def test_each_sequence_runs_once_and_logits_only_where_scored(model):
    asked = concept(answers=12)
    doubled = [asked, replace(asked, name="again", position=Position.parse("mean"))]
    work, _ = build_workload(doubled, model.tokenizer, model.context)
    assert len(work.sequences) == len(set(work.sequences))
    entered, unembedded = [], shapes_at(model.network.get_output_embeddings())
    model.body.register_forward_pre_hook(
        lambda _m, _a, kwargs: entered.extend(tuple(row) for row in kwargs["input_ids"].tolist()), with_kwargs=True
    )
    counts = capture_workload(model, work, model.sites(SITES)).counts
    # Each once, and nothing besides.
    assert counts.forwards == len(work.sequences)
    assert sorted(t for row in entered for t in row) == sorted(t for s in work.sequences for t in s)
    assert counts.real_tokens == work.tokens == counts.tokens == sum(map(len, entered))
    longest = max(len(work.sequences[s.sequence]) - s.start for s in work.scored)
    assert unembedded
    assert all(len(shape) == 2 and shape[0] <= longest for shape in unembedded)
    assert sum(shape[0] for shape in unembedded) == counts.answer_rows < counts.tokens / 2


def test_computes_no_logits_without_answers(model):
    unembedded = shapes_at(model.network.get_output_embeddings())
    read(model)
    assert unembedded == []


def test_pass_stops_after_the_last_wanted_block(model):
    runs = {layer: [] for layer in (1, 2)}
    for layer, seen in runs.items():
        model.block(layer).register_forward_hook(lambda _m, _a, _o, seen=seen: seen.append(1))
    read(model, patterns="resid.0")
    assert (runs[1], runs[2]) == ([], [])
    read(model, patterns="resid.1,head.1")
    assert runs[1]
    assert runs[2] == []
    read(model, patterns="mlp.2")
    assert runs[2]  # the control: what lies deeper is reached when it is asked for


def ours_on(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.network.modules())


def test_hooks_are_removed_after_a_pass_and_after_an_exception(model):
    work, _ = build_workload([concept(answers=3)], model.tokenizer, model.context)
    before = ours_on(model)
    capture_workload(model, work, model.sites(SITES))
    assert ours_on(model) == before
    breaks = model.part(2, model.architecture.mlp).register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        capture_workload(model, work, model.sites(SITES))
    breaks.remove()
    assert ours_on(model) == before
    capture_workload(model, work, model.sites(SITES))


def test_inputs_are_read_without_sites(model):
    work, _ = build_workload([concept()], model.tokenizer, model.context)
    found = capture_workload(model, Workload(work.sequences, (), (), work.content), [])
    assert found.parts == {}
    assert not found.inputs.isnan().any()


def test_half_precision_reads_are_close(family, tiny):
    exact, half = (read(load_model(tiny(family), dtype=d), "mean") for d in (torch.float32, torch.bfloat16))
    assert all(values.dtype == torch.float32 for values in half.values())
    assert max(apart(half[name], exact[name]) for name in exact) < 0.1
    assert max(apart(half[name], exact[name]) for name in exact) > 1e-5  # it did run in another precision


def test_padding_is_at_most_two_percent():
    for length in range(1, 3000):
        assert length <= padded_length(length) <= 1.02 * length
        assert padded_length(padded_length(length)) <= 1.02 * padded_length(length)
    assert [padded_length(length) for length in range(1, 50)] == list(range(1, 50))
    assert len({padded_length(length) for length in range(100, 1000)}) < 200
