"""A comparison of stages as sentences made from its rows: one panel per study, first stage against last."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from ontogeny.findings.finding import IntervalEstimate, first_interval
from ontogeny.findings.selection import metric_condition
from ontogeny.findings.sentences import describe_site, format_interval, format_score, format_step
from ontogeny.findings.table import coord_column, evenly_spread, tidy_records
from ontogeny.findings.timeline import make_timeline
from ontogeny.records import checkpoint_label

COMPARISON_ROWS = metric_condition(
    *("stage_cosine", "stage_auroc", "push_effect", "nie", "verdict_gap", "map_correlation", "patch_effect"),
    *("knowledge_transfer", "knowledge_kept", "knowledge_adapted", "knowledge_lost", "knowledge_new"),
    *("refusal_layer", "refusal_cosine", "refusal_phrases", "refusal_effect", "refusal_transfer"),
    *("entropy", "confidence_gap"),
    *("ece", "brier", "neuron_overlap", "entropy_neurons", "swap_effect", "swap_share"),
    *("weight_change_norm", "weight_change_rank", "column_alignment", "row_alignment", "response_ratio"),
    *("cluster_separation", "cluster_change", "jacobian_change", "interpolated_log_odds"),
    *("mlp_patch_effect", "mlp_restore_effect"),
    *("shown_accuracy", "few_shot_accuracy", "few_shot_gain", "readable_accuracy", "readable_gain"),
    *("steered_accuracy", "steered_gain", "shown_step"),
    *(f"{way}_{what}" for way in ("few_shot", "readable", "steered") for what in ("step", "minus_shown")),
)
"""Condition for the rows that the sentences are made from."""


def comparison_sentences(records: pd.DataFrame) -> dict[str, list[str]]:
    """Sentences by the name of the study, which is the name of its view; a study without rows has none."""
    table = with_stage_labels(records)
    names = stage_labels(table)
    if len(names) < 2:
        return {}
    panels = {study: write(ComparisonRows(table, names)) for study, write in _STUDY_SENTENCES.items()}
    return {study: sentences for study, sentences in panels.items() if sentences}


def with_stage_labels(records: pd.DataFrame) -> pd.DataFrame:
    """The tidied rows with the stage's label in `here` and the other stage's in `there`."""
    table = tidy_records(records)
    steps = table[table["stage"].ne("")].groupby("stage")["step"].nunique()
    several = {str(stage) for stage, count in steps.items() if count > 1}

    def label(stage: str, step: float) -> str:
        if stage not in several:
            return stage
        # A row about a whole stage has no checkpoint; a half step is the checkpoint without a number.
        return f"{stage} –" if math.isnan(step) else checkpoint_label(stage, None if step % 1 else step)

    here = [label(s, t) for s, t in zip(table["stage"], table["step"], strict=True)]
    stages = coord_column(table, "other_stage")
    other = make_timeline(table).numbered_steps(stages, coord_column(table, "other_step"))
    there = [label(s, t) if s else "" for s, t in zip(stages, other, strict=True)]
    return table.assign(here=here, there=there)


def stage_labels(table: pd.DataFrame) -> list[str]:
    """Labels of the stages in developmental order."""
    if not table["step"].notna().any():
        return []
    placed = make_timeline(table).place(table[table["stage"].ne("")])
    return list(dict.fromkeys(placed["here"]))


@dataclass(frozen=True)
class ComparisonRows:
    """The rows of a comparison, with lookups by metric and stages."""

    table: pd.DataFrame
    names: list[str]

    @property
    def first(self) -> str:
        return self.names[0]

    @property
    def last(self) -> str:
        return self.names[-1]

    @property
    def some(self) -> list[str]:
        """All stages; of more than four the first, the last and two between."""
        return evenly_spread(self.names, 4)

    def of(
        self, metric: str, here: str | None = None, there: str | None = None, control: str = "", **coords: str
    ) -> pd.DataFrame:
        rows = self.table[self.table["metric"].eq(metric) & self.table["control"].eq(control)]
        rows = rows if here is None else rows[rows["here"].eq(here)]
        rows = rows if there is None else rows[rows["there"].eq(there)]
        for key, value in coords.items():
            rows = rows[(rows[key] if key in rows else coord_column(rows, key)).eq(value)]
        return rows

    def read(
        self, metric: str, here: str | None = None, there: str | None = None, control: str = "", **coords: str
    ) -> IntervalEstimate:
        """Value and interval of the first such row."""
        return first_interval(self.of(metric, here, there, control, **coords))


def _truth(rows: ComparisonRows) -> list[str]:
    a, b = rows.first, rows.last
    cosine = rows.of("stage_cosine", b, a)
    if cosine.empty:
        return []
    sentences = []
    for concept in dict.fromkeys(cosine["concept"]):
        own = ComparisonRows(rows.table[rows.table["concept"].eq(concept)], rows.names)
        sentences += _truth_of_concept(own, str(concept), a, b)
    return sentences


def _truth_of_concept(rows: ComparisonRows, concept: str, a: str, b: str) -> list[str]:
    alike = rows.read("stage_cosine", b, a)
    own, carried, first = (rows.read("stage_auroc", here, there) for here, there in ((b, b), (b, a), (a, a)))
    if not carried.known:
        return [f"{concept}: {a} and {b} cannot be compared: {alike.note}."]
    halves, cosines = rows.read("stage_cosine", a, a, "split_half"), rows.of("stage_cosine", b, a)
    plain, chance = (format_score(float(coord_column(cosines, key).iloc[0] or "nan")) for key in ("plain", "chance"))
    sentences = [
        f"{concept}: the directions of {a} and {b} have a cosine of {format_interval(alike)} behind their noise ({plain} as they are; "
        f"two halves of {a}'s statements agree at {format_score(halves.value)}, two random directions within ±{chance})."
        if alike.known
        else f"{concept}: {alike.note}."
    ]
    rank = "not shown to differ from its own"
    if own.low > carried.value and carried.high < own.value:
        rank = "worse than its own"
    elif own.high < carried.value and carried.low > own.value:
        rank = "better than its own"
    sentences.append(
        f"{a}'s probe reads {b} at AUROC {format_interval(carried)}, {rank} ({format_interval(own)}; {a} itself: {format_interval(first)})."
    )
    pushed, pushed_own = (
        rows.read("push_effect", b, a, length="source"),
        rows.read("push_effect", b, b, length="source"),
    )
    if not pushed.known:
        note = rows.read("nie", b).note
        return [*sentences, f"Verdicts were not asked for: {note}."] if note else sentences
    null = rows.read("push_effect", b, a, "random_direction")
    same = rows.read("push_effect", b, a, length="target")
    sentences.append(
        f"Pushing {b} along {a}'s direction moves its verdicts by {format_interval(pushed)} of at most 1, "
        f"along its own by {format_interval(pushed_own)}; "
        f"{a}'s direction at {b}'s length by {format_interval(same)}, random ones as long as {a}'s by {format_interval(null)}."
    )
    gaps = [
        f"{name} {format_interval(rows.read('verdict_gap', name, statements='true'))} and "
        f"{format_interval(rows.read('verdict_gap', name, statements='false'))}"
        for name in (a, b)
    ]
    sentences.append(
        f"Unpushed, the verdicts on true and on false statements (1 = all true, −1 = all false) are {', '.join(gaps)}."
    )
    across, inside, before = (
        format_interval(rows.read("nie", here, there, way="mean", form="full"))
        for here, there in ((b, a), (b, b), (a, a))
    )
    sentences.append(
        f"As a normalised indirect effect: {across} from {a} into {b}, {inside} inside {b}, {before} inside {a}; "
        f"a random push into {b} has {format_interval(rows.read('nie', b, a, 'random_direction'))}."
    )
    return sentences


def _knowledge(rows: ComparisonRows) -> list[str]:
    a, b = rows.first, rows.last
    alike, share = rows.read("map_correlation", b, a, method="pearson"), rows.read("knowledge_transfer", b, a)
    cells = rows.of("patch_effect", method="patch")
    cells = cells[~cells["note"].str.startswith("so by construction") & cells["value"].notna()]
    sentences = []
    for name in (a, b):
        inside = cells[cells["here"].eq(name)]
        if inside.empty:
            why = rows.read("patch_effect", name, method="patch").note
            sentences += [f"In {name} no place can be told: {why}."] if why != "no row" else []
            continue
        strong = inside[inside["low"].gt(0)].nlargest(3, "value")
        if strong.empty:
            sentences.append(f"In {name} no place is shown to bring the answer back: every interval includes 0.")
            continue
        ends = zip(strong["value"], strong["low"], strong["high"], strong["n"], strong["note"], strict=True)
        at = zip(strong["site"], strong["position"], (IntervalEstimate(*row) for row in ends), strict=True)
        places = ", ".join(
            f"{describe_site(site)} at {_role(position)} {format_interval(effect)}" for site, position, effect in at
        )
        of = f"the largest of {len(inside)} effects, so optimistic" if len(inside) > len(strong) else "all places"
        sentences.append(f"In {name} the answer comes back (1 = wholly) from the true prompt's state {places} ({of}).")
    if alike.known:
        sentences.append(f"The maps of {a} and {b} correlate at {format_interval(alike)} ({alike.note}).")
    elif note := rows.read("map_correlation", b, a).note or rows.read("knowledge_transfer", b, a).note:
        sentences += [f"The maps of {a} and {b} cannot be compared: {note}."] if note != "no row" else []
    if share.known:
        back = rows.read("knowledge_transfer", a, b)
        shares = ", ".join(
            f"{format_interval(rows.read(f'knowledge_{fate}', b, a))} {fate}"
            for fate in ("kept", "adapted", "lost", "new")
        )
        sentences.append(
            f"{a}'s states put into {b} do {format_interval(share)} of what {b}'s own do, {b}'s put into {a} {format_interval(back)}; "
            f"of the places that matter {shares}."
        )
    return sentences


def _role(position: str) -> str:
    return {"subject_last": "the subject's last token", "last": "the last token"}.get(
        position, position.replace("_", " ")
    )


def _refusal(rows: ComparisonRows) -> list[str]:
    if rows.of("refusal_cosine", held="shared").empty:
        return []
    harmful, harmless = (
        _values_over_stages(rows, "refusal_phrases", instructions=kind) for kind in ("harmful", "harmless")
    )
    asked = _asked_in(rows)
    sentences = [f"Refusals{asked}, as a share of harmful requests: {harmful}; of harmless ones: {harmless}."]
    held = "own" if "own chat template" in asked else "shared"
    chosen = {name: rows.read("refusal_layer", name, held=held) for name in rows.names}
    absent = {name: of.note for name, of in chosen.items() if not of.known and of.note != "no row"}
    sentences += [f"{name} has {why}." for name, why in absent.items() if name in rows.some]
    directed = [name for name in rows.names if name not in absent]
    if len(directed) < 2:
        return [*sentences, "Directions cannot be compared: fewer than two stages have one."]
    a, b = directed[0], directed[-1]
    return [*sentences, _refusal_cosine(rows, a, b), *_refusal_effects(rows, a, b)]


def _refusal_cosine(rows: ComparisonRows, a: str, b: str) -> str:
    shared, own = (rows.read("refusal_cosine", b, a, held=held) for held in ("shared", "own"))
    own_text = (
        f"{format_interval(own)} with each stage's own" if own.known else f"with each stage's own none ({own.note})"
    )
    if not shared.known:
        alike = (
            f"The directions of {a} and {b} cannot be compared with template, position and layer alike: {shared.note}"
        )
        return f"{alike}; they have a cosine of {own_text}." if own.known else f"{alike}."
    noise = [
        format_score(rows.read("refusal_cosine", name, name, "split_half", held="shared").value) for name in (a, b)
    ]
    return (
        f"The directions of {a} and {b} have a cosine of {format_interval(shared)} with template, position and layer alike, "
        f"{own_text}; halves of one stage's requests agree at {noise[0]} and {noise[1]}."
    )


def _refusal_effects(rows: ComparisonRows, a: str, b: str) -> list[str]:
    sentences = []
    for act, does in (("ablation", "Ablated from harmful requests"), ("addition", "Added to harmless ones")):
        transferred, own_effect = (rows.read("refusal_effect", b, there, act=act, of="log_odds") for there in (a, b))
        ratio = rows.read("refusal_transfer", b, a, act=act, of="log_odds", form="above_random")
        if not (transferred.known and own_effect.known):
            continue
        share = f"forward transfer {format_interval(ratio)}" if ratio.known else ratio.note
        sentences.append(
            f"{does}, {a}'s vector changes {b}'s log-odds of refusing by {format_interval(transferred)}, "
            f"{b}'s own by {format_interval(own_effect)}: {share}."
        )
    return sentences


def _asked_in(rows: ComparisonRows) -> str:
    """Template in which requests were asked, in words; '' where it cannot matter, since no stage has a chat template."""
    own = [name for name in rows.some if _template(rows, "refusal_layer", name, held="own") == "chat template"]
    asked = {name: _template(rows, "refusal_phrases", name, instructions="harmful") for name in rows.some}
    # Rows of earlier versions say it of the direction only.
    asked = {
        name: said or _template(rows, "refusal_layer", name, held="shared").replace("'{}'", "none")
        for name, said in asked.items()
    }
    bare = [name for name, said in asked.items() if said == "none"]
    if any(said.startswith("own") for said in asked.values()):
        without = f" ({', '.join(bare)} bare, without one)" if bare else ""
        return f", asked in each stage's own chat template{without}"
    if len(bare) < len(asked):
        return ", asked in one template for all stages"
    return f", asked bare, without the chat template of {', '.join(own)}" if own else ""


def _template(rows: ComparisonRows, metric: str, stage: str, **coords: str) -> str:
    table = rows.of(metric, stage, **coords)
    return "" if table.empty else str(coord_column(table, "template").iloc[0] or "")


def _confidence(rows: ComparisonRows) -> list[str]:
    a, b = rows.first, rows.last
    if rows.of("entropy").empty:
        return []
    gap, chance = rows.read("confidence_gap", b, a, of="entropy"), rows.read("ece", b, None, "calibrated")
    sentences = [
        f"Entropy of the next token on neutral texts, nats: {_values_over_stages(rows, 'entropy')}; {b} less {a}: {format_interval(gap)}.",
        f"Calibration error (ECE) on questions: {_values_over_stages(rows, 'ece')}; one that is right as often as it says would show "
        f"{format_score(chance.value)} in {b}'s place. Brier: {_values_over_stages(rows, 'brier')}.",
    ]
    overlap = rows.read("neuron_overlap", b, a, by="variance")
    if overlap.known:
        random, both = (
            rows.read("neuron_overlap", b, a, "random_set", by="variance"),
            rows.of("neuron_overlap", b, a, by="variance"),
        )
        tested = {name: rows.read("entropy_neurons", name) for name in rows.some}
        confirmed = ", ".join(f"{name} {count.value:.0f} of {count.n}" for name, count in tested.items())
        sentences.append(
            f"Candidates for entropy neurons: {coord_column(both, 'shared').iloc[0]} of {overlap.n} are the same in {a} and {b} (overlap "
            f"{format_score(overlap.value)}, random sets {format_score(random.value)}); confirmed by holding them still: {confirmed}."
        )
    elif overlap.note not in ("", "no row"):
        sentences.append(f"Neurons of {a} and {b} cannot be compared: {overlap.note}.")
    swapped, share = rows.read("swap_effect", b, a, of="entropy"), rows.read("swap_share", b, a, of="entropy")
    if swapped.known:
        swap = f"{format_interval(share)} of the difference between the two" if share.known else share.note
        null = rows.read("swap_effect", b, a, "random_neurons", of="entropy")
        change = f"With {a}'s rows for these neurons {b}'s entropy changes by {swapped.value:+.4f} nats"
        if null.known:
            change += f" (95 % of sets of random neurons {null.low:+.4f} to {null.high:+.4f})"
        sentences.append(f"{change}: {swap}.".replace("-0", "−0"))
    return sentences


def _values_over_stages(rows: ComparisonRows, metric: str, **coords: str) -> str:
    """A value at every stage, at most four."""
    return ", ".join(f"{name} {format_interval(rows.read(metric, name, **coords))}" for name in rows.some)


def _weight_change(rows: ComparisonRows) -> list[str]:
    a, b = rows.first, rows.last
    norms = rows.of("weight_change_norm", b, a)
    if norms.empty:
        return []
    if norms["value"].isna().all():
        return [f"The weights of {a} and {b} cannot be compared: {norms['note'].iloc[0]}."]
    norms = norms[~norms["note"].str.startswith("a mixture of experts")]
    moved = norms["value"].dropna()
    ranks, noise = (
        pd.to_numeric(coord_column(rows.of("weight_change_rank", b, a, control), "share"), errors="coerce").dropna()
        for control in ("", "gaussian")
    )
    sentences = [
        f"From {a} to {b}, {len(moved)} of {len(norms)} matrices of the blocks change, by {format_score(moved.min())} to "
        f"{format_score(moved.max())} of their norm; nine tenths of a change lie in {format_score(ranks.min())} to "
        f"{format_score(ranks.max())} of its ranks, of Gaussian noise in {format_score(noise.min())} to {format_score(noise.max())}."
    ]
    for metric, does in (
        ("column_alignment", "writes into the base's column space"),
        ("row_alignment", "reads its row space"),
    ):
        more, less, among = _beyond_random(rows, metric, b, a)
        if among:
            sentences.append(
                f"ΔW {does} less than random changes of equal rank and norm in {less} of {among} matrices, more in {more} "
                "(1 in 40 of the random ones each way); matrices whose space is whole are left out."
            )
    more, less, among = _beyond_random(rows, "response_ratio", b, a)
    if among:
        sentences.append(
            f"ΔW responds more to harmful than to harmless requests, beyond random changes, in {more} of {among} matrices, less in {less}."
        )
    return [*sentences, *_weight_change_effects(rows, a, b)]


def _beyond_random(rows: ComparisonRows, metric: str, here: str, there: str) -> tuple[int, int, int]:
    """In how many matrices the change is above the range of random ones, below it, and of how many; by the interval if there is one."""
    tables = []
    for control in ("", "random_change"):
        of = rows.of(metric, here, there, control)
        of = of[of["value"].notna() & ~of["note"].str.contains("all .* dimensions")]
        tables.append(of.assign(matrix=coord_column(of, "matrix")).set_index(["site", "matrix"]))
    own, null = tables
    both = own.join(null[["low", "high"]].add_suffix("_null"), how="inner")
    above = both["low"].fillna(both["value"]).gt(both["high_null"])
    below = both["high"].fillna(both["value"]).lt(both["low_null"])
    return int(above.sum()), int(below.sum()), len(both)


def _weight_change_effects(rows: ComparisonRows, a: str, b: str) -> list[str]:
    """Clusters, Jacobian norms, interpolation and MLP patches, each against its null."""
    sentences = []
    changes = rows.of("cluster_change", b, a)
    if changes["value"].notna().any():
        last = str(changes["site"].iloc[-1])
        before, after = (rows.read("cluster_separation", name, site=last) for name in (a, b))
        change, null = (
            rows.read("cluster_change", b, a, site=last),
            rows.read("cluster_separation", b, None, "shuffled_label", site=last),
        )
        verdict = "farther apart" if change.low > 0 else "closer together" if change.high < 0 else "not shown to move"
        sentences.append(
            f"After the last block harmful and harmless requests are separated by {format_interval(before)} in {a} and by "
            f"{format_interval(after)} in {b} (1: each at the centre of its kind), {verdict}: {format_interval(change)}; shuffled labels "
            f"{format_interval(null)}."
        )
    for kind in ("harmful", "harmless"):
        change, null, gradient = (
            rows.read("jacobian_change", b, a, control, kind=kind)
            for control in ("", "random_change", "neutral_gradient")
        )
        if not change.known:
            continue
        does = "rises" if change.low > 0 else "falls" if change.high < 0 else "is not shown to change"
        beyond = (
            ""
            if does.startswith("is")
            else ", beyond random changes"
            if change.low > null.high or change.high < null.low
            else (", not shown to differ from random changes")
        )
        sentences.append(
            f"The Jacobian norm on {kind} requests {does}{beyond}: {format_interval(change)} doublings; random changes "
            f"{format_interval(null)}, along the gradient on neutral texts {format_score(gradient.value)}."
        )
    sweep = rows.of("interpolated_log_odds", b, a, kind="harmful", parts="all")
    sweep = sweep.assign(alpha=pd.to_numeric(coord_column(sweep, "alpha"), errors="coerce")).sort_values("alpha")
    if len(sweep) > 1:
        top = f"{sweep['alpha'].iloc[-1]:g}"
        matrices, null, gradient = (
            rows.read("interpolated_log_odds", b, a, control, kind="harmful", parts="matrices", alpha=top)
            for control in ("", "random_change", "neutral_gradient")
        )
        low, high = (first_interval(part) for part in (sweep.head(1), sweep.tail(1)))
        rises = int(sweep["value"].diff().dropna().gt(0).sum())
        sentences.append(
            f"{a} with α times the change: the log-odds of refusing harmful requests go from {format_interval(low)} to "
            f"{format_interval(high)} at α = {top}, and rise in {rises} of {len(sweep) - 1} steps; with the matrices of the "
            f"blocks alone {format_interval(matrices)}, random changes {format_interval(null)}, along the neutral gradient "
            f"{format_score(gradient.value)}."
        )
    return sentences + [
        sentence
        for metric, ends in (("mlp_patch_effect", (b, a)), ("mlp_restore_effect", (a, b)))
        if (sentence := _exchanged_mlp(rows, metric, *ends))
    ]


def _exchanged_mlp(rows: ComparisonRows, metric: str, source: str, model: str) -> str:
    """The MLP output of one stage that moves the other one most; empty without such rows."""
    a, b = rows.first, rows.last
    patches = rows.of(metric, b, a, kind="harmful")
    patches = patches[patches["value"].notna()]
    if patches.empty:
        return ""
    best = patches.iloc[int(patches["value"].abs().argmax())]
    own, null = (
        rows.read(metric, b, a, control, kind="harmful", site=str(best["site"])) for control in ("", "random_direction")
    )
    larger = own.low > null.high or own.high < null.low
    return (
        f"Of {source}'s MLP outputs put into {model}, that {describe_site(str(best['site']))} moves the log-odds of refusing most, by "
        f"{format_interval(own)}; {'' if larger else 'not shown to be more than '}a random move as far {format_interval(null)}."
    )


def _elicitation(rows: ComparisonRows) -> list[str]:
    if rows.of("shown_accuracy").empty:
        return []
    sentences = []
    for metric, what in (
        ("shown_accuracy", "Plain answers"),
        ("few_shot_accuracy", "Answers behind worked examples"),
        ("steered_accuracy", "Answers under steering"),
        ("readable_accuracy", "Readings of the stream"),
    ):
        if rows.of(metric).empty:  # runs of earlier versions have no steering
            continue
        first = next((name for name in rows.names if rows.read(metric, name).low > 0.5), None)
        since = f"first at {first}" if first else "at no stage"
        values = _values_over_stages(rows, metric)
        sentences.append(f"{what} are shown to be right for more than half of the questions {since}: {values}.")
    for metric, what, control in (
        ("few_shot_gain", "Worked examples", "wrong_examples"),
        ("steered_gain", "Steering", "random_direction"),
        ("readable_gain", "The reading", ""),
    ):
        if rows.of(metric).empty:
            continue
        more = [name for name in rows.names if rows.read(metric, name).low > 0]
        if not more:
            sentences.append(f"{what}: at no stage shown to be right more often than the plain answers.")
            continue
        null = (
            f"; {_ELICITATION_NULLS[control]} {format_interval(rows.read(metric, more[0], None, control))}"
            if control
            else ""
        )
        gain = format_interval(rows.read(metric, more[0]))
        sentences.append(
            f"{what}: right more often than the plain answers at {', '.join(more)}, first by {gain}{null}."
        )
    return sentences + [sentence for name in rows.names if (sentence := _order_of_asking(rows, name))]


_ELICITATION_NULLS = {"wrong_examples": "with wrong answers in them", "random_direction": "random vectors as long"}
_WAYS = {"few_shot": "behind worked examples", "steered": "under steering", "readable": "in the stream"}


def _order_of_asking(rows: ComparisonRows, name: str) -> str:
    """When answers are right over the checkpoints that end with this one, and how far before the plain ones; empty without such rows."""
    shown = rows.of("shown_step", name)
    if shown.empty:
        return ""
    plain = first_interval(shown)
    parts = [f"plainly at step {format_step(plain.value)}" if plain.known else f"plainly at none ({plain.note})"]
    for way, words in _WAYS.items():
        own, before = rows.read(f"{way}_step", name), rows.read(f"{way}_minus_shown", name)
        if not own.known:
            continue
        order = (
            ""
            if not before.known
            else " before that"
            if before.high < 0
            else " after that"
            if before.low > 0
            else ", order not settled"
        )
        doublings = f" ({format_interval(before)} doublings{order})" if before.known else ""
        parts.append(f"{words} at step {format_step(own.value)}{doublings}")
    none = [
        words
        for way, words in _WAYS.items()
        if len(rows.of(f"{way}_step", name)) and not rows.read(f"{way}_step", name).known
    ]
    missing = f"; {' and '.join(none)} at none" if none else ""
    return f"Up to {name}, answers have half of their gain {', '.join(parts)}{missing}."


_STUDY_SENTENCES: Mapping[str, Callable[[ComparisonRows], list[str]]] = {
    "knowledge": _knowledge,
    "truthfulness": _truth,
    "refusal": _refusal,
    "confidence": _confidence,
    "weight_change": _weight_change,
    "elicitation": _elicitation,
}
"""By the name of the study."""
