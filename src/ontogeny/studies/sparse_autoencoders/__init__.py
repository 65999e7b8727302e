"""Study: do latents of sparse autoencoders that correlate with a feature of a language also cause it, and does a causal loss help?

Sparse autoencoders on formal languages (arXiv:2410.11767): brackets and expressions, whose features are known for every token.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch

from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.sae import (
    SaeBudget,
    SaeSettings,
    SparseAutoencoder,
    chunk_activations,
    read_site_tokens,
    train_autoencoders,
)
from ontogeny.sae.causal import CausalTokens, causal_loss, causal_score
from ontogeny.sae.latent_effects import (
    ClampedLatents,
    LabelledTokens,
    NaturalEffect,
    best_latent,
    clamp_curve,
    clamped_latents,
    grammatical_mass,
    next_token_shares,
)
from ontogeny.sites import Site
from ontogeny.studies.sparse_autoencoders._claims import CLAIMS
from ontogeny.studies.sparse_autoencoders._language import (
    MAIN_FEATURES,
    Settings,
    draw_tokens,
    make_world,
    token_categories,
    train_model,
    write_strings,
)

__all__ = [
    "CHALLENGES",
    "CLAIMS",
    "DIFFERENCES",
    "PAPER",
    "PICTURES",
    "PRESETS",
    "SECONDS",
    "SETUP",
    "TITLE",
    "VERSION",
    "Settings",
    "run",
]

TITLE = "Sparse autoencoders on formal languages"
PAPER = "Analyzing (In)Abilities of SAEs via Formal Languages, arXiv:2410.11767"
SETUP = """
A decoder of two blocks learns a language: nested brackets of two kinds (Dyck-2), prefix expressions, or English-like sentences whose parts
of speech the grammar knows. Sparse autoencoders of several
kinds, sizes of sparsity, scalings and seeds are trained in one pass on the stream after the first block. Latents are compared with the
features of each token; the best latent of the main feature is clamped, and the change of the next token's category is compared with the
change that goes with the feature, and with that of latents which fire as often, clamped as far. Further autoencoders are trained with the
causal loss, and on shallower brackets.
"""
DIFFERENCES = (
    "Grammaticality of an edited model is the probability of tokens that may follow, which needs one pass; free generations are only those "
    "of the model itself. English has only the latter: no rule says which single tokens may follow.",
    "An effect is compared with that of the mean difference of activations, and all clamps are as long as it; the paper has neither this "
    "ceiling nor matched latents.",
    "The patch of the causal loss is written at the token's own place, one token of a text at a time, and the partner is any token of "
    "another text: the nearest one is mostly the same word in the same place, whose logits hardly differ.",
    "Penalties are means over tokens, so that they do not depend on the batch. The learning rate is 3e-3 in place of 1e-5, with 300 steps.",
    "All three forms of the sparsemax encoder are one: sparsemax ignores a shift, and rows and input have length 1.",
)
CHALLENGES = (3,)
VERSION = 3

PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(
        steps=12, checkpoints=2, rows=4, strings=60, latents=24, sae_steps=12, batch=64, ks=(4,), penalties=(), sae_seeds=2,
        causal_steps=4, causal_rows=6, generated=16, width=32, effect_strings=30,
    ),
    "tiny": Settings(),
    "small": Settings(
        steps=3000, width=128, longest=60, context=128, strings=8000, latents=256,
        sae_steps=2000, causal_steps=1000, generated=256, effect_strings=2000,
    ),
    "paper": Settings(
        steps=100_000, rate=1e-3, rows=128, width=128, longest=118, context=256,
        strings=60_000, latents=256, sae_steps=20_000, ks=(8, 16, 32, 64, 128), causal_steps=20_000, generated=640, effect_strings=10_000,
    ),
}  # fmt: skip
SECONDS = {"smoke": 4, "tiny": 67, "small": 900, "paper": 100_000}
_LANGUAGES = ("dyck", "expressions", "english")
PICTURES = (
    StudyPicture(
        "Correlation of the best latent with each feature, over training",
        ("feature_r",),
        _LANGUAGES,
        caption="The first checkpoint is an untrained model; the dashed null run has the features of other words.",
    ),
    StudyPicture(
        "Sparsity against grammaticality of the reconstruction, a point for each kind and seed",
        ("l0", "grammatical_mass"),
        _LANGUAGES,
        points=True,
    ),
    StudyPicture(
        "Correlation against the effect of clamping, a point for each kind and seed",
        ("main_r", "effect_share"),
        _LANGUAGES,
        points=True,
        caption="Triangles are the mean difference: on the line from 0 through them an effect is what the correlation predicts.",
    ),
    StudyPicture(
        "Grammaticality where the best latent of the main feature is clamped",
        ("clamped_mass",),
        _LANGUAGES,
        x_title="clamped value, in units of the latent's largest (count)",
    ),
)
_SITE = Site("resid", 1)
_FACTORS = (-4, -2, 0, 1, 2, 4, 8)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed."""
    for place, name in enumerate(settings.languages):
        lab.on_activity(f"{name}, language model", 2 * place, 2 * len(settings.languages))
        models = train_model(settings, lab, name)
        train = draw_tokens(settings, name, lab.seed, settings.strings)
        test = draw_tokens(settings, name, lab.seed + 1000, settings.strings // 2)
        lab.on_activity(f"{name}, autoencoders", 2 * place + 1, 2 * len(settings.languages))
        yield from _model_rows(settings, lab, name, models, test)
        yield from _over_training(settings, lab, name, models, train, test)
        yield from _grid_rows(settings, lab, name, models[-1][1], train, test)
        yield from _causal_rows(settings, lab, name, models[-1][1], train, test)
        if name == "dyck":
            yield from _shift_rows(settings, lab, models[-1][1], train, test)


def grid(settings: Settings) -> dict[str, SaeSettings]:
    """Kinds of autoencoders by name; the first is that of the seeds, of the checkpoints and of the causal loss."""
    plain = SaeSettings("topk", settings.latents, k=settings.ks[-1])
    kinds = {f"topk {k}": replace(plain, k=k) for k in settings.ks[::-1]}
    kinds |= {f"relu {p:g}": SaeSettings("relu", settings.latents, penalty=p) for p in settings.penalties}
    kinds |= {
        "jumprelu": SaeSettings("jumprelu", settings.latents),
        "sparsemax": SaeSettings("sparsemax", settings.latents),
        "topk, half the latents": replace(plain, latents=settings.latents // 2),
        "topk, tokens scaled": replace(plain, input_scale="token"),
        "topk, free decoder": replace(plain, unit_decoder=False, centre_input=False, input_scale="none"),
    }
    return kinds


def _train(
    settings: Settings, model: Model, train: LabelledTokens, members: list[SaeSettings], seed: int
) -> list[SparseAutoencoder]:
    chunks = chunk_activations(model, train.rows, _SITE)
    return train_autoencoders(chunks, members, SaeBudget(settings.sae_steps, settings.batch, seed=seed))


def _model_rows(
    settings: Settings, lab: Lab, name: str, models: list[tuple[int, Model]], test: LabelledTokens
) -> Iterator[Record]:
    """Grammaticality of the model, of an untrained one, and of what the model writes."""
    reason = "no rule says which tokens may follow"
    mass = {place: grammatical_mass(next_token_shares(models[place][1], test), test) for place in (0, -1)}
    n = test.rows.tokens
    yield lab.row("grammatical_mass", mass[-1], name, n=n, reason=reason, kind="none")
    yield lab.row("chance_mass", mass[0], name, n=n, reason=reason)
    # In the null run the trained model is an untrained one.
    yield lab.row("grammatical_mass", mass[0], name, n=n, reason=reason, control="untrained", kind="none")
    yield lab.row("chance_mass", mass[0], name, n=n, reason=reason, control="untrained")
    written = {
        place: write_strings(models[place][1], make_world(settings, name), settings.generated, lab.seed)
        for place in (0, -1)
    }
    share, ended = written[-1]
    yield lab.row("grammatical_strings", share, name, n=max(ended, 1), reason="no string ended")
    for metric, place, control in (
        ("written_right", -1, None),
        ("chance_written_right", 0, None),
        ("written_right", 0, "untrained"),
        ("chance_written_right", 0, "untrained"),
    ):
        share, ended = written[place]
        right = share * ended / settings.generated if ended else 0.0
        yield lab.row(metric, right, name, n=settings.generated, control=control)


def _over_training(
    settings: Settings,
    lab: Lab,
    name: str,
    models: list[tuple[int, Model]],
    train: LabelledTokens,
    test: LabelledTokens,
) -> Iterator[Record]:
    """Correlation of the best latent of each feature at each checkpoint."""
    member = replace(next(iter(grid(settings).values())), seed=lab.seed)
    for step, model in models:
        (own,) = _train(settings, model, train, [member], lab.seed)
        latents = own.encode(read_site_tokens(model, test.rows, _SITE))
        for feature, values in test.features.items():
            best = best_latent(latents, values, test.rows.owner)
            main = "yes" if feature == MAIN_FEATURES[name] else "no"
            n = int((~values.isnan()).sum())
            for control, r in ((None, abs(best.r)), ("permuted_features", best.permuted_r)):
                yield lab.row("feature_r", r, name, step=step, n=n, control=control, feature=feature, main=main)
                if step == 0 and main == "yes":
                    yield lab.row("untrained_r", r, name, n=n, control=control)


def _grid_rows(
    settings: Settings, lab: Lab, name: str, model: Model, train: LabelledTokens, test: LabelledTokens
) -> Iterator[Record]:
    """Each kind of autoencoder: reconstruction, grammaticality, correlation, effect; and the spread over kinds and seeds."""
    kinds = grid(settings)
    first = next(iter(kinds))
    labels = [*kinds, *(f"{first}, seed {i}" for i in range(1, 2 * settings.sae_seeds))]
    members = [replace(member, seed=10 * lab.seed) for member in kinds.values()]
    members += [replace(kinds[first], seed=10 * lab.seed + i) for i in range(1, 2 * settings.sae_seeds)]
    x, main, n = read_site_tokens(model, test.rows, _SITE), MAIN_FEATURES[name], test.rows.tokens
    natural = _natural_effect(settings, name, model, test)
    ceiling = natural.share_of_step(natural.step)
    clean = grammatical_mass(next_token_shares(model, test), test)
    r, masses, best_of_all = dict[str, float](), dict[str, tuple[float, float]](), dict[str, float]()
    reason = "no rule says which tokens may follow"
    for label, own in zip(labels, _train(settings, model, train, members, lab.seed), strict=True):
        latents = own.encode(x)
        best = best_latent(latents, test.features[main], test.rows.owner)
        r[label] = abs(best.r)
        if label not in kinds:
            continue
        l0 = float((latents > 0).sum(1).float().mean())
        mass = grammatical_mass(next_token_shares(model, test, _SITE, own.reconstruct), test)
        masses[label] = (l0, mass)
        every = [best_latent(latents, values, test.rows.owner) for values in test.features.values()]
        for control, value in ((None, abs(best.r)), ("permuted_features", best.permuted_r)):
            best_of_all[str(control)] = max(best_of_all.get(str(control), 0.0), value)
        yield lab.row("l0", l0, name, n=n, kind=label)
        yield lab.row("grammatical_mass", mass, name, n=n, reason=reason, kind=label)
        yield lab.row("dead", float((latents.amax(0) <= 0).float().mean()), name, n=own.latents, kind=label)
        yield lab.row("explained", _explained(own, x), name, n=n, kind=label)
        yield lab.row("largest_r", max(abs(one.r) for one in every), name, n=n, kind=label)
        yield from _effect_rows(
            lab, name, label, clamped_latents(natural, ceiling, own, best, lab.seed), natural, ceiling
        )
        if label == first:
            fires = latents[:, best.latent]
            top = float(fires.max())
            for factor, value in clamp_curve(model, test, _SITE, own, best.latent, top, _FACTORS).items():
                yield lab.row("clamped_mass", value, name, step=factor, n=n, reason=reason)
    for control, value in ((None, best_of_all["None"]), ("permuted_features", best_of_all["permuted_features"])):
        yield lab.row("best_r", value, name, n=n, control=control)
        yield lab.row("needed_r", 0.9, name, control=control)
    ordered = sorted(masses.values())
    for metric, value in (("sparsest_mass", ordered[0][1]), ("densest_mass", ordered[-1][1])):
        yield lab.row(metric, value, name, n=n, reason=reason)
        yield lab.row(metric, clean, name, n=n, reason=reason, control="no_edit")
    seeds = [r[label] for label in labels if label.startswith(first)]
    spread = {"kinds": [r[label] for label in kinds], "seeds": seeds[: settings.sae_seeds]}
    halves = {"kinds": seeds[settings.sae_seeds :], "seeds": seeds[: settings.sae_seeds]}
    for key in spread:
        yield lab.row("r_spread", float(np.std(spread[key])), f"{name}, {key}", n=len(spread[key]))
        # In the null run both sides are seeds of one kind.
        yield lab.row("r_spread", float(np.std(halves[key])), f"{name}, {key}", n=len(halves[key]), control="one_kind")


def _natural_effect(settings: Settings, name: str, model: Model, test: LabelledTokens) -> NaturalEffect:
    few = test.first(settings.effect_strings)
    categories = token_categories(name, make_world(settings, name))
    return NaturalEffect.of(model, few, _SITE, few.features[MAIN_FEATURES[name]], categories)


def _effect_rows(
    lab: Lab, name: str, label: str, clamped: ClampedLatents, natural: NaturalEffect, ceiling: float
) -> Iterator[Record]:
    """Correlation and effect of the best latent, and of latents that fire as often and are clamped as far."""
    n, best, matched = len(natural.x), clamped.best, clamped.matched
    few, weak = "fewer than four other latents fire", "the mean difference hardly correlates with the feature"
    arms = {
        None: (best.r, best.share),
        "random_direction": (best.r, clamped.random),
        "mean_difference": (abs(natural.r), ceiling),
        "matched_latents": (_mean(one.r for one in matched), _mean(one.share for one in matched)),
    }
    for control, (r, share) in arms.items():
        yield lab.row("main_r", r, name, n=n, control=control, kind=label, reason=few)
        yield lab.row("effect_share", share, name, n=n, control=control, kind=label, reason=few)
    yield lab.row("latent_reach", clamped.reach, name, n=n, kind=label)
    yield lab.row("frequency_ratio", clamped.frequency, name, n=n, kind=label, reason=few)
    half = len(matched) // 2
    paired, stand_in = (_mean(one.shortfall for one in part) for part in (matched[:half], matched[half:]))
    shortfall = best.shortfall if matched else math.nan  # without its pairs it is left out
    reason = weak if matched else few
    yield lab.row("shortfall", shortfall, f"{name}, best latent", n=n, kind=label, reason=reason)
    yield lab.row("shortfall", paired, f"{name}, matched latents", n=n, kind=label, reason=reason)
    # In the null run other matched latents are in the place of the best one.
    yield lab.row(
        "shortfall", stand_in, f"{name}, best latent", n=n, control="other_matched_latents", kind=label, reason=reason
    )
    yield lab.row(
        "shortfall", paired, f"{name}, matched latents", n=n, control="other_matched_latents", kind=label, reason=reason
    )


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known) if known else math.nan


def _explained(autoencoder: SparseAutoencoder, x: torch.Tensor) -> float:
    error = (autoencoder.reconstruct(x) - x).square().sum()
    return 1 - float(error / (x - x.mean(0)).square().sum())


def _causal_rows(
    settings: Settings, lab: Lab, name: str, model: Model, train: LabelledTokens, test: LabelledTokens
) -> Iterator[Record]:
    """Autoencoders with and without the causal loss: their causal score, reconstruction, and the effect of the best latent."""
    few = range(min(400, len(train.rows)))
    tokens = CausalTokens.of(model, train.rows.of(few), _SITE)
    held_out = CausalTokens.of(model, test.rows.of(range(min(400, len(test.rows)))), _SITE)
    chunks = chunk_activations(model, train.rows, _SITE)
    budget = SaeBudget(settings.causal_steps, settings.batch, seed=lab.seed)
    member = replace(next(iter(grid(settings).values())), seed=20 * lab.seed)
    extra = causal_loss(tokens, settings.causal_weight, rows=settings.causal_rows, nearest_of=512, seed=lab.seed)
    (causal,) = train_autoencoders(chunks, [member], budget, extra=extra)
    plain, again = train_autoencoders(chunks, [member, replace(member, seed=member.seed + 1)], budget)
    (fresh,) = train_autoencoders(chunks, [member], SaeBudget(1, settings.batch, seed=lab.seed))
    x, main = read_site_tokens(model, test.rows, _SITE), test.features[MAIN_FEATURES[name]]
    natural = _natural_effect(settings, name, model, test)
    ceiling = natural.share_of_step(natural.step)
    for condition, own, null in (("plain", plain, plain), ("causal", causal, again)):
        stage = f"{name}, {condition}"
        # In the null run neither side has a causal loss.
        for control, one in ((None, own), ("no_causal_loss", null)):
            yield lab.row("causal_score", causal_score(held_out, one, seed=lab.seed), stage, n=256, control=control)
            yield lab.row("explained", _explained(one, x), stage, n=len(x), control=control)
        # In this null run the side with the causal loss is hardly trained.
        bare = fresh if condition == "causal" else plain
        yield lab.row("explained", _explained(bare, x), stage, n=len(x), control="one_step")
        nearest = causal_score(held_out, own, nearest_of=1, seed=lab.seed)
        yield lab.row("causal_score_nearest", nearest, stage, n=256)
        best = best_latent(own.encode(x), main, test.rows.owner)
        clamped = clamped_latents(natural, ceiling, own, best, lab.seed)
        yield lab.row("causal_main_r", abs(best.r), stage, n=len(x))
        yield lab.row("causal_effect_share", clamped.best.share, stage, n=len(natural.x))
        matched = _mean(one.share for one in clamped.matched)
        reason = "fewer than four other latents fire"
        yield lab.row("causal_effect_share", matched, stage, n=len(natural.x), control="matched_latents", reason=reason)


def _shift_rows(
    settings: Settings, lab: Lab, model: Model, train: LabelledTokens, test: LabelledTokens
) -> Iterator[Record]:
    """Autoencoders of the same model, trained on its own strings, on others of the same kind, and on shallower ones."""
    member = replace(next(iter(grid(settings).values())), seed=30 * lab.seed)
    shallow = draw_tokens(settings, "shallow dyck", lab.seed, 2 * settings.strings)
    another = draw_tokens(settings, "dyck", lab.seed + 2000, settings.strings)
    x = read_site_tokens(model, test.rows, _SITE)
    own, other, shifted = (
        _explained(_train(settings, model, tokens, [member], lab.seed)[0], x) for tokens in (train, another, shallow)
    )
    yield lab.row("explained", own, "dyck, own strings", n=len(x))
    yield lab.row("explained", shifted, "dyck, shallow strings", n=len(x))
    yield lab.row("explained", own, "dyck, own strings", n=len(x), control="same_strings")
    yield lab.row("explained", other, "dyck, shallow strings", n=len(x), control="same_strings")
