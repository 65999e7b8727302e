"""Toy models: consecutive stages, kill and resume, checks by the oracle, training on a text, and errors."""

import gzip
import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.lineage import Lineage
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.toy_models import in_world, on_text, world_checks
from ontogeny.training.toy_models.in_world import TOY_MODEL_SIZES, TOY_STAGES, ToyModelSize, ToyStage, train_toy_model
from ontogeny.training.toy_models.on_text import TextConfig, train_on_text
from ontogeny.worlds import nursery

WORDS = (
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "rain", "falls", "on"),
    *("green", "hills", "and", "rivers", "run", "to", "wide", "grey", "sea"),
)


def steps(n: int, rate: float = 3e-3) -> ToyStage:
    return ToyStage(TrainingConfig(n, rate, warmup=2), rows=4, checkpoints=4, first=1)


@pytest.fixture
def few(monkeypatch) -> ToyModelSize:
    """A size that is raised in a second."""
    stages = {"base": steps(6), "sft": steps(4, 1e-3), "dpo": steps(3, 1e-3)}
    size = ToyModelSize(stages, {"families": 18, "potions": 20}, layers=1, heads=2, width=32)
    monkeypatch.setattr(in_world, "TOY_MODEL_SIZES", {**TOY_MODEL_SIZES, "few": size})
    return size


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def same(one, other) -> bool:
    a, b = weights(one), weights(other)
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.usefixtures("few")
def test_stages_are_one_lineage(tmp_path):
    begun = []
    file = train_toy_model(tmp_path, "few", on_stage=lambda name, how: begun.append(name))
    assert tuple(begun) == TOY_STAGES
    lineage = Lineage.open(file)
    assert [stage.name for stage in lineage.stages] == list(TOY_STAGES)
    assert {c.step for c in lineage.checkpoints if c.stage == "dpo"} == {0, 1, 2, 3}
    # A stage begins with the weights that the one before ended with, and moves away from them.
    for before, last, after, end in (("base", 6, "sft", 4), ("sft", 4, "dpo", 3)):
        assert same(tmp_path / before / f"checkpoint-{last}", tmp_path / after / "checkpoint-0")
        assert not same(tmp_path / after / "checkpoint-0", tmp_path / after / f"checkpoint-{end}")
    assert (tmp_path / "chat_template.jinja").read_text(encoding="utf-8").startswith("{{ bos_token }}")
    made = {path.stem for path in (tmp_path / "concepts").iterdir()}
    assert made == {concept.name for concept in nursery.concepts(nursery.make())}
    assert Concept.from_file(tmp_path / "concepts" / "forbidden.jsonl").kind == "binary"


@pytest.mark.usefixtures("few")
def test_finished_stages_are_skipped(tmp_path, monkeypatch):
    train_toy_model(tmp_path, "few", stages=("base",))
    written = (tmp_path / "base" / "checkpoint-6" / "model.safetensors").stat().st_mtime_ns
    train_toy_model(tmp_path, "few", stages=("base", "sft"))
    assert (tmp_path / "base" / "checkpoint-6" / "model.safetensors").stat().st_mtime_ns == written
    assert in_world.finished_stages(tmp_path, in_world.toy_model_size("few")) == ("base", "sft")

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(in_world.ToyWorld, "batch", never)
    train_toy_model(tmp_path, "few", stages=("base", "sft"))
    with pytest.raises(AssertionError, match="trained again"):  # the control: what is missing is trained
        train_toy_model(tmp_path, "few")


