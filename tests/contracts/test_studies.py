"""Every study plug-in: it names its inputs, needs no others, has stable unit keys, and its rows name stages by the given keys."""

import json
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import pytest

from ontogeny import plugins
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import (
    STUDY_ALIASES,
    StageSizes,
    StudyInputs,
    VerdictQuestion,
    load_study,
    select_studies,
    study_names,
)
from ontogeny.models.model import Model
from tests.helpers.tiny_models import outspoken

STUDIES = plugins.list_plugins("studies", defining="INPUTS")
TEXT_FIELDS = {"statements", "requests", "neutral", "questions"}
NAMES = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jim")
TOWNS = ("Rome", "Oslo", "Kyiv", "Bern", "Lima", "Nice", "Doha", "Baku", "Cork", "Apia")


@pytest.fixture(scope="module")
def inputs() -> StudyInputs:
    statements = tuple(
        Example(f"{name} lives in {TOWNS[(i + shift) % 10]}.", shift == 0, name)
        for i, name in enumerate(NAMES)
        for shift in (0, 1)
    )
    answers = tuple(
        Answer(f"{name} lives in", f" {TOWNS[i]}", f" {TOWNS[i - 1]}", name) for i, name in enumerate(NAMES)
    )
    requests = tuple(
        Example(f"how to {verb} {letter} now?", verb == "break", f"{verb} {letter}")
        for verb in ("break", "paint")
        for letter in "abcdefghijkl"
    )
    return StudyInputs(
        statements=(Concept("towns", statements, answers=answers),),
        requests=Concept("requests", requests),
        neutral=tuple(f"the {animal} sat on the mat" for animal in ("cat", "dog", "cow", "hen")),
        questions=answers,
        question=VerdictQuestion("", " yes", " no", 0),
        phrases=("I cannot",),
    )


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Model]:
    from tests.helpers.tiny_models import save_tiny

    folders = tmp_path_factory.mktemp("stages")
    return {name: outspoken(save_tiny("gpt_neox", folders / name, seed=i)) for i, name in enumerate(("base", "post"))}


@pytest.mark.parametrize("name", STUDIES)
def test_study_declares_known_inputs_and_a_question(name: str) -> None:
    study = load_study(name)
    assert set(study.inputs) <= {field.name for field in fields(StudyInputs)}
    assert TEXT_FIELDS & set(study.inputs), "a study reads texts"
    assert plugins.plugin_summary("studies", name).startswith("Study: ")
    assert len({load_study(other).unit for other in STUDIES}) == len(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_study_needs_its_texts_and_no_others(name: str, inputs: StudyInputs) -> None:
    study = load_study(name)
    needed = TEXT_FIELDS & set(study.inputs)
    empty = {field: getattr(StudyInputs(), field) for field in TEXT_FIELDS}
    assert study.needs(replace(inputs, **{field: empty[field] for field in TEXT_FIELDS - needed})) is None
    for field in needed:
        missing = replace(inputs, **{field: empty[field]})
        assert f"`{field}`" in (study.needs(missing) or "")
        with pytest.raises(BadInput, match=f"the study {name} needs .*`{field}`"):
            select_studies(name, missing)


@pytest.mark.parametrize("name", STUDIES)
def test_unit_key_depends_on_the_inputs_of_the_study_only(name: str, inputs: StudyInputs) -> None:
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
        differs = json.dumps(study.digest(replace(inputs, **{field: value}))) != key
        assert differs == (field in (*study.inputs, "seed")), field


@pytest.mark.parametrize("name", STUDIES)
def test_cost_increases_with_stages(name: str, inputs: StudyInputs) -> None:
    study = load_study(name)
    few, many = (study.cost(inputs, StageSizes(stages, blocks=4)) for stages in (2, 3))
    assert 0 < few < many


@pytest.mark.parametrize("name", STUDIES)
def test_rows_name_the_given_stages(name: str, inputs: StudyInputs, stages: Mapping[str, Model]) -> None:
    study = load_study(name)
    before = {key: {k: v.clone() for k, v in model.network.state_dict().items()} for key, model in stages.items()}
    rows = list(study.run(stages, inputs, study.settings(inputs)))
    assert {row.stage for row in rows} == {"base", "post"}
    assert {row.coords.get("other_stage") for row in rows} <= {None, "base", "post"}
    assert {row.seed for row in rows} == {inputs.seed}
    assert any(row.n for row in rows)
    for key, model in stages.items():
        assert all(v.equal(before[key][k]) for k, v in model.network.state_dict().items()), "a study keeps the weights"


def test_former_names_load_the_renamed_study() -> None:
    for former, name in STUDY_ALIASES.items():
        assert load_study(former).name == name
        assert study_names(f"{former}, {name}") == [name]
    assert load_study("truth").unit == "truth", "unit keys of earlier runs"


def test_study_may_be_a_single_file(monkeypatch: pytest.MonkeyPatch, inputs: StudyInputs, tmp_path: Path) -> None:
    """`INPUTS` and `run` are enough; everything else has a default."""
    module = ModuleType("plain")
    module.INPUTS = ("neutral",)  # type: ignore[attr-defined]
    module.run = lambda stages, inputs, settings: iter(())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ontogeny.studies.plain", module)
    monkeypatch.setattr(plugins, "_builtin_names", lambda folder: [*STUDIES, "plain"])
    study = load_study("plain")
    assert (study.name, study.unit, study.settings(inputs), study.needs(inputs)) == ("plain", "plain", None, None)
    assert study.needs(StudyInputs()) == "`neutral`"
    assert study.digest(inputs) == [inputs.neutral, 0]
    assert study.cost(inputs, StageSizes(2, 4)) > 0
    assert list(study.run({}, inputs, None)) == []


@pytest.mark.parametrize(("text", "says"), [("", "at least one study"), ("truthfulnes", "did you mean truthfulness")])
def test_rejects_unknown_and_empty_names(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        study_names(text)
