"""Edits of several facts with their effects as records: after each one, and after all of them."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ontogeny.editing.effects import EditPrompts, edit_effects
from ontogeny.editing.facts import FactEdit
from ontogeny.editing.session import AppliedEdit, EditSession
from ontogeny.records import Record


def edit_and_measure(
    session: EditSession,
    facts: Sequence[FactEdit],
    prompts: EditPrompts,
    *,
    together: bool = False,
    controls: int = 8,
    seed: int = 0,
    on_activity: Callable[[str, int, int], None] = lambda activity, done, total: None,
) -> list[Record]:
    """Edit facts one after the other, or all at once, and measure each; `coords.evaluated` says when.

    Args:
        prompts: Texts of all facts; paraphrases belong to the first.
        together: One change for all facts.
        controls: Nulls of each kind.

    Raises:
        BadInput: as `EditSession.edit` and `edit_effects`.
    """
    method, rows = session.settings.method, []
    groups = [tuple(facts)] if together else [(fact,) for fact in facts]
    place = 0
    for group in groups:
        on_activity(f"editing {group[0].prompt[:40]}", place, len(facts))
        applied = session.edit(*group)
        for value in applied.values:
            rows.append(_row("edit_value_probability", value.probability, method, facts[place], place, "before_edit"))
            place += 1
        rows += _edit_rows(applied, method, group[0], place - len(group))
        for number, fact in enumerate(group, place - len(group)):
            measured = edit_effects(
                session.model, fact, session.edits, _own(prompts, number), method=method, controls=controls, seed=seed
            )
            rows += _placed(measured, fact, number, "after_this")
    if len(groups) > 1:
        for number, fact in enumerate(facts):
            on_activity("measuring after all edits", number, len(facts))
            measured = edit_effects(
                session.model, fact, session.edits, _own(prompts, number), method=method, controls=controls, seed=seed
            )
            rows += _placed(measured, fact, number, "after_all")
    return rows


def _own(prompts: EditPrompts, number: int) -> EditPrompts:
    """The prompts of a fact: paraphrases and the old object are those of the first."""
    return prompts if number == 0 else replace(prompts, paraphrases=(), before="")


def _edit_rows(applied: AppliedEdit, method: str, fact: FactEdit, number: int) -> list[Record]:
    rows = [_row("edit_norm", applied.relative_norm, method, fact, number, "after_this")]
    for layer, space in applied.null_spaces.items():
        for metric, value in (
            ("edit_null_rank", space.rank / len(space.projector)),
            ("edit_null_trace", space.trace_share),
        ):
            rows.append(replace(_row(metric, value, method, fact, number, "after_this"), layer=layer))
    return rows


def _row(metric: str, value: float, method: str, fact: FactEdit, number: int, when: str) -> Record:
    known = math.isfinite(value)
    row = Record(
        metric, value if known else math.nan, method=method, n=int(known), note=None if known else "it is not finite"
    )
    return _placed([row], fact, number, when)[0]


def _placed(rows: Iterable[Record], fact: FactEdit, number: int, when: str) -> list[Record]:
    about = {"fact": str(number + 1), "prompt": fact.prompt, "object": fact.answer.strip(), "evaluated": when}
    return [replace(row, coords={**row.coords, **about}) for row in rows]