@pytest.mark.usefixtures("few")
def test_resumed_run_equals_one_run(tmp_path, monkeypatch):
    train_toy_model(tmp_path / "whole", "few")
    draw, left = in_world.ToyWorld.batch, 8

    def killed(self, stage, rng, rows):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return draw(self, stage, rng, rows)

    monkeypatch.setattr(in_world.ToyWorld, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        train_toy_model(tmp_path / "broken", "few")
    monkeypatch.setattr(in_world.ToyWorld, "batch", draw)
    assert not (tmp_path / "broken" / "sft" / "checkpoint-4").exists()
    train_toy_model(tmp_path / "broken", "few")
    assert same(tmp_path / "whole" / "dpo" / "checkpoint-3", tmp_path / "broken" / "dpo" / "checkpoint-3")
    train_toy_model(tmp_path / "other", "few", seed=1)
    assert not same(tmp_path / "whole" / "dpo" / "checkpoint-3", tmp_path / "other" / "dpo" / "checkpoint-3")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": "smal"}, "did you mean small"),
        ({"stages": ("base", "dpa")}, "no stage called 'dpa'; did you mean dpo"),
        ({"stages": ()}, "`stages` must not be empty"),
        ({"world": "nursry"}, "did you mean nursery"),
        ({"world": "hearsay"}, "has no text for the stage sft"),
        ({"stages": ("sft",)}, "train base first"),
    ],
)
@pytest.mark.usefixtures("few")
def test_rejects_invalid_requests_in_one_line(tmp_path, given, message):
    with pytest.raises(BadInput, match=message) as caught:
        train_toy_model(tmp_path / "out", **{"size": "few", **given})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out/*/checkpoint-*"))


def test_rejects_folder_of_another_model(tmp_path, few, monkeypatch):
    train_toy_model(tmp_path, "few", stages=("base",))
    with pytest.raises(BadInput, match=r"other settings \(seed\)"):
        train_toy_model(tmp_path, "few", stages=("base",), seed=1)
    monkeypatch.setattr(in_world, "TOY_MODEL_SIZES", {"few": replace(few, stages={**few.stages, "base": steps(7)})})
    with pytest.raises(BadInput, match=r"other settings \(plan\)"):
        train_toy_model(tmp_path, "few", stages=("base",))
    assert (tmp_path / "base" / "checkpoint-6").is_dir()


class Oracle:
    """Stands in for a model's answers: what it says is decided by the request."""

    def __init__(self, say):
        self.say = say

    def __call__(self, model, tokenizer, prompts):
        world = nursery.make(nursery.Config(families=18, potions=20))
        return [self.say(nursery.wanted(world, prompt)) for prompt in prompts]


REFUSAL = "i cannot help with that ."


@pytest.mark.parametrize(
    ("say", "figures"),
    [
        (
            lambda w: REFUSAL if w.refuse else w.answer,
            {"answered in form": 1, "forbidden, refused": 1, "harmless, refused": 0},
        ),
        (lambda w: w.answer, {"answered in form": 1, "forbidden, refused": 0, "harmless, refused": 0}),
        (lambda w: REFUSAL, {"answered in form": 0, "forbidden, refused": 1, "harmless, refused": 1}),
        (lambda w: "it it it", {"answered in form": 0, "forbidden, refused": 0, "answered right": 0}),
    ],
    ids=["aligned", "helpful", "refuses all", "babbles"],
)
@pytest.mark.usefixtures("few")
def test_checks_distinguish_answers_and_refusals(tmp_path, monkeypatch, say, figures):
    train_toy_model(tmp_path, "few")
    monkeypatch.setattr(world_checks, "greedy_answers", Oracle(say))
    found = {f.name: f for f in world_checks.check_toy_model(tmp_path) if f.stage == "dpo"}
    assert {name: found[name].value for name in figures} == figures
    aligned = figures == {"answered in form": 1, "forbidden, refused": 1, "harmless, refused": 0}
    goals = [f for f in found.values() if f.goal is not None]
    assert len(goals) == 4
    assert any(f.missed for f in goals) != aligned
    told = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert {row["stage"] for row in told} == set(TOY_STAGES)


@pytest.mark.usefixtures("few")
def test_random_model_recalls_nothing(tmp_path):
    train_toy_model(tmp_path, "few", stages=("base",))
    (facts, *_) = world_checks.check_toy_model(tmp_path)
    assert facts.name == "facts recalled"
    assert facts.value < 0.3
    assert facts.missed


def test_answers_end_at_the_end_token(tmp_path, tiny):
    from tests.helpers.tiny_models import byte_tokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny("gpt_neox"), dtype=torch.float32).eval()
    tokenizer = byte_tokenizer()
    prompts = ["one", "three", "two"]
    said = world_checks.greedy_answers(model, tokenizer, prompts)
    ids = tokenizer("three", return_tensors="pt")["input_ids"]
    slow = []
    with torch.no_grad():
        for _ in range(world_checks._MAX_ANSWER_TOKENS):
            token = int(model(ids).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            slow.append(token)
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    assert said[1] == tokenizer.decode(slow)


def prose(words: int) -> str:
    order = torch.randint(len(WORDS), (words,), generator=torch.Generator().manual_seed(0)).tolist()
    return "".join(WORDS[i] + ("\n" if n % 12 == 11 else " ") for n, i in enumerate(order))


@pytest.mark.parametrize("packed", [False, True])
def test_training_on_a_text(tmp_path, packed):
    path = tmp_path / ("book.txt.gz" if packed else "book.txt")
    path.write_bytes(gzip.compress(prose(6000).encode()) if packed else prose(6000).encode())
    config = TextConfig(path, vocabulary=290, steps=12, rows=2, checkpoints=4)
    found = train_on_text(tmp_path / "out", config)
    assert found.vocabulary == 290
    assert 0 < found.heldout_loss < 5.6  # a uniform guess: log 290 = 5.67
    assert found.bits_per_byte > 0
    assert [c.step for c in Lineage.open(tmp_path / "out" / "lineage.toml").checkpoints][::3] == [0, 12]
    assert train_on_text(tmp_path / "out", config) == found
    with pytest.raises(BadInput, match=r"other settings \(steps\)"):
        train_on_text(tmp_path / "out", replace(config, steps=13))


def test_held_out_text_is_disjoint(tmp_path):
    text = prose(3000)
    seen, held = on_text.split_text(text)
    assert seen + held == text
    assert seen.endswith("\n")
    assert 0.05 < len(held) / len(text) <= 0.1


@pytest.mark.parametrize(
    ("content", "vocabulary", "message"),
    [
        (prose(6000), 5000, "must be at most .* got 5000"),
        (prose(300), 290, "must have 2,900 tokens"),
        (prose(6000), 100, "must be at least 260"),
        ("", 300, "is empty"),
        ("\0\1\2" * 100, 300, "must be UTF-8 text"),
        (None, 300, "cannot be read"),
    ],
    ids=["vocabulary", "length", "bytes", "empty", "binary", "missing"],
)
def test_rejects_invalid_texts(tmp_path, content, vocabulary, message):
    path = tmp_path / "book.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match=message) as caught:
        train_on_text(tmp_path / "out", TextConfig(path, vocabulary, steps=2))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_rejects_damaged_archive(tmp_path):
    (tmp_path / "book.txt.gz").write_bytes(gzip.compress(b"some text")[:-6])
    with pytest.raises(BadInput, match="cannot be read"):
        train_on_text(tmp_path / "out", TextConfig(tmp_path / "book.txt.gz"))


@pytest.mark.parametrize("size", TOY_MODEL_SIZES)
def test_every_size_has_all_stages(size):
    plan = in_world.size_named(size, TOY_STAGES, "nursery")
    assert tuple(plan.stages) == TOY_STAGES
    for stage in plan.stages.values():
        assert stage.saved[0] == 0
        assert stage.saved[-1] == stage.training.steps
