"""Every study plug-in: it names its inputs, needs no others, has stable unit keys, and its rows name stages by the given keys."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from ontogeny import plugins
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.verdict_question import VerdictQuestion
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import STUDY_ALIASES, StageSizes, StudyInputs, load_study, study_names
from ontogeny.models.model import Model
from ontogeny.testing import STUDY_CLAUSES
from ontogeny.testing.studies import names_the_given_stages_and_keeps_the_weights
from tests.helpers.tiny_models import outspoken

STUDIES = plugins.list_plugins("studies", defining="INPUTS")
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


@pytest.mark.parametrize("clause", STUDY_CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("name", STUDIES)
def test_study_meets_the_contract(name: str, clause: object, inputs: StudyInputs) -> None:
    assert callable(clause)
    clause(name, inputs)


@pytest.mark.parametrize("name", STUDIES)
def test_rows_name_the_given_stages(name: str, inputs: StudyInputs, stages: Mapping[str, Model]) -> None:
    names_the_given_stages_and_keeps_the_weights(name, inputs, stages)


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
