"""Rollouts: where the probes of a run place the texts that a policy writes while it is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ontogeny.activations.capture import capture_workload
from ontogeny.activations.workload import text_workload
from ontogeny.data.concept import Concept
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, measured_checkpoints
from ontogeny.models.model import Model
from ontogeny.records import Record, make_record
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.storage.run import Run

_MOST = 64
"""Rollouts that are kept between two measurements; the last ones."""
_RESAMPLES = 1000
_PROBE = "logistic"


@dataclass
class RolloutBuffer:
    """The last texts of the policy, each with its prompt."""

    prompts: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def add(self, prompts: Sequence[Any], completions: Sequence[Any]) -> None:
        """Keep texts; a chat is joined to its contents."""
        for prompt, completion in zip(prompts, completions, strict=True):
            start, end = _plain(prompt), _plain(completion)
            if end.strip():
                self.prompts.append(start)
                self.texts.append(start + end)
        del self.prompts[:-_MOST], self.texts[:-_MOST]

    def take(self) -> tuple[list[str], list[str]]:
        """Prompts and texts, of which none is kept."""
        taken = self.prompts, self.texts
        self.prompts, self.texts = [], []
        return taken


def _plain(message: Any) -> str:
    if isinstance(message, str):
        return message
    return "\n".join(str(part.get("content", "")) for part in message)


def observed_reward(reward: Callable[..., Any], buffer: RolloutBuffer) -> Callable[..., Any]:
    """A reward function of TRL that keeps the policy's texts and returns what `reward` returns."""

    def observed(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Any:
        buffer.add(prompts, completions)
        return reward(prompts=prompts, completions=completions, **columns)

    observed.__name__ = getattr(reward, "__name__", type(reward).__name__)
    return observed


def rollout_rows(
    run: Run,
    model: Model,
    concept: Concept,
    checkpoint: str,
    stage: str,
    buffer: tuple[Sequence[str], Sequence[str]],
    site: str,
    seed: int,
) -> list[Record]:
    """Share of the policy's texts that the probe fitted at this checkpoint puts on the positive side, with an interval by prompt.

    Texts longer than the context keep their end. Empty without a probe of two classes at the site.
    """
    prompts, texts = buffer
    visits = [v for v in measured_checkpoints(run, concept.name) if (v.stage, v.checkpoint) == (stage, checkpoint)]
    if concept.kind != "binary" or not texts or not visits or not site:
        return []
    wanted = Site.parse(site)
    work, reads, _ = text_workload(texts, model.tokenizer, model.context, concept.position, truncate=True)
    x = capture_workload(model, work, [wanted]).parts[wanted.part][0, reads.to(model.device)].float().cpu()
    direction, bias = _readout(run, visits[0], wanted)
    positive = ((x @ direction + bias) > 0).float()
    groups = torch.tensor([list(dict.fromkeys(prompts)).index(prompt) for prompt in prompts])
    value, interval = float(positive.mean()), (torch.nan, torch.nan)
    count = len(groups.unique())
    if count > 1:
        weights = bootstrap.group_weights(groups, samples=_RESAMPLES, seed=seed)
        samples = bootstrap.mean_samples(positive[None], weights)
        interval = bootstrap.share_interval(positive.mean()[None], samples, groups=count)[0].ends
    note = None if count > 1 else "no interval: all texts continue one prompt"
    return [
        make_record(
            "rollout_share",
            value,
            n=len(texts),
            site=wanted,
            interval=interval,
            note=note,
            concept=concept.name,
            position=str(concept.position),
            method=_PROBE,
            split="all",
            seed=seed,
        )
    ]


def _readout(run: Run, visit: MeasuredCheckpoint, site: Site) -> tuple[torch.Tensor, torch.Tensor]:
    at, key = visit.sites[site.part].index(site), f"{_PROBE}/{site.part}"
    tensors = run.directions(visit.unit, [f"{key}/direction", f"{key}/bias"])
    return tensors[f"{key}/direction"][at, :, 0], tensors[f"{key}/bias"][at, 0]
