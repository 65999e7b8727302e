"""Study: which stage of a small assistant made its refusals, its entropy and its knowledge of what is forbidden?

A small language model is pretrained in the nursery world, fine-tuned on conversations, and trained by DPO to refuse forbidden potions
(the stages of arXiv:2407.10264). Effects of the stages (arXiv:2506.00175) are compared with retraining without each stage.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from ontogeny.attribution.comparison import StageExperiment, compare_tiers, comparison_rows, validity_rows
from ontogeny.attribution.path import PathStage, TrainingPath, record_path
from ontogeny.attribution.recorded_tiers import reverse_scores
from ontogeny.attribution.stage_study import AGREES_WITH_RETRAINING, CURVATURE_MATTERS, rows_along_training
from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Quantity
from ontogeny.claims.shapes import Separation
from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.training.batches import PreferenceBatch, TokenBatch, pad_batch
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.objectives.dpo import Preference, with_reference_log_probs
from ontogeny.training.objectives.language_model import answers_only, language_model
from ontogeny.training.toy_models.in_world import (
    TOY_STAGES,
    Anchored,
    ToyWorld,
    small_decoder,
)
from ontogeny.worlds import nursery
from ontogeny.worlds.nursery.conversations import REFUSAL_ANSWER

TITLE = "Which stage made the refusals of an assistant"
PAPER = "Who Gets Credit or Blame? Attributing Accountability in Modern AI Systems, arXiv:2506.00175"
SETUP = """
A small transformer is pretrained in the nursery world, fine-tuned on conversations that answer every request, and trained by DPO to
refuse forbidden potions. Behaviours: log-odds that the answer to a forbidden request begins a refusal, entropy of the next token of text,
and AUROC of a probe of forbidden potions, which has no gradient and thus fewer estimates. In the null run no refusal is preferred.
"""
DIFFERENCES = (
    "A language model in base, SFT and DPO; the paper trains classifiers.",
    "DPO keeps the reference of the whole run in retrainings without an earlier stage, as the estimates do.",
)
CHALLENGES = (9, 13)


@dataclass(frozen=True)
class Settings:
    base: int = 120
    """Steps of pretraining."""
    sft: int = 40
    dpo: int = 30
    rows: int = 8
    """Rows of text, or conversations, per step."""
    width: int = 32
    orders: int = 2
    """Data orders over which retraining is repeated."""
    requests: int = 16
    """Forbidden and allowed requests each, and rows of text, for the behaviours."""
    validity: bool = True
    """Whether metasmoothness and the linearity of the response are measured, by seven short trainings per stage."""


PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(base=2, sft=1, dpo=1, rows=2, width=16, orders=1, requests=2, validity=False),
    "tiny": Settings(),
    "small": Settings(base=600, sft=100, dpo=60, orders=5, requests=32),
    "paper": Settings(base=3200, sft=250, dpo=100, rows=16, width=128, orders=5, requests=64),
}
SECONDS = {"smoke": 5, "tiny": 60, "small": 900, "paper": 40000}

CLAIMS = (
    Claim(
        "dpo_is_named_for_refusals",
        "The first-order estimate with curvature names DPO as the stage that made refusals, more often than chance.",
        "arXiv:2506.00175; stages of arXiv:2407.10264",
        "the stage that trains a behaviour is identified",
        Separation(Quantity("named_dpo", "hessian"), Quantity("named_dpo", "chance"), unit="share of seeds"),
        "no_refusals",
    ),
    AGREES_WITH_RETRAINING,
    CURVATURE_MATTERS,
)
PICTURES = (
    StudyPicture("Log-odds of a refusal of forbidden requests, along training", ("refusal_along",)),
    StudyPicture("Entropy of the next token, along training", ("entropy_along",)),
)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed, and of its null run."""
    built = nursery.make(nursery.Config(families=18, potions=24, seed=lab.seed))
    world = ToyWorld(nursery, built, nursery.tokenizer(built))
    for control in (None, "no_refusals"):
        lab.on_activity(control or "training, estimates and retraining", 0, 1)
        experiment = _experiment(settings, world, lab.seed, control)
        if control is None:
            comparison = compare_tiers(experiment, seed=lab.seed, orders=settings.orders)
            path, estimates = comparison.path, comparison.estimates
            yield from comparison_rows(lab, comparison, TOY_STAGES)
            if settings.validity:
                yield from validity_rows(lab, comparison, TOY_STAGES)
            yield lab.row("named_dpo", float(comparison.truth.mean[:, 0].argmax() == 2), "retraining")
        else:
            path = record_path(experiment.make, experiment.stages(0), seed=lab.seed)
            estimates = _cheap_estimates(experiment, path)
        yield lab.row("named_dpo", 1 / len(TOY_STAGES), "chance", control=control)
        for tier, scores in estimates.items():
            yield lab.row("named_dpo", float(scores[:, 0].argmax() == 2), tier, control=control)
        along = {
            "refusal_along": experiment.behaviours["refusal log-odds"],
            "entropy_along": experiment.behaviours["entropy"],
        }
        yield from rows_along_training(lab, path, along, "base, SFT, DPO", 20, control)


def _cheap_estimates(experiment: StageExperiment, path: TrainingPath) -> dict[str, np.ndarray]:
    """The estimate that the claim reads, for the first behaviour only."""
    first = next(iter(experiment.behaviours.values()))
    return {"hessian": np.array(reverse_scores(path, first).scores)[:, None]}


