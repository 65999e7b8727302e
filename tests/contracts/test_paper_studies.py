"""Every study of a paper: its smoke preset runs, is reproducible, and has the rows that its claims, null runs and pictures read."""

import functools
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from ontogeny import plugins
from ontogeny.findings.literature import CHALLENGES, SYSTEMS
from ontogeny.jobs.study.paper_study import PRESET_NAMES, Lab, load_paper_study, paper_study_names
from ontogeny.jobs.study.study import judge_study, plan_study, run_study
from ontogeny.report.study_html import write_study_report
from ontogeny.storage.run import Run
from ontogeny.views import empty_reason, study_chart

STUDIES = paper_study_names()


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """smoke("swing_by") -> its smoke preset, run where it is first asked for."""
    home = tmp_path_factory.mktemp("studies")
    return functools.cache(lambda name: run_study(plan_study(name, "smoke", seeds=1), home / name))


@pytest.mark.parametrize("name", STUDIES)
def test_says_what_it_is(name: str) -> None:
    study = load_paper_study(name)
    assert plugins.plugin_summary("studies", name).startswith("Study: ")
    assert "arXiv:" in study.paper
    assert study.setup
    assert set(study.presets) == set(study.seconds) == set(PRESET_NAMES)
    types = {type(settings) for settings in study.presets.values()}
    assert len(types) == 1
    assert all(is_dataclass(t) and t.__dataclass_params__.frozen for t in types)  # type: ignore[attr-defined]
    assert all(isinstance(f.default, int | float | str | bool | tuple) for f in fields(types.pop()))
    numbers = {challenge.number for challenge in CHALLENGES if not challenge.out_of_scope}
    assert set(study.challenges) <= numbers
    assert len({claim.name for claim in study.claims}) == len(study.claims) > 0
    for claim in study.claims:
        assert claim.text.endswith(".")
        assert claim.source
        assert claim.reported
        assert claim.null


@pytest.mark.parametrize("name", STUDIES)
def test_smoke_preset_has_the_rows_of_each_claim_and_picture(name: str, smoke: Callable[[str], Run]) -> None:
    study, records = load_paper_study(name), smoke(name).records()
    for claim in study.claims:
        if "4 layers" not in repr(claim.shape):  # the smoke preset of a sweep over depths has fewer
            assert claim.shape.effects(records), claim.name
            assert claim.shape.under(claim.null).effects(records), f"{claim.name} has no null run"
    for picture in study.pictures:
        assert empty_reason(study_chart(records, picture)) is None, picture.title
    assert records["train_seed"].notna().all()
    assert {j.verdict for j in judge_study(smoke(name))} <= {"held", "did not hold", "undecided"}


@pytest.mark.parametrize("name", STUDIES)
def test_page_has_each_claim(name: str, smoke: Callable[[str], Run], tmp_path: Path) -> None:
    page = write_study_report(smoke(name), tmp_path / "page.html").read_text(encoding="utf-8")
    study = load_paper_study(name)
    for claim in study.claims:
        assert claim.source.split(",")[0] in page
    assert study.title in page


@pytest.mark.parametrize("name", STUDIES)
def test_same_seed_gives_the_same_rows(name: str, smoke: Callable[[str], Run], tmp_path: Path) -> None:
    study = load_paper_study(name)
    rows = [
        (r.metric, r.stage, r.step, r.control, r.value)
        for r in study.run(study.presets["smoke"], Lab(name, 0, tmp_path))
    ]
    kept = smoke(name).records()
    before = list(kept[["metric", "stage", "step", "control", "value"]].itertuples(index=False, name=None))
    assert len(rows) == len(before)
    assert sorted(v for *_, v in rows if v == v) == sorted(v for *_, v in before if v == v)


def test_systems_name_existing_studies() -> None:
    named = {name for system in SYSTEMS for name in system.studies}
    assert named == set(STUDIES)


def test_systems_have_a_paper_and_a_claim_each() -> None:
    assert len({system.paper for system in SYSTEMS}) == len(SYSTEMS) == 27
    assert all(system.claim.endswith(".") for system in SYSTEMS)
