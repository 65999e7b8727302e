"""The demo's lineage and concepts, made without a network: the island of Hearsay, and a small GPT-NeoX that learns to talk of it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, PreTrainedModel, PreTrainedTokenizerBase

from ontogeny.concept import Answer, Concept
from ontogeny.errors import BadInput
from ontogeny.lab.batches import Tokens
from ontogeny.lab.objectives import language_model
from ontogeny.lab.schedules import log_steps
from ontogeny.lab.training import TrainingConfig, Watch, no_bars, train
from ontogeny.store import atomic, write_json
from ontogeny.worlds import hearsay


@dataclass(frozen=True)
class DemoConfig:
    world: hearsay.Config = field(default_factory=hearsay.Config)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=1400, learning_rate=3e-3))
    rows: int = 16
    """Rows of text a step."""
    checkpoints: int = 16
    first: int = 40
    """The first checkpoint after step 0: nothing is learned before."""
    layers: int = 4
    heads: int = 4
    width: int = 128
    seed: int = 0


@dataclass(frozen=True)
class DemoFolders:
    lineage: Path
    concepts: tuple[Path, ...]
    recall: float
    """Share of the world's facts that the last checkpoint states, first guess among all words."""


def build(out: Path, config: DemoConfig | None = None, *, on_progress: Watch | None = None) -> DemoFolders:
    """Write the concepts, train the model, measure what it knows. What is there is kept; what was interrupted goes on.

    Raises:
        BadInput: `out` holds the demo of other settings, or cannot be written.
    """
    config = config or DemoConfig()
    _same_demo(out / "demo.json", config)
    world = hearsay.make(config.world)
    tokenizer = hearsay.tokenizer(world)

    def batches(step: int) -> Tokens:
        rng = np.random.default_rng([config.seed, config.world.seed, step])
        return Tokens(torch.from_numpy(hearsay.sample(world, rng, config.rows)))

    lineage = train(
        batches,
        language_model,
        config.training,
        out / "hearsay",
        start=_model(config, len(tokenizer)),
        tokenizer=tokenizer,
        save_at=log_steps(config.training.steps, config.checkpoints, first=config.first),
        seed=config.seed,
        on_progress=on_progress,
    )
    paths = tuple(write_concept(concept, out / "concepts") for concept in hearsay.concepts(world))
    return DemoFolders(lineage, paths, _recall(out, lineage / f"checkpoint-{config.training.steps}", world, tokenizer))


def _same_demo(path: Path, config: DemoConfig) -> None:
    """Another world's text would go on training the same weights, and nothing would show it."""
    told = json.loads(json.dumps(asdict(config)))
    if not path.is_file():
        write_json(path, told)
    elif json.loads(path.read_text(encoding="utf-8")) != told:
        raise BadInput(f"{path.parent} holds a demo of other settings. Choose another folder, or remove it.")


def write_concept(concept: Concept, folder: Path) -> Path:
    """A concept as a file that anyone can read, and that `Concept.from_file` reads back as the same concept."""
    names = concept.classes or ("false", "true")
    rows: list[dict[str, object]] = [
        {
            "text": example.text,
            "label": example.target if concept.kind == "number" else names[int(example.target)],
            "kind": concept.kind,
            "group": example.group,
            **({} if example.pair is None else {"pair": example.pair}),
        }
        for example in concept.examples
    ]
    for row, answer in zip(rows, _beside(concept), strict=True):
        if answer is not None:
            row |= {"prompt": answer.prompt, "right": answer.right, "wrong": answer.wrong}
    path = folder / f"{concept.name}.jsonl"
    with atomic(path) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _beside(concept: Concept) -> list[Answer | None]:
    """Each answer beside an example of its group."""
    waiting: dict[str, list[Answer]] = {}
    for answer in concept.answers:
        waiting.setdefault(answer.group, []).append(answer)
    return [waiting[e.group].pop(0) if waiting.get(e.group) else None for e in concept.examples]


def _model(config: DemoConfig, words: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=words,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.width,
        max_position_embeddings=config.world.context,
        initializer_range=0.06,
        bos_token_id=2,
        eos_token_id=3,
        tie_word_embeddings=False,
    )


def _recall(out: Path, checkpoint: Path, world: hearsay.World, tokenizer: PreTrainedTokenizerBase) -> float:
    path = out / "recall.json"
    if path.is_file():
        return float(json.loads(path.read_text(encoding="utf-8"))["recall"])
    with no_bars():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    share = recall(model, tokenizer, hearsay.facts(world))
    write_json(path, {"recall": share, "facts": len(hearsay.facts(world)), "checkpoint": checkpoint.name})
    return share


@torch.no_grad()
def recall(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: Sequence[Answer]) -> float:
    """Share of the prompts after which the right word is the likeliest of all."""
    prompts = torch.tensor(tokenizer([fact.prompt for fact in facts])["input_ids"])
    right = torch.tensor([tokenizer(fact.right, add_special_tokens=False)["input_ids"][0] for fact in facts])
    return float((model(prompts).logits[:, -1].argmax(-1) == right).float().mean())
