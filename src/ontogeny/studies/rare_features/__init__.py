"""Study: are the directions of rare features more entangled with others than those of frequent ones, in three toys?

The toy of When Bad Data Leads to Good Models (arXiv:2505.04741) and two autoencoders in its place, beside the bound that no set of
directions goes below, random directions, and models in which all features are equally frequent.
"""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.jobs.study.paper_study import Lab
from ontogeny.linalg.coherence import coherence, welch_bound
from ontogeny.records import Record
from ontogeny.studies.rare_features._autoencoder import autoencoder_directions
from ontogeny.studies.rare_features._chains import Chains, batch_counts, draw_chains, sequence_weights
from ontogeny.studies.rare_features._claims import (
    CHAINS,
    CLAIMS,
    EQUAL_FREQUENCY,
    LINEAR,
    OF_MEANS,
    PICTURES,
    RELU,
    TOYS,
    UNTRAINED,
    condition_of,
)
from ontogeny.studies.rare_features._decoders import StackedDecoders, sequence_losses
from ontogeny.studies.rare_features._measures import feature_directions, random_coherence
from ontogeny.studies.rare_features._settings import Settings, check_settings
from ontogeny.training.in_memory import train_in_memory
from ontogeny.training.loop import TrainingConfig, TrainingRecipe

__all__ = ["CLAIMS", "PICTURES", "PRESETS", "SECONDS", "Settings", "run"]

