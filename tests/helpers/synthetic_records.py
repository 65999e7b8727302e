"""A synthetic table of records in the words of docs/records.md: five concepts with known histories, no model behind them.

truth emerges at 512 and is used from 4,000 on; toxicity is early but so is its TF-IDF baseline; privacy never emerges;
fairness emerges late; robustness emerges and, where there is a fine-tuning stage, is lost in it.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from ontogeny.records import RECORD_COLUMNS, Record

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000, 8000, 16000)
SFT_STEPS = (100, 200, 400, 800)
LAYERS, HEADS = 4, 4
TOKENS_A_STEP = 2_097_152
# name: (step at which it emerges, final score, best layer, TF-IDF score, step at which it is used)
CONCEPTS = {
    "truth": (512.0, 0.93, 3, 0.52, 4000.0),
    "toxicity": (96.0, 0.90, 2, 0.82, 700.0),
    "privacy": (np.inf, 0.55, 1, 0.53, np.inf),
    "fairness": (3000.0, 0.84, 4, 0.58, np.inf),
    "robustness": (240.0, 0.88, 2, 0.61, 200.0),
}

_ONE_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgAB5Sfe/AAAAABJRU5ErkJggg=="
)


def table(*, sft: bool = False, seed: int = 0) -> pd.DataFrame:
    """All rows of one trace, with every column and in the types that pandas gives them."""
    rng = np.random.default_rng(seed)
    rows = [row for concept in CONCEPTS for row in _concept(concept, _moments(sft), rng)]
    rows += [row for moment in _moments(sft)[::4] for row in _token_scores(moment)]
    rows += [row for concept in ("truth", "privacy") for row in _examples(concept, _moments(sft))]
    rows += _lenses(_moments(sft))
    rows += _autoencoders(_moments(sft))
    rows += _edits(_moments(sft)[-1])
    rows += _dialogues(_moments(sft))
    rows += [row for concept in ("truth", "privacy") for row in _mapped_vectors(concept, _moments(sft)[-1])]
    rows += [row for concept in ("truth", "privacy") for row in _siblings(concept, _moments(sft)[-1])]
    rows += [row for concept in ("truth", "privacy") for row in _gauge(concept, _moments(sft)[-1])]
    rows += _geometries(_moments(sft))
    rows += [row for moment in _moments(sft)[::5] for row in _scenes(moment)]
    rows += list(_attention_planes(_moments(sft)[-1]))
    return frame([*rows, *_between_concepts(_moments(sft)[-1], rng), *_stage_effects(_moments(sft))])


def frame(rows: list[dict]) -> pd.DataFrame:
    """Rows as a table with all columns in their order; absent coordinates are null."""
    return pd.DataFrame(
        [{**dict.fromkeys(RECORD_COLUMNS), "coords": {}, **row} for row in rows], columns=list(RECORD_COLUMNS)
    )


def as_records(rows: pd.DataFrame) -> list[Record]:
    """The rows as records, which a run can keep."""
    return [_record(row) for row in rows.to_dict("records")]


def _record(row: dict) -> Record:
    known = {name: None if value is None or value is pd.NaT or value != value else value for name, value in row.items()}
    for name, kind in RECORD_COLUMNS.items():
        if kind in ("BIGINT", "INTEGER") and known[name] is not None:
            known[name] = int(known[name])
    numbers = {name: math.nan if known[name] is None else float(known[name]) for name in ("value", "low", "high")}
    lost = math.isnan(numbers["value"])
    note = (known["note"] or "never above its floor") if lost else known["note"]
    return Record(**{**known, **numbers, "n": 0 if lost else known["n"] or 1, "note": note})


def about(*, sft: bool = False) -> dict:
    """What `run.json` says of the run."""
    return {
        "lineage": {
            "name": "tiny-neox",
            "source": "runs/tiny/checkpoints",
            "stages": ["pretrain", "sft"] if sft else ["pretrain"],
            "checkpoints": [
                {"name": f"{stage}-{step}", "stage": stage, "step": step, "tokens": tokens, "revision": f"step{step}"}
                for stage, step, tokens in _moments(sft)
            ],
        },
        "concepts": [
            {
                "name": name,
                "kind": "binary",
                "n": 400,
                "groups": 200,
                "position": "last_token",
                "source": "arXiv:2310.06824" if name == "truth" else "generated",
                "licence": "MIT",
                "hash": f"{i}f3a9c0e77b2",
                "warnings": ["TF-IDF tells the classes apart at .82"] if name == "toxicity" else [],
            }
            for i, name in enumerate(CONCEPTS)
        ],
        "settings": {
            "sites": "resid,head",
            "dtype": "float32",
            "seeds": [0, 1, 2],
            "bootstrap": 1000,
            "permutations": 500,
        },
        "versions": {"ontogeny": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.7"},
        "machine": {"cpu": "x86_64", "cores": 2, "memory_gib": 24, "accelerator": None},
        "command": "ontogeny trace runs/tiny/checkpoints --concepts truth,toxicity,privacy,fairness,robustness",
        "failures": [{"checkpoint": "step3", "reason": "weights are those of step 143000 (audit)"}],
        "ledger": {"forward_s": 41.2, "fit_s": 6.3, "statistics_s": 8.8, "tokens": 2_380_800},
    }


def _lenses(moments: list[tuple[str, int, float]]) -> Iterator[dict]:
    """Agreement of two lenses with the output, of a whole model."""
    for stage, step, tokens in moments:
        for layer in range(4):
            at = {"lineage": "tiny-neox", "train_seed": 0, "stage": stage, "step": step, "tokens": tokens}
            at |= {"site": f"resid.{layer}", "layer": layer, "n": 400}
            for method, gain in (("logit", 0.0), ("tuned", 0.15)):
                share = min(1.0, 0.1 + 0.2 * layer + gain + 0.2 * _rise(step, 200))
                yield at | {"metric": "lens_agreement", "method": method} | _around(share)
                yield at | {"metric": "lens_kl", "method": method} | _around(4 * (1 - share))


def _autoencoders(moments: list[tuple[str, int, float]]) -> Iterator[dict]:
    """Scores and matches of two autoencoders of each checkpoint, and of an untrained network."""
    for seed in (0, 1):
        same = {
            "lineage": "tiny-neox",
            "train_seed": 0,
            "site": "resid.2",
            "layer": 2,
            "method": "topk",
            "n": 128,
            "seed": seed,
        }
        same |= {"coords": {"latents": "128", "sparsity": "k 16"}}
        yield same | {"metric": "sae_l0", "control": "untrained", "value": 15.0}
        yield same | {"metric": "sae_loss_recovered", "control": "untrained", "value": 0.99}
        for stage, step, tokens in moments:
            at = same | {"stage": stage, "step": step, "tokens": tokens}
            yield at | {"metric": "sae_l0", "value": 16.0 + seed}
            yield at | {"metric": "sae_loss_recovered", "value": 0.95 + 0.04 * _rise(step, 200)}
            yield at | {"metric": "sae_births", "value": 10.0 + seed}
            for metric, control, top in (
                ("sae_matched", None, 0.6),
                ("sae_matched", "other_seed", 0.4),
                ("sae_matched", "untrained", 0.1),
                ("sae_persists", None, 0.8),
            ):
                yield at | {"metric": metric, "control": control, "value": top * _rise(step, 200)}


def _edits(moment: tuple[str, int, float]) -> Iterator[dict]:
    """An edited fact after its edit and after all: the edited model, the unedited one, and two random changes."""
    stage, step, tokens = moment
    effects = {
        "fact": {"edit_probability": 0.9, "edit_success": 1.0},
        "paraphrase": {"edit_probability": 0.6, "edit_success": 0.5},
        "neighbour": {"edit_kept": 0.8, "edit_kl": 0.3},
        "text": {"edit_kl": 0.1, "edit_loss_change": 0.05},
        "thing": {"edit_distortion": 0.2, "edit_rearrangement": 0.1, "edit_procrustes": 0.05},
    }
    for evaluated in ("after_this", "after_all"):
        about = {"fact": "1", "prompt": "the tower is in", "object": "Rome", "evaluated": evaluated}
        for kind, values in effects.items():
            for metric, value in values.items():
                at = {"lineage": "tiny-neox", "stage": stage, "step": step, "tokens": tokens, "n": 4}
                at |= {"metric": metric, "method": "rome", "coords": about | {"prompts": kind}}
                yield at | {"value": value}
                yield at | {"control": "unedited", "value": 0.0}
                for control, size in (("random_rank_one", 0.4), ("random_value", 0.7)):
                    yield at | {"control": control} | _around(size * value, 0.1 * value)


def _attention_planes(moment: tuple[str, int, float]) -> Iterator[dict]:
    """Queries and keys of two heads in a plane, one with positions and one with hues."""
    stage, step, tokens = moment
    at = {"lineage": "tiny-neox", "train_seed": 0, "stage": stage, "step": step, "tokens": tokens, "n": 1}
    for panel, tint, labels in (
        ("position, head.1.0", "position", "0123456789"),
        ("hue, head.2.1", "hue", ("red", "grey") * 5),
    ):
        for kind in ("query", "key"):
            for token, label in enumerate(labels):
                coords = {"panel": panel, "tint": tint, "label": label, "kind": kind, "token": str(token)}
                for metric, value in (("plane_x", math.cos(token)), ("plane_y", math.sin(token) + (kind == "key"))):
                    yield at | {"metric": metric, "value": value, "coords": coords}


def _scenes(moment: tuple[str, int, float]) -> Iterator[dict]:
    """Mask and depth read from the blocks of a diffusion model and from its pixels, and two pictures."""
    stage, step, tokens = moment
    at = {"lineage": "tiny-neox", "train_seed": 0, "stage": stage, "step": step, "tokens": tokens, "n": 80}
    for block, share in (("pixels", 0.1), ("down.0", 0.3), ("mid", 0.6), ("up.0", 0.9)):
        for denoising in range(4):
            place = {"coords": {"block": block, "denoising": str(denoising)}}
            score = share * _rise(step, 300) * (0.5 + denoising / 6)
            for metric, value in (("mask_dice", score), ("depth_rank", score), ("depth_error", 0.3 - 0.2 * score)):
                yield at | place | {"metric": metric} | _around(value)
                if block != "pixels":
                    yield at | place | {"metric": f"{metric}_gain"} | _around(score - 0.2, 0.1)
    for image, number in itertools.product((1, 2), range(12)):
        coords = {"image": str(image), "place": str(number), "name": f"step {number}", "picture": _ONE_PIXEL}
        yield at | {"metric": "picture", "value": 1.0, "n": 1, "coords": coords}
        coords = {"image": "1", "name": f"way {number}", "picture": _ONE_PIXEL}
        yield at | {"metric": "generated_image", "value": 1.0, "n": 1, "coords": coords}
    for control, most in (({}, 0.9), ({"control": "linear theory"}, 1.2)):
        for metric, at_step in (("path_colour", 300), ("path_size", 2000)):
            yield at | control | {"metric": metric, "value": most * _rise(step, at_step), "n": 16}


def _mapped_vectors(concept: str, moment: tuple[str, int, float]) -> Iterator[dict]:
    """Effect of a vector in another model, by map and dose."""
    stage, step, tokens = moment
    at = {"lineage": "tiny-neox", "concept": concept, "stage": stage, "step": step, "tokens": tokens, "n": 40}
    at |= {"metric": "mapped_dose_effect", "method": "mass_mean", "site": "resid.2", "layer": 2}
    for dose in (0.25, 0.5, 1.0, 2.0, 4.0):
        for name, slope in (("native", 2.0), ("identity", 0.0), ("embeddings", 0.3), ("activations", 1.2)):
            row = at | {"coords": {"map": name, "dose": f"{dose:g}", "outcome": "answers", "onto": "wide-neox"}}
            yield row | _around(slope * dose)
            if name in ("embeddings", "activations"):
                yield row | {"control": "shuffled_map"} | _around(0.1 * dose)


def _geometries(moments: list[tuple[str, int, float]]) -> Iterator[dict]:
    """Similarity of a model to its last checkpoint and to another model, its dimension, and their nulls."""
    for stage, step, tokens in moments:
        at = {"lineage": "tiny-neox", "train_seed": 0, "stage": stage, "step": step, "tokens": tokens, "n": 300}
        shared = 0.8 * _rise(step, 300)
        for space in ("embedding", "unembedding"):
            for against, other in (("last", "tiny-neox"), ("model", "wide-neox")):
                place = {"space": space, "against": against, "other_model": other}
                for metric, method, share in (
                    ("embedding_similarity", "pearson", 1.0),
                    ("local_similarity", "lle", 0.6),
                ):
                    row = at | {"metric": metric, "method": method, "coords": place | {"form": "centred"}}
                    yield row | _around(share * shared)
                    yield row | {"control": "frequency_matched"} | _around(0.2 * shared)
            row = at | {"metric": "intrinsic_dimension", "method": "two_nn", "coords": {"space": space}}
            yield row | _around(20 - 10 * shared)
            yield row | {"control": "gaussian"} | _around(30)
        for layer in range(4):
            place = {"form": "centred", "depth": f"{layer / 3:.3g}", "against": "model", "other_model": "wide-neox"}
            row = at | {"metric": "hidden_similarity", "method": "pearson", "site": f"resid.{layer}", "layer": layer}
            yield row | {"coords": place} | _around(shared * (1 - 0.2 * layer))


def _dialogues(moments: list[tuple[str, int, float]]) -> Iterator[dict]:
    """Adherence of a chat model over a dialogue, under three mitigations, of all instructions together."""
    for stage, step, tokens in moments[-2:]:
        at = {"lineage": "tiny-neox", "train_seed": 0, "stage": stage, "step": step, "tokens": tokens, "n": 48}
        for method, gain in (("plain", 0.0), ("split_softmax .7", 0.2), ("guidance 1.5", 0.1)):
            at |= {"method": method, "coords": {}}
            for number in range(0, 9, 2):
                here = at | {"coords": {"rounds": str(number), "history_tokens": str(40 + 60 * number)}}
                kept = min(1.0, 0.9 - 0.05 * number + gain * number / 8)
                yield here | {"metric": "adherence"} | _around(kept)
                yield here | {"metric": "instruction_recall"} | _around(0.9)
                yield here | {"metric": "adoption"} | _around(0.1 + 0.03 * number)
                yield here | {"metric": "adoption", "control": "stranger"} | _around(0.1)
                if method == "plain":
                    yield here | {"metric": "adherence", "control": "one_turn"} | _around(0.85)
                    yield here | {"metric": "attention_mass"} | _around(0.5 / (1 + number))
            yield at | {"metric": "adherence_change"} | _around(-0.4 + gain)
            yield at | {"metric": "capability_margin"} | _around(3 - 2 * gain)


def _gauge(concept: str, moment: tuple[str, int, float]) -> Iterator[dict]:
    """A gauge of a pack: calibration of its percentage, and its control vector, which works for the first concept only."""
    stage, step, tokens = moment
    at = {"lineage": "tiny-neox", "train_seed": 0, "stage": stage, "step": step, "tokens": tokens, "n": 24}
    at |= {"concept": concept, "site": "resid.3", "layer": 3}
    works = concept == "truth"
    for confidence in (0.6, 0.75, 0.9):
        own = {"metric": "gauge_reliability", "method": "platt", "coords": {"confidence": str(confidence)}}
        yield at | own | _around(confidence - 0.05, 0.1)
    yield at | {"metric": "gauge_ece", "method": "platt", "value": 0.08}
    yield at | {"metric": "gauge_ece", "method": "platt", "control": "calibrated", "value": 0.15}
    yield at | {"metric": "gauge_control_works", "method": "mass_mean", "value": float(works)}
    for towards in ("no", "yes"):
        own = {"metric": "gauge_control_effect", "coords": {"towards": towards, "site": "resid.3"}}
        yield at | own | {"method": "mass_mean"} | _around(3.0 if works else 0.4, 0.3)
        yield at | own | {"method": "logistic", "value": 1.0}
        yield at | own | {"method": "mass_mean", "control": "random_direction"} | _around(0.1, 1.5)


def _moments(sft: bool) -> list[tuple[str, int, float]]:
    first = [("pretrain", step, float(step * TOKENS_A_STEP)) for step in STEPS]
    end = first[-1][2]
    return first + [("sft", step, end + step * 65_536.0) for step in SFT_STEPS] if sft else first


def _rise(step: float, at: float, width: float = 0.6) -> float:
    return 0.0 if np.isinf(at) else float(1 / (1 + np.exp(-(np.log2(step + 1) - np.log2(at + 1)) / width)))


def _concept(concept: str, moments: list[tuple[str, int, float]], rng: np.random.Generator) -> Iterator[dict]:
    at, final, best, tfidf, used = CONCEPTS[concept]
    whole = {"lineage": "tiny-neox", "concept": concept, "train_seed": 0, "n": 120, "split": "test", "seed": 0}
    last_stage, last_step, last_tokens = moments[-1]
    end = whole | {"stage": last_stage, "step": last_step, "tokens": last_tokens}
    for control, value in (("surface_tfidf", tfidf), ("surface_length", 0.51), ("surface_casing", 0.50)):
        yield whole | {"metric": "auroc", "method": "logistic", "control": control} | _around(value)
    for stage, step, tokens in moments:
        lost = 0.8 * _rise(step, 200, 0.3) if stage == "sft" and concept == "robustness" else 0.0
        grown = (1.0 if stage == "sft" and not np.isinf(at) else _rise(step, at)) * (1 - lost)
        now = whole | {"stage": stage, "step": step, "tokens": tokens, "revision": f"step{step}"}
        for layer in range(LAYERS + 1):
            score = 0.5 + (final - 0.5) * grown * np.exp(-((layer - best) ** 2) / 6) + rng.normal(0, 0.008)
            cell = now | {"site": f"resid.{layer}", "layer": layer, "position": "last_token"}
            yield from _cell(cell, float(np.clip(score, 0, 1)), layer, grown, step, rng)
        for layer in range(1, LAYERS + 1):
            for head in range(HEADS):
                skill = 0.8 if (layer, head) == (best, (3 * best) % HEADS) else 0.25 * ((layer * 7 + head * 5) % 4) / 3
                score = 0.5 + (final - 0.5) * grown * skill + rng.normal(0, 0.012)
                cell = now | {"site": f"head.{layer}.{head}", "layer": layer, "head": head, "position": "last_token"}
                yield cell | {"metric": "auroc", "method": "logistic"} | _around(float(np.clip(score, 0, 1)))
                yield cell | {"metric": "p_familywise", "method": "logistic", "value": _p(score)}
        behave = 1.0 if stage == "sft" and not np.isinf(used) else _rise(step, used)
        yield now | {"metric": "answer_accuracy", "method": "likelihood"} | _around(0.5 + 0.4 * behave, 0.05)
        yield now | {"metric": "answer_margin", "method": "likelihood"} | _around(-0.05 + 2.1 * behave, 0.2)
    if concept == "truth":
        yield from _steered(end | {"site": f"resid.{best}", "layer": best}, grown)
    yield from _series(end | {"site": f"resid.{best}", "layer": best}, concept, moments, rng)
    if concept in ("truth", "privacy"):
        yield from _knowledge(whole, moments)
    if concept == "truth":
        yield from _stages(whole, moments)
        yield from _truthful(whole, moments)
        yield from _weight_changes(whole, moments)


def _stages(whole: dict, moments: list[tuple[str, int, float]]) -> Iterator[dict]:
    """Refusing and confidence at three checkpoints: the first one's vector works in the last no better than chance."""
    chosen = [moments[0], moments[len(moments) // 2], moments[-1]]
    for i, (stage, step, tokens) in enumerate(chosen):
        now = whole | {"stage": stage, "step": step, "tokens": tokens}
        for metric, value in (("entropy", 3 - i), ("top_probability", 0.2 + i / 4), ("ece", 0.2 - i / 20)):
            yield now | {"metric": metric} | _around(value)
        yield now | {"metric": "ece", "control": "calibrated"} | _around(0.03, 0.02)
        for low in (0.5, 0.7, 0.9):
            middle = {"confidence": str(low + 0.05), "from": str(low), "to": str(low + 0.1)}
            yield now | {"metric": "reliability", "coords": middle} | _around(low - 0.05 * (2 - i))
        for neuron in range(20):
            coords = {"neuron": str(neuron), "candidate": "variance" if neuron < 3 else ""}
            yield now | {"metric": "neuron_norm", "value": 3.0 - neuron / 10, "coords": coords}
            yield now | {"metric": "logit_variance", "value": 0.001 * (1 + neuron), "coords": coords}
        yield now | {"metric": "entropy_neurons", "value": 1.0, "coords": {"neurons": "0"}}
        for act in ("ablation", "addition"):
            of = {"act": act, "of": "log_odds", "q2_5": "-0.5", "q97_5": "0.5"}
            yield now | {"metric": "refusal_effect", "control": "random_direction", "coords": of} | _around(0.05)
        for j, (other_stage, other_step, _) in enumerate(chosen):
            other = {"other_stage": other_stage, "other_step": str(other_step)}
            for held in ("shared", "own"):
                control = "split_half" if i == j else None
                yield (
                    now
                    | {"metric": "refusal_cosine", "control": control, "coords": {**other, "held": held}}
                    | _around(0.9 - 0.3 * abs(i - j))
                )
            for act, sign in (("ablation", -1), ("addition", 1)):
                of = {**other, "act": act, "of": "log_odds"}
                yield now | {"metric": "refusal_effect", "coords": of} | _around(sign * i * (2 - abs(i - j)), 0.2)
                if i != j:
                    form = {"form": "above_random", "way": "forward" if j < i else "backward"}
                    yield now | {"metric": "refusal_transfer", "coords": {**of, **form}} | _around(1 - abs(i - j) / 2)
            if i != j:
                yield now | {"metric": "neuron_overlap", "value": 0.5, "coords": {**other, "by": "variance"}}
                yield now | {"metric": "swap_share", "coords": {**other, "of": "entropy"}} | _around(0.1)


def _weight_changes(whole: dict, moments: list[tuple[str, int, float]]) -> Iterator[dict]:
    """What training did to the weights between the first checkpoint and two later ones, beside changes of equal size."""
    chosen = [moments[0], moments[len(moments) // 2], moments[-1]]
    (first_stage, first_step, _), *_ = chosen
    for i, (stage, step, tokens) in enumerate(chosen):
        now = whole | {"stage": stage, "step": step, "tokens": tokens}
        for layer in (1, 2):
            at = now | {"site": f"resid.{layer}", "layer": layer, "metric": "cluster_separation"}
            yield at | _around(0.3 * i * layer, 0.1)
            yield at | {"control": "shuffled_label"} | _around(0.0, 0.2)
        for metric, value in (("shown", 0.5), ("few_shot", 0.7), ("steered", 0.6), ("readable", 0.8)):
            yield now | {"metric": f"{metric}_accuracy"} | _around(value + 0.05 * i)
            if metric != "shown":
                null = {"readable": "shuffled_label", "steered": "random_direction"}.get(metric, "wrong_examples")
                yield now | {"metric": f"{metric}_accuracy", "control": null} | _around(0.5)
                yield now | {"metric": f"{metric}_gain"} | _around(value - 0.5)
            if i == len(chosen) - 1:
                yield now | {
                    "metric": f"{metric}_step",
                    "value": 100 * value,
                    "low": 80 * value,
                    "high": 150 * value,
                    "n": 40,
                }
                if metric != "shown":
                    yield now | {"metric": f"{metric}_minus_shown"} | _around(0.5 - value, 0.1)
        if not i:
            continue
        pair = {"other_stage": first_stage, "other_step": str(first_step)}
        for layer in (1, 2):
            for matrix in ("attn.c_attn", "mlp.c_fc"):
                at = now | {"site": f"mlp.{layer}", "layer": layer, "coords": pair | {"matrix": matrix}}
                yield at | {"metric": "weight_change_norm", "value": 0.1 * i}
                for control, share in ((None, 0.2), ("gaussian", 0.7)):
                    rank = {"coords": pair | {"matrix": matrix, "share": str(share)}, "control": control}
                    yield at | {"metric": "weight_change_rank", "value": 32 * share} | rank
                for metric in ("column_alignment", "row_alignment", "response_ratio"):
                    yield at | {"metric": metric} | _around(0.6 - 0.1 * layer)
                    yield at | {"metric": metric, "control": "random_change"} | _around(0.4)
                    yield at | {"metric": metric, "control": "neutral_gradient", "value": 0.5}
            for kind, sign in (("harmful", 1), ("harmless", 0)):
                patch = now | {"site": f"mlp.{layer}", "layer": layer, "coords": pair | {"kind": kind}}
                for control, effect in ((None, sign * layer), ("random_direction", 0.1)):
                    for metric, sign in (("mlp_patch_effect", 1), ("mlp_restore_effect", -1)):
                        yield patch | {"metric": metric, "control": control} | _around(sign * effect, 0.2)
        for kind, sign in (("harmful", 1), ("harmless", 0)):
            of = now | {"coords": pair | {"kind": kind}}
            for control, change in ((None, -sign), ("random_change", 0.1), ("neutral_gradient", 0.2)):
                yield of | {"metric": "jacobian_change", "control": control} | _around(change, 0.1)
                for alpha in (0.0, 0.5, 1.0):
                    for parts in ("all", "matrices")[control is not None :]:
                        coords = pair | {"kind": kind, "alpha": f"{alpha:g}", "parts": parts}
                        odds = now | {"metric": "interpolated_log_odds", "control": control, "coords": coords}
                        yield odds | _around(4 * sign * alpha * (control is None) - 2)
                        if kind == "harmful":
                            coords = pair | {"alpha": f"{alpha:g}", "parts": parts}
                            value = {"value": 2 + alpha / 10, "coords": coords, "control": control}
                            yield now | {"metric": "interpolated_loss"} | value


def _truthful(whole: dict, moments: list[tuple[str, int, float]]) -> Iterator[dict]:
    """Directions of truth at three checkpoints: alike, read by each other's probes, pushed along each other's vectors."""
    chosen = [moments[0], moments[len(moments) // 2], moments[-1]]
    for i, (stage, step, tokens) in enumerate(chosen):
        now = whole | {
            "stage": stage,
            "step": step,
            "tokens": tokens,
            "site": "resid.3",
            "layer": 3,
            "method": "mass_mean",
        }
        for j, (other_stage, other_step, _) in enumerate(chosen):
            other = {"other_stage": other_stage, "other_step": str(other_step)}
            yield (
                now
                | {"metric": "stage_cosine", "coords": other | {"chance": "0.12", "plain": "0.9"}}
                | _around(1 - 0.2 * abs(i - j))
            )
            yield now | {"metric": "stage_auroc", "coords": other} | _around(0.6 + 0.15 * min(i, j))
            for length in ("source", "target"):
                yield now | {"metric": "push_effect", "coords": other | {"length": length}} | _around(0.4 * min(i, j))
            yield now | {"metric": "push_effect", "control": "random_direction", "coords": other} | _around(0.01)
            yield now | {"metric": "nie", "coords": other | {"way": "mean", "form": "full"}} | _around(0.45 * min(i, j))
        yield now | {"metric": "stage_cosine", "control": "split_half", "coords": other} | _around(0.97)
        for example in range(12):
            told = {
                "example": str(example),
                "label": "true" if example % 2 else "false",
                "text": f"statement {example}",
            }
            for axis, value in (("direction", (example % 2 - 0.5) * i + example / 20), ("beside", example % 5)):
                yield now | {
                    "metric": "stage_projection",
                    "value": float(value),
                    "n": 1,
                    "coords": told | {"axis": axis},
                }


def _knowledge(whole: dict, moments: list[tuple[str, int, float]]) -> Iterator[dict]:
    """Maps of patching at three checkpoints, and what became of their places: a subject handed on to the last token."""
    chosen = [moments[0], moments[len(moments) // 2], moments[-1]]
    for i, (stage, step, tokens) in enumerate(chosen):
        now = whole | {"stage": stage, "step": step, "tokens": tokens, "split": "all", "method": "patch"}
        for layer in range(LAYERS + 1):
            for at, position in enumerate(("subject_last", "last")):
                cell = now | {"site": f"resid.{layer}", "layer": layer, "position": position}
                effect = i / 2 * (1 - layer / LAYERS if position == "subject_last" else layer / LAYERS)
                note = None if 0 < layer < LAYERS else "so by construction, whatever the model has learned"
                yield cell | {"metric": "patch_effect", "coords": {"place": f"{at}"}, "note": note} | _around(effect)
                for j, (other_stage, other_step, _) in enumerate(chosen[:i]):
                    other = {"place": f"{at}", "other_stage": other_stage, "other_step": str(other_step)}
                    changed = {"metric": "patch_effect_difference", "coords": other}
                    yield cell | changed | _around(effect * (i - j) / 2)
                    crossed = {"metric": "cross_effect", "method": "cross_patch", "coords": other}
                    yield cell | crossed | _around(0.9 * effect)
        for j, (other_stage, other_step, _) in enumerate(chosen[:i]):
            other = {"other_stage": other_stage, "other_step": str(other_step)}
            for name, value in (("kept", 0.5), ("adapted", 0.25), ("new", 0.25), ("lost", 0.1), ("transfer", 0.8)):
                fate = {"metric": f"knowledge_{name}", "method": "cross_patch", "coords": other}
                yield now | fate | _around(value + 0.05 * j)


def _steered(end: dict, grown: float) -> Iterator[dict]:
    """An evaluation of two vectors and a head method at the last checkpoint."""
    for method, axis, choices, gain in (
        ("tracing_vector", "site", ("resid.2", "resid.3"), 2.0),
        ("caa", "site", ("resid.2", "resid.3"), 0.4),
        ("iti", "k", ("1", "4"), -0.5),
    ):
        now = end | {"method": method}
        chosen = {axis: choices[1]}
        yield now | {"metric": "chosen_alpha", "value": 2.0, "coords": chosen, "note": "chosen on development"}
        yield now | {"metric": "steering_works", "value": float(gain > 1), "coords": {**chosen, "alpha": "2"}}
        for i, choice in enumerate(choices):
            for alpha in (0.0, 1.0, 2.0, 4.0):
                coords = {axis: choice, "alpha": f"{alpha:g}"}
                effect = _around(gain * grown * alpha * (i + 1) / 2, 0.3 if alpha else 0.0)
                yield now | {"metric": "steering_effect", "split": "development", "coords": coords} | effect
                yield now | {"metric": "neutral_kl", "split": "all", "coords": coords} | _around(0.05 * alpha**2, 0.01)
                if choice != choices[1]:
                    continue
                yield now | {"metric": "steering_effect", "coords": coords} | effect
                for control, half in (("random_direction", 0.5), ("shuffled_label", 0.8)) if alpha else ():
                    null = now | {"metric": "steering_effect", "control": control, "coords": coords}
                    yield null | _around(0.0, half * alpha)
        at = {**chosen, "alpha": "2", "kl": "0.2"}
        yield now | {"metric": "effect_at_equal_kl", "coords": at} | _around(gain * grown, 0.3)
        for metric in ("promote", "suppress"):
            yield now | {"metric": metric, "coords": {**chosen, "alpha": "2", "share": "0.25"}} | _around(gain)
        for item in range(12):
            for side, sign in (("matching", 1), ("other", -1)):
                told = {**chosen, "alpha": "2", "item": str(item), "side": side, "prompt": "Is it?", "text": " yes"}
                row = now | {"metric": "item_nats", "coords": told}
                yield row | {"control": "unsteered", "value": -0.3 * item - 1}
                yield row | {"value": -0.3 * item - 1 + sign * gain * grown}
    prompt = end | {"method": "prompt", "metric": "steering_effect", "control": "prompt_only"}
    yield prompt | {"coords": {"text": "Is it true? Yes."}} | _around(0.7, 0.2)
    for arm, value in (("unsteered", 1.1), ("tracing_vector", 1.6), ("control of tracing_vector", 1.2)):
        for asked in ("Is it?", "Was it?"):
            told = {"arm": arm, "prompt": asked, "text": " It is true that it is."}
            yield end | {"metric": "sample_surprise", "method": arm, "split": "all", "coords": told, "value": value}


def _siblings(concept: str, moment: tuple[str, int, float]) -> Iterator[dict]:
    """What two vectors leave and remove in models that differ in the share of some data."""
    stage, step, tokens = moment
    row = {"lineage": "tiny-neox", "train_seed": 0, "stage": stage, "step": step, "tokens": tokens, "concept": concept}
    row |= {"split": "test", "n": 40, "unit": "siblings"}
    for method, gain in (("caa", 1.0), ("iti", 0.6)):
        for share in (0.0, 0.1, 0.25):
            before, told = 0.2 + 2 * share, {"data_share": f"{share:g}", "site": "resid.2"}
            own = row | {"method": method, "metric": "unwanted_share"}
            start = {"control": "unsteered", "coords": told | {"alpha": "0", "cost": "0"}}
            yield own | start | _around(before)
            for alpha, cost in ((1, 0.05), (2, 0.2)):
                at = told | {"alpha": f"{alpha}", "cost": f"{cost}"}
                yield own | {"coords": at} | _around(before / (1 + gain * alpha))
                yield own | {"control": "random_direction", "coords": at} | _around(before)
            at = told | {"alpha": "1.4", "cost": "0.1", "kl": "0.1"}
            removed = row | {"method": method, "metric": "removed_share", "coords": at}
            yield removed | _around(gain * (0.3 + share))
            yield removed | {"control": "random_direction"} | _around(0.0)
        trend = row | {"method": method, "metric": "share_trend", "value": 1.0, "note": "It rises."}
        yield trend | {"coords": {"of": "removed", "siblings": "3", "p": "0.333", "q": "0.5"}}


def _token_scores(moment: tuple[str, int, float]) -> Iterator[dict]:
    """A text that is read token by token."""
    stage, step, tokens = moment
    row = {"lineage": "tiny-neox", "train_seed": 0, "stage": stage, "step": step, "tokens": tokens, "concept": "truth"}
    row |= {"site": "resid.3", "layer": 3, "method": "mass_mean", "metric": "token_score"}
    for place, word in enumerate(("Oslo", " is", " in", " Norway", ".")):
        told = {"text": "0", "token": f"{place}", "word": word}
        yield row | {"coords": told, "value": (place - 2.0) * math.log1p(step), "n": 1}


def _examples(concept: str, moments: list[tuple[str, int, float]]) -> Iterator[dict]:
    """Scores of twelve texts, of which the last one stays wrong, and their places in the plane of the last probe."""
    row = {"lineage": "tiny-neox", "train_seed": 0, "concept": concept, "site": "resid.3", "layer": 3, "n": 1}
    for example in range(12):
        told = {"example": f"{example}", "target": f"{example % 2}", "label": "true" if example % 2 else "false"}
        sign = (1 if example % 2 else -1) * (-1 if example == 11 else 1)
        own = row | {"coords": told}
        for number, (stage, step, tokens) in enumerate(moments):
            at = own | {"stage": stage, "step": step, "tokens": tokens}
            grown = sign * (math.log1p(step) - 3.0 + 0.1 * example)
            yield at | {"metric": "example_score", "method": "logistic", "value": grown}
            if number % 4 == 0:
                yield at | {"metric": "plane_probe", "method": "mass_mean", "value": grown}
                yield at | {"metric": "plane_orthogonal", "method": "mass_mean", "value": 0.3 * example}
        more = {"text": f"The statement {example} is long."} | ({"rank": "0"} if example == 11 else {})
        known = {"metric": "example_wrong", "method": "logistic", "value": 0.8, "n": len(moments)}
        yield own | known | {"coords": told | more}
    end = {"stage": moments[-1][0], "step": moments[-1][1], "metric": "example_errors", "method": "logistic"}
    yield row | end | {"value": 1.0, "n": 12}
    for stage, step, tokens in moments[::4]:
        at = {"stage": stage, "step": step, "tokens": tokens, "metric": "plane_auroc", "method": "mass_mean"}
        yield row | at | {"value": 0.9}


def _cell(cell: dict, score: float, layer: int, grown: float, step: int, rng: np.random.Generator) -> Iterator[dict]:
    noise = float(rng.normal(0, 0.006))
    for method, less in (("logistic", 0.0), ("mass_mean", 0.015)):
        yield cell | {"metric": "auroc", "method": method} | _around(score - less)
        yield cell | {"metric": "accuracy", "method": method} | _around(0.5 + 0.85 * (score - less - 0.5))
    for percent, less in ((1, 0.9), (5, 0.7)):
        caught = {"metric": f"tpr_at_{percent}_fpr", "method": "logistic", "coords": {"at": f"{percent / 100:g}"}}
        yield cell | caught | _around(max(0.02, 1 - 2 * less * (1 - score)))
    yield cell | {"metric": "accuracy", "method": "logistic", "control": "control_task"} | _around(0.53 + noise)
    yield cell | {"metric": "auroc", "method": "logistic", "control": "leace"} | _around(0.5 + noise)
    random = {"value": 0.52, "low": 0.46, "high": 0.58 + noise}
    yield cell | {"metric": "auroc", "method": "random", "control": "random_direction"} | random
    if step == 0:
        bare = {k: v for k, v in cell.items() if k not in ("stage", "step", "tokens", "revision")}
        yield bare | {"metric": "auroc", "method": "logistic", "control": "untrained"} | _around(0.5 + noise)
    if cell["concept"] in ("truth", "robustness"):  # as of twins
        yield cell | {"metric": "flip_rate", "method": "logistic"} | _around(0.5 - 0.4 * grown)
        yield cell | {"metric": "perturbed_drop", "method": "logistic"} | _around(0.1 * grown + noise)
    for unit, name in ((1.0, "fragility"), (0.3, "fragility_absolute")):
        borne = max(0.0, 8 * (score - 0.55))
        yield (
            cell
            | {"metric": name, "method": "logistic"}
            | {"value": unit * borne, "low": unit * borne * 0.8, "high": unit * borne * 1.3}
        )
    yield cell | {"metric": "selectivity", "method": "logistic", "value": score - 0.53}
    yield cell | {"metric": "cv_score", "method": "logistic", "split": "train", "value": score + noise}
    yield cell | {"metric": "p_familywise", "method": "logistic", "value": _p(score)}
    yield cell | {"metric": "q", "method": "logistic", "value": min(1.0, 0.6 * _p(score))}
    yield cell | {"metric": "nats_bound", "method": "logistic", "value": 0.69 * (2 * score - 1) ** 2}
    fit, squeeze = _rise(step, 300, 1.0), _rise(step, 3000, 0.7)
    tx, ty = 0.25 + 0.5 * fit - 0.28 * squeeze - 0.02 * layer, 0.08 + 0.7 * (score - 0.5) * 1.6
    for kernel, scale in (("gaussian_50", 1.0), ("linear", 0.8)):
        yield cell | {"metric": "nhsic_tx", "method": kernel} | _around(scale * tx + noise, 0.02)
        yield cell | {"metric": "nhsic_ty", "method": kernel} | _around(scale * ty + noise, 0.02)
        yield cell | {"metric": "nhsic_ty", "method": kernel, "control": "shuffled", "value": 0.07, "high": 0.1}
    yield cell | {"metric": "effective_dimension", "method": "gaussian_50", "value": 6 + 26 * fit - 9 * squeeze + layer}
    yield cell | {"metric": "participation_ratio", "method": "pca", "value": 5 + 17 * fit - 7 * squeeze + layer}
    for rank in range(1, 6):
        share = (0.42 - 0.22 * fit + 0.12 * squeeze) * 0.55 ** (rank - 1)
        yield cell | {"metric": "variance_share", "method": "pca", "value": share, "coords": {"rank": str(rank)}}


def _series(end: dict, concept: str, moments: list[tuple[str, int, float]], rng: np.random.Generator) -> Iterator[dict]:
    at, _, best, _, used = CONCEPTS[concept]
    fit = end | {"method": "logistic"}
    yield fit | {
        "metric": "best_site",
        "value": float(best),
        "split": "train",
        "stage": None,
        "step": None,
        "tokens": None,
    }
    for form, shift in (("half", 1.0), ("threshold", 1.3)):
        of = {"form": form, "of": "auroc"}
        event = fit | {"metric": "emergence_step", "coords": of, "stage": "pretrain", "step": None}
        if np.isinf(at):
            yield event | {"value": np.nan, "n": 0, "note": "the final score is not above its floor (p = .31)"}
        else:
            yield event | {"value": at * shift, "low": at * shift / 1.6, "high": at * shift * 1.5}
    lost = concept == "robustness" and end["stage"] == "sft"
    gone = {"value": 200.0, "low": 100.0, "high": 400.0} if lost else {"value": np.nan, "n": 0, "note": "never lost"}
    yield fit | {"metric": "loss_step", "coords": {"form": "half", "of": "auroc"}} | gone
    behaviour = end | {
        "metric": "used_step",
        "method": "likelihood",
        "site": None,
        "layer": None,
        "stage": "pretrain",
        "step": None,
    }
    both = end | {"metric": "readable_minus_used", "method": "logistic"}
    if np.isinf(used):
        yield behaviour | {"value": np.nan, "n": 0, "note": "the behaviour does not end above chance"}
        yield both | {"value": np.nan, "n": 0, "note": "one of the two events is censored"}
    else:
        gap = float(np.log2(at + 1) - np.log2(used + 1))
        yield behaviour | {"value": used, "low": used / 1.5, "high": used * 1.7, "coords": {"form": "half"}}
        yield both | {"value": gap, "low": gap - 0.9, "high": gap + 0.9}
    turn = end | {"metric": "change_point", "method": "gaussian_50"}
    verdict = {"of": "nhsic_tx", "verdict": "fitting then compression"}
    yield (
        turn | {"value": 1700.0, "low": 1000.0, "high": 3100.0, "coords": verdict} | {"stage": "pretrain", "step": None}
    )
    for i, (stage, step, tokens) in enumerate(moments[-6:]):
        now = fit | {"stage": stage, "step": step, "tokens": tokens}
        for j, (source_stage, source_step, _) in enumerate(moments[-6:]):
            frozen = {"at": "0.05", "source_stage": source_stage, "source_step": str(source_step)}
            yield now | {"metric": "realised_fpr", "coords": frozen} | _around(0.05 + 0.06 * abs(i - j), 0.02)
            yield now | {"metric": "realised_tpr", "coords": frozen} | _around(0.4 + 0.05 * i, 0.08)
            carried = {"source_stage": source_stage, "source_step": str(source_step)}
            moved = now | {"method": "mass_mean", "coords": carried | {"outcome": "answers", "length": "target"}}
            yield now | {"metric": "transfer_auroc", "coords": carried} | _around(0.95 - 0.06 * abs(i - j), 0.03)
            yield moved | {"metric": "transfer_cosine", "value": 1 - 0.12 * abs(i - j), "coords": carried}
            yield moved | {"metric": "transfer_effect"} | _around(0.3 * min(i, j), 0.2)
            yield moved | {"metric": "transfer_cost"} | _around(0.05 * i, 0.02)
        null = now | {"method": "mass_mean", "coords": {"outcome": "answers", "length": "target"}}
        yield null | {"metric": "transfer_effect", "control": "random_direction"} | _around(0.0, 0.4)
        for k in (1, 2, 4):
            averaged = null["coords"] | {"average_of": str(k), "rule": "last"}
            yield null | {"metric": "transfer_effect", "coords": averaged} | _around(0.2 * k, 0.2)
    place = [np.log2(step + 1) + (14.5 if stage == "sft" else 0) for stage, step, _ in moments]
    for i, (stage, step, tokens) in enumerate(moments):
        now = end | {"stage": stage, "step": step, "tokens": tokens, "method": "mass_mean"}
        for j, (other_stage, other_step, _) in enumerate(moments):
            near = 0.03 + 0.95 * np.exp(-abs(place[i] - place[j]) / 3) * _rise(min(place[i], place[j]), 5, 0.35)
            coords = {"other_step": str(other_step), "other_stage": other_stage}
            value = 1.0 if i == j else float(near + rng.normal(0, 0.01))
            yield now | {"metric": "cosine", "value": value, "coords": coords}
            if j == len(moments) - 1:
                yield now | {"metric": "cosine_final", "value": value}


def _between_concepts(moment: tuple[str, int, float], rng: np.random.Generator) -> Iterator[dict]:
    stage, step, tokens = moment
    angles = rng.normal(size=(len(CONCEPTS), 3)) + np.array([0.7, 0.0, 0.0])
    units = angles / np.linalg.norm(angles, axis=1, keepdims=True)
    for i, concept in enumerate(CONCEPTS):
        for j, other in enumerate(CONCEPTS):
            yield {
                "lineage": "tiny-neox", "stage": stage, "step": step, "tokens": tokens, "train_seed": 0,
                "concept": concept, "site": "resid.3", "layer": 3, "method": "mass_mean", "metric": "cosine",
                "value": float(units[i] @ units[j]), "n": 120, "split": "test", "coords": {"other_concept": other},
            }  # fmt: skip


def _stage_effects(moments: list[tuple[str, int, float]]) -> Iterator[dict]:
    coords = {"behaviour": "margin:truth", "unit": "nats", "question": "updates skipped"}
    about = {"lineage": "tiny-neox", "n": 100, "seed": 0, "train_seed": 0}
    stages = dict.fromkeys(stage for stage, *_ in moments)
    tiers = ("telescoping", "endpoint", "subtraction", "addition", "linearised", "retraining")
    behaviours = ("margin:truth", "margin:privacy", "loss:neutral", "loss:groups")
    for stage, behaviour, (i, tier) in itertools.product(stages, behaviours, enumerate(tiers)):
        interval = _around(0.5 + i / 10) if tier != "linearised" else {"value": 0.9}
        yield {
            **about, "stage": stage, "concept": "truth", "method": tier, "metric": "stage_effect",
            "coords": {**coords, "behaviour": behaviour}, **interval,
        }  # fmt: skip
    for stage, step, _ in moments:
        yield {
            **about, "stage": stage, "step": step, "concept": "truth", "method": "margin", "metric": "behaviour", "coords": coords,
            **_around(step / 4e5),
        }  # fmt: skip


def _around(value: float, half: float = 0.035) -> dict:
    return {"value": value, "low": value - half, "high": value + half}


def _p(score: float) -> float:
    return float(np.clip(np.exp(-(score - 0.5) * 38), 0.002, 1))