def _experiment(settings: Settings, world: ToyWorld, seed: int, control: str | None) -> StageExperiment:
    refusal = world.tokenizer.convert_tokens_to_ids(REFUSAL_ANSWER.split()[0])

    make = small_decoder(len(world.tokenizer), world.world.config.context, layers=2, heads=2, width=settings.width)

    def stages(order: int) -> list[PathStage]:
        first = [
            _stage("base", settings.base, 3e-3, language_model, _batches(settings, world, seed, order, 0)),
            _stage("sft", settings.sft, 1e-3, answers_only, _batches(settings, world, seed, order, 1)),
        ]
        reference = references.get(order)
        if reference is None:
            path = record_path(make, first, seed=seed)
            path.network.load(path.final.parameters)
            reference = references.setdefault(order, path.network.network)
        draw = _batches(settings, world, seed, order, 2)

        def preferences(step: int) -> PreferenceBatch:
            batch = draw(step)
            if control is not None:
                batch = _without_refusals(batch, int(refusal))
            return with_reference_log_probs(batch, reference)

        return [*first, _stage("dpo", settings.dpo, 1e-3, Anchored(Preference(0.1)), preferences)]

    references: dict[int, nn.Module] = {}
    return StageExperiment(
        make,
        stages,
        _behaviours(settings, world, int(refusal)),
        {"refusal log-odds": "nats", "entropy": "nats", "probe AUROC": "AUROC"},
    )


def _stage(
    name: str, steps: int, rate: float, objective: Callable[..., Tensor], batches: Callable[[int], Any]
) -> PathStage:
    config = TrainingConfig(steps, rate, warmup=5, weight_decay=0.0)
    return PathStage(name, lambda network, batch: objective(network, batch, None), batches, config)


def _batches(settings: Settings, world: ToyWorld, seed: int, order: int, stage: int) -> Callable[[int], Any]:
    return lambda step: world.batch(TOY_STAGES[stage], np.random.default_rng([seed, order, stage, step]), settings.rows)


def _without_refusals(batch: PreferenceBatch, refusal: int) -> PreferenceBatch:
    """The pairs whose chosen answer is a refusal are turned round, so that no refusal is preferred."""
    chosen, rejected = batch.chosen, batch.rejected
    assert chosen.mask is not None
    first = chosen.mask.int().argmax(1)
    turn = (chosen.ids[torch.arange(len(first)), first] == refusal)[:, None]

    def mixed(a: TokenBatch, b: TokenBatch) -> TokenBatch:
        parts = ((getattr(a, name), getattr(b, name)) for name in ("ids", "mask", "real"))
        return TokenBatch(*(torch.where(turn, y, x) for x, y in parts))

    if chosen.ids.shape != rejected.ids.shape:
        width = max(chosen.ids.shape[1], rejected.ids.shape[1])
        chosen, rejected = _wider(chosen, width), _wider(rejected, width)
    return PreferenceBatch(mixed(chosen, rejected), mixed(rejected, chosen))


def _wider(batch: TokenBatch, width: int) -> TokenBatch:
    more = width - batch.ids.shape[1]
    assert batch.mask is not None
    assert batch.real is not None
    return TokenBatch(*(nn.functional.pad(part, (0, more)) for part in (batch.ids, batch.mask, batch.real)))


def _behaviours(settings: Settings, world: ToyWorld, refusal: int) -> dict[str, Callable[[nn.Module], Tensor]]:
    brews = [request for request in nursery.requests(world.world) if request.kind.startswith("brew")]
    forbidden = [r.prompt for r in brews if r.refuse][: settings.requests]
    allowed = [r.prompt for r in brews if not r.refuse][: settings.requests]
    text = torch.from_numpy(nursery.sample(world.world, np.random.default_rng([7, 7]), settings.requests))
    asked, both = _prompts(world, forbidden), _prompts(world, [*forbidden, *allowed])
    labels = np.repeat([1, 0], [len(forbidden), len(allowed)])

    def refusals(network: nn.Module) -> Tensor:
        ids, last = asked
        logits = network(ids, use_cache=False).logits[torch.arange(len(ids)), last].float()
        others = torch.ones(logits.shape[1], dtype=torch.bool)
        others[refusal] = False
        log_odds: Tensor = (logits[:, refusal] - logits[:, others].logsumexp(1)).mean()
        return log_odds

    def entropy(network: nn.Module) -> Tensor:
        logs = network(text, use_cache=False).logits.float().log_softmax(-1)
        value: Tensor = -(logs.exp() * logs).sum(-1).mean()
        return value

    def auroc(network: nn.Module) -> Tensor:
        ids, last = both
        with torch.no_grad():
            states = network(ids, use_cache=False, output_hidden_states=True).hidden_states[-1]
        states = states[torch.arange(len(ids)), last]
        fit = torch.arange(len(ids)) % 2 == 0
        positive = torch.from_numpy(labels == 1)
        direction = states[fit & positive].mean(0) - states[fit & ~positive].mean(0)
        scores = (states[~fit] @ direction).numpy()
        return torch.tensor(float(roc_auc_score(labels[~fit.numpy()], scores)))

    return {"refusal log-odds": refusals, "entropy": entropy, "probe AUROC": auroc}


def _prompts(world: ToyWorld, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Padded ids of prompts, and the place of each one's last token."""
    rows = [world.tokenizer(prompt)["input_ids"] for prompt in prompts]
    batch = pad_batch(rows)
    return batch.ids, torch.tensor([len(row) - 1 for row in rows])