TITLE = "Rare features and entanglement"
PAPER = "When Bad Data Leads to Good Models, arXiv:2505.04741; Toy Models of Superposition, arXiv:2209.10652"
SETUP = """
Decoders of width four read sequences of three cyclic Markov chains over one vocabulary of four states; a chain and its start are a feature,
and one chain is rarer than the others. The direction of a feature is the mean over last tokens of the normals of probes for it, in the last
residual stream. Beside them are autoencoders of sparse features, linear and with ReLU, some of whose features are rarer. Entanglement is
the coherence, the largest absolute cosine of a direction with another one. The Welch bound and random directions are beside every value.
"""
DIFFERENCES = (
    "Heads, MLP, positions, length and optimiser of the decoders are not in the paper; they are those of a replication.",
    "Probes see each sequence equally often, also the rare ones, and both classes have the same weight; class means are beside them.",
    "The norms of the decoders have no gains and their matrices no biases but one in each MLP.",
    "The autoencoders are not in the paper.",
)
CHALLENGES = (7, 11)
PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(steps=3, toy_steps=3, draws=20, layers=1),
    "tiny": Settings(),
    "small": Settings(steps=20_000, toy_steps=10_000),
    "paper": Settings(steps=20_000, toy_steps=10_000, batch=256),
}
SECONDS = {"smoke": 1, "tiny": 40, "small": 200, "paper": 200}


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: the decoders, then both autoencoders."""
    check_settings(settings)
    lab.on_activity("chains", 0, len(TOYS))
    yield from _chain_rows(settings, lab)
    for place, toy in enumerate((LINEAR, RELU), 1):
        lab.on_activity(toy, place, len(TOYS))
        yield from _autoencoder_rows(settings, lab, toy)


def _chain_rows(settings: Settings, lab: Lab) -> Iterator[Record]:
    s, count = settings, len(settings.ratios)
    chains = draw_chains(s.chains, s.states, s.length, lab.seed)
    # First the models of all ratios, which share start and random numbers, then those of the null run, each with its own.
    ratios = torch.cat([torch.tensor(s.ratios), torch.ones(count)])
    weights = sequence_weights(chains, ratios)

    def make() -> StackedDecoders:
        return StackedDecoders(
            [0] * count + list(range(1, count + 1)),
            vocabulary=s.states, length=s.length, width=s.width, layers=s.layers, heads=s.heads, hidden=s.hidden,
        )  # fmt: skip

    def batches(step: int) -> Float[Tensor, "model sequence"]:
        real = batch_counts(weights[:count], s.batch, step, 100 * lab.seed)
        nulls = [
            batch_counts(weights[[i]], s.batch, step, 100 * lab.seed + i - count + 1) for i in range(count, 2 * count)
        ]
        return torch.cat([real, *nulls])

    def objective(network: torch.nn.Module, counts: Tensor, reference: torch.nn.Module | None = None, /) -> Tensor:
        return (sequence_losses(network(chains.ids), chains.ids) * counts).sum() / s.batch

    config = TrainingConfig(s.steps, s.rate, warmup=min(100, s.steps), floor=1.0, weight_decay=0.0, clip=float("inf"))
    recipe = TrainingRecipe(make, batches, objective, config, lab.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lab.seed)
        untrained = make()
    trained = train_in_memory(recipe)
    assert isinstance(trained, StackedDecoders)
    yield from _decoder_rows(s, lab, chains, untrained, [UNTRAINED] * count)
    yield from _decoder_rows(s, lab, chains, trained, [None] * count + [EQUAL_FREQUENCY] * count)


def _decoder_rows(
    settings: Settings, lab: Lab, chains: Chains, network: StackedDecoders, controls: list[str | None]
) -> Iterator[Record]:
    with torch.no_grad():
        stream, logits = network.stream(chains.ids), network(chains.ids)
    first, rare = settings.first, chains.rare
    by_estimator = feature_directions(stream[:, :, first:], chains.ids[:, first:])
    losses = sequence_losses(logits[:, :, first:], chains.ids[:, first:])
    for place, control in enumerate(controls):
        condition = condition_of(CHAINS, settings.ratios[place % len(settings.ratios)])
        yield from _floor_rows(settings, lab, condition, control, len(chains.ids), settings.width)
        yield lab.row("relative_frequency", settings.ratios[place % len(settings.ratios)], condition, control=control)
        for name, own in (("rare_loss", losses[place, :rare]), ("frequent_loss", losses[place, rare:])):
            yield lab.row(name, float(own.mean()), condition, control=control, n=len(own))
        for estimator, directions in by_estimator.items():
            values, suffix = coherence(directions[place]), OF_MEANS if estimator == "mass_mean" else ""
            for name, own in (("rare_coherence", values[:rare]), ("frequent_coherence", values[rare:])):
                yield lab.row(name + suffix, float(own.mean()), condition, control=control, n=len(own))


def _autoencoder_rows(settings: Settings, lab: Lab, toy: str) -> Iterator[Record]:
    s, rare = settings, settings.features // 4
    for control in (None, EQUAL_FREQUENCY):
        on = torch.full((len(s.ratios), s.features), s.on)
        if control is None:
            on[:, :rare] *= torch.tensor(s.ratios)[:, None]
        # In the null run each model has inputs of its own, since equal ones would make equal models.
        models = [on] if control is None else [row[None] for row in on]
        trained = torch.cat(
            [
                autoencoder_directions(one, s.units, steps=s.toy_steps, seed=100 * lab.seed + i, linear=toy == LINEAR)
                for i, one in enumerate(models)
            ]
        )
        lengths = trained.norm(dim=2)
        for ratio, values, length in zip(s.ratios, coherence(trained), lengths, strict=True):
            condition = condition_of(toy, ratio)
            yield from _floor_rows(s, lab, condition, control, s.features, s.units)
            yield lab.row("relative_frequency", ratio, condition, control=control)
            yield lab.row("rare_coherence", float(values[:rare].mean()), condition, control=control, n=rare)
            frequent = float(values[rare:].mean())
            yield lab.row("frequent_coherence", frequent, condition, control=control, n=s.features - rare)
            relative = float(length[:rare].mean() / length[rare:].mean())
            yield lab.row("rare_length", relative, condition, control=control, n=rare)


def _floor_rows(
    settings: Settings, lab: Lab, condition: str, control: str | None, count: int, d: int
) -> Iterator[Record]:
    """The bound of the largest coherence, and the mean one of random directions."""
    yield lab.row("welch_bound", welch_bound(count, d), condition, control=control, n=count)
    random = random_coherence(count, d, settings.draws, lab.seed)
    yield lab.row("random_coherence", random, condition, control=control, n=settings.draws)
