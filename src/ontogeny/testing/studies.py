"""Contract of a study of stages: it names its inputs, needs no others, has stable unit keys, and its rows name the stages."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace

from ontogeny import plugins
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StageSizes, StudyInputs, load_study, select_studies
from ontogeny.models.model import Model
from ontogeny.testing._contract import Clause, rejects, run_clauses

_TEXT_FIELDS = {"statements", "requests", "neutral", "questions"}


def declares_known_inputs_and_a_question(name: str, inputs: StudyInputs) -> None:
    study = load_study(name)
    assert set(study.inputs) <= {field.name for field in fields(StudyInputs)}
    assert _TEXT_FIELDS & set(study.inputs), "a study reads texts"
    assert plugins.plugin_summary("studies", name).startswith("Study: ")
    others = [load_study(other).unit for other in plugins.list_plugins("studies", defining="INPUTS") if other != name]
    assert study.unit not in others


def needs_its_texts_and_no_others(name: str, inputs: StudyInputs) -> None:
    study = load_study(name)
    needed = _TEXT_FIELDS & set(study.inputs)
    empty = {field: getattr(StudyInputs(), field) for field in _TEXT_FIELDS}
    assert study.needs(replace(inputs, **{field: empty[field] for field in _TEXT_FIELDS - needed})) is None
    for field in needed:
        missing = replace(inputs, **{field: empty[field]})
        assert f"`{field}`" in (study.needs(missing) or "")
        with rejects(BadInput, f"the study {name} needs .*`{field}`"):
            select_studies(name, missing)


def has_a_unit_key_that_depends_on_its_inputs_only(name: str, inputs: StudyInputs) -> None:
    study = load_study(name)
    key = json.dumps(study.digest(inputs))
    changes = {
        "statements": (replace(inputs.statements[0], examples=inputs.statements[0].examples[:-1]),),
        "requests": replace(inputs.requests, examples=inputs.requests.examples[:-1]) if inputs.requests else None,
        "neutral": inputs.neutral[:-1],
        "questions": inputs.questions[:-1],
        "question": None,
        "phrases": ("No",),
        "template": "Q {}",
        "pairing": "recall",
        "seed": 1,
    }
    assert set(changes) == {field.name for field in fields(StudyInputs)}
    for field, value in changes.items():
        differs = json.dumps(study.digest(replace(inputs, **{field: value}))) != key  # type: ignore[arg-type]
        assert differs == (field in (*study.inputs, "seed")), field


def costs_more_with_more_stages(name: str, inputs: StudyInputs) -> None:
    study = load_study(name)
    few, many = (study.cost(inputs, StageSizes(stages, blocks=4)) for stages in (2, 3))
    assert 0 < few < many


def names_the_given_stages_and_keeps_the_weights(name: str, inputs: StudyInputs, stages: Mapping[str, Model]) -> None:
    study = load_study(name)
    before = {key: {k: v.clone() for k, v in model.network.state_dict().items()} for key, model in stages.items()}
    rows = list(study.run(stages, inputs, study.settings(inputs)))
    assert {row.stage for row in rows} == set(stages)
    assert {row.coords.get("other_stage") for row in rows} <= {None, *stages}
    assert {row.seed for row in rows} == {inputs.seed}
    assert any(row.n for row in rows)
    for key, model in stages.items():
        assert all(v.equal(before[key][k]) for k, v in model.network.state_dict().items()), "a study keeps the weights"


STUDY_CLAUSES: tuple[Clause, ...] = (
    declares_known_inputs_and_a_question,
    needs_its_texts_and_no_others,
    has_a_unit_key_that_depends_on_its_inputs_only,
    costs_more_with_more_stages,
)


def check_study(name: str, inputs: StudyInputs, stages: Mapping[str, Model] | None = None) -> None:
    """Check a study of stages against its contract.

    Args:
        name: Name of a plug-in, of this package or of an installed one that has the entry point `ontogeny.studies`.
        inputs: Small texts for every field of `StudyInputs`.
        stages: Two small models by stage, on which the study is run; not run by default.

    Raises:
        AssertionError: a clause does not hold; a note says which.
        BadInput: there is no such study.
    """
    run_clauses("study", name, STUDY_CLAUSES, name, inputs)
    if stages is not None:
        run_clauses("study", name, (names_the_given_stages_and_keeps_the_weights,), name, inputs, stages)
