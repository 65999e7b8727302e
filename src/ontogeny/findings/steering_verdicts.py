"""Evaluated steering vectors, read back from the table: one per concept, method and checkpoint."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from ontogeny.findings.table import coord_column, has_coord, records_by_concept
from ontogeny.findings.timeline import Timeline
from ontogeny.records import checkpoint_label

_MAX_VECTORS_DRAWN = 12
"""Maximum number of vectors in a picture; with more, only the last checkpoint is drawn."""
TOO_FEW_CONTROLS = "too few controls to tell"
METHOD_LABELS = {
    "tracing_vector": "tracing vector",
    "caa": "CAA",
    "iti": "ITI",
    "iti_official": "ITI (authors' code)",
    "tracing_vector_official": "tracing vector (authors' code)",
    "ablate": "ablation",
    "given": "given direction",
}


@dataclass(frozen=True)
class EvaluatedVector:
    """The rows of one evaluated vector."""

    name: str
    """Concept, method, and the checkpoint if there are several."""
    concept: str
    method: str
    rows: pd.DataFrame
    """With the columns `alpha` (a number) and `choice` (a site, or a number of heads)."""
    chosen: str
    """Site, or number of heads, chosen on development questions."""
    alpha: float
    verdict: str
    """`works`, `does not work`, `too few controls to tell`, or nothing."""

    @property
    def effects(self) -> pd.DataFrame:
        """The effect on test questions and its nulls, at the chosen site or K."""
        rows = self.rows[self.rows["metric"].eq("steering_effect") & self.rows["split"].eq("test")]
        return rows[rows["choice"].eq(self.chosen) & rows["alpha"].notna() & rows["value"].notna()]

    @property
    def subtitle(self) -> str:
        """The choice and the verdict, for the title of a panel."""
        place = self.chosen if "." in self.chosen else f"{self.chosen} head{'' if self.chosen == '1' else 's'}"
        parts = [place, "" if self.method == "ablate" else f"alpha {self.alpha:g} chosen", self.verdict]
        return " · ".join(word for word in parts if word)


@dataclass(frozen=True)
class ConceptVerdicts:
    """Sentences on the vectors of one concept."""

    concept: str
    tag: str
    """Summary of the verdicts."""
    sentences: tuple[str, ...]
    works: bool = False
    """Whether any of them was shown to work."""


def steering_verdicts(records: pd.DataFrame) -> list[ConceptVerdicts]:
    """The verdicts on the vectors of each concept, as `evaluate` wrote them, in the order of the lineage."""
    rows = records[records["metric"].eq("steering_works")]
    rows = rows.sort_values([name for name in ("order", "step", "method") if name in rows], kind="stable")
    return [
        _concept_verdicts(str(name), list(own["value"]), list(own["note"].fillna("")))
        for name, own in rows.groupby("concept")
    ]


def _concept_verdicts(concept: str, works: list[float], notes: list[str]) -> ConceptVerdicts:
    count, untold = sum(value == 1 for value in works), sum(map(math.isnan, works))
    if len(works) == 1:
        tag = _verdict(works[0])
    else:
        told = len(works) - untold
        tag = f"{count or 'none'} of {told} vectors work{'s' if count == 1 else ''}" if told else ""
        tag = "; ".join([*([tag] if tag else []), *([f"{untold} with {TOO_FEW_CONTROLS}"] if untold else [])])
    return ConceptVerdicts(concept, tag, tuple(note for note in notes if note), bool(count))


def _verdict(works: float) -> str:
    """A value of `steering_works` in words; NaN where there is no verdict."""
    return TOO_FEW_CONTROLS if math.isnan(works) else "works" if works else "does not work"


def evaluated_vectors(table: pd.DataFrame, line: Timeline) -> list[EvaluatedVector]:
    """The vectors of a tidied table at the last checkpoint of each stage; if there are too many, at the last one only."""
    vectors = list(_vectors(table, line, every_stage=True))
    return vectors if len(vectors) <= _MAX_VECTORS_DRAWN else list(_vectors(table, line, every_stage=False))


def prompt_baseline_rows(table: pd.DataFrame, vector: EvaluatedVector) -> pd.DataFrame:
    """The effect of a prompt without a vector, for the same concept and checkpoint."""
    own = vector.rows[["stage", "step", "concept"]].drop_duplicates()
    return table[table["control"].eq("prompt_only") & table["value"].notna()].merge(own)


def _vectors(table: pd.DataFrame, line: Timeline, *, every_stage: bool) -> Iterator[EvaluatedVector]:
    rows = table[has_coord(table, "alpha") | table["metric"].eq("chosen_alpha")]
    rows = rows[~rows["metric"].isin(["sample_surprise", "distinct_2", "scored_share"])]
    for subject in records_by_concept(rows):
        for method in sorted(subject.rows["method"].unique()):  # rows of several parts come in no fixed order
            own = line.place(subject.rows[subject.rows["method"].eq(method)])
            if own.empty:
                continue
            last = own.groupby("stage")["age"].transform("max") if every_stage else own["age"].max()
            own = own[own["age"].eq(last)]
            ages = sorted(own["age"].unique())
            for age in ages:
                here = own[own["age"].eq(age)]
                more = [_place(here["stage"].iloc[0], here["step"].iloc[0])] * (len(ages) > 1)
                yield _vector([subject.name, METHOD_LABELS.get(method, method), *more], subject.concept, method, here)


def _vector(names: list[str], concept: str, method: str, rows: pd.DataFrame) -> EvaluatedVector:
    site, k = coord_column(rows, "site"), coord_column(rows, "k")
    rows = rows.assign(
        alpha=pd.to_numeric(coord_column(rows, "alpha"), errors="coerce"), choice=site.where(site.ne(""), k)
    )
    chosen = rows[rows["metric"].eq("chosen_alpha") & rows["value"].notna()]
    tried = rows[rows["choice"].ne("")]["choice"]
    works = rows[rows["metric"].eq("steering_works")]["value"]
    verdict = "" if works.empty else _verdict(float(works.iloc[0]))
    at = chosen["choice"].iloc[0] if len(chosen) else next(iter(tried), "")
    alpha = float(chosen["value"].iloc[0]) if len(chosen) else float("nan")
    return EvaluatedVector(" · ".join(names), concept, method, rows, at, alpha, verdict)


def _place(stage: str, step: float) -> str:
    """A step with its stage; a tidied table puts a checkpoint without a step half a step after the last one."""
    return checkpoint_label(stage, None if step % 1 else step)
