"""Pages of studies: one study with its claims, verdicts and pictures; and all studies on one page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ontogeny.claims.claim import JudgedClaim
from ontogeny.findings.literature import CHALLENGES, SYSTEMS
from ontogeny.jobs.study.paper_study import PaperStudy
from ontogeny.jobs.study.study import judge_study, study_of_run
from ontogeny.report.html import RawScript
from ontogeny.storage.files import atomic_path
from ontogeny.storage.run import Run
from ontogeny.views import EMBED_SCRIPT, content_security_policy, embedded_json, study_chart, vega_bundle


@dataclass(frozen=True)
class _Page:
    """A study on a page."""

    study: PaperStudy
    about: Mapping[str, Any]
    judged: Sequence[JudgedClaim]
    pictures: Sequence[tuple[str, str, str]]
    """Identifier, title and caption."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of claims by verdict."""
        verdicts = ("held", "did not hold", "undecided")
        return {verdict: sum(j.verdict == verdict for j in self.judged) for verdict in verdicts}


def write_study_report(run: Run, out: Path) -> Path:
    """Write the page of a study and return it.

    Raises:
        BadInput: the run is not that of a study.
    """
    return _write([run], out)


def write_replication_report(runs: Sequence[Run], out: Path) -> Path:
    """Write one page with all studies: the systems of the literature, their claims and our verdicts."""
    return _write(runs, out, systems=True)


def _write(runs: Sequence[Run], out: Path, *, systems: bool = False) -> Path:
    specs: dict[str, Any] = {}
    pages = [_page(run, specs) for run in runs]
    bundle = vega_bundle()
    environment = Environment(
        loader=PackageLoader("ontogeny.report.study_html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("study.html.j2").render(
        title="What replicates at small scale" if systems else pages[0].study.title,
        pages=pages,
        by_study={page.study.name: page for page in pages},
        systems=SYSTEMS if systems else (),
        challenges={challenge.number: challenge.text for challenge in CHALLENGES},
        today=date.today().isoformat(),
        provenance={page.study.name: json.dumps(page.about, indent=2, ensure_ascii=False) for page in pages},
        policy=content_security_policy(bundle, EMBED_SCRIPT),
        specs=RawScript(embedded_json(specs)),
        bundle=RawScript(bundle),
        embed=RawScript(EMBED_SCRIPT),
    )
    with atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return out


def _page(run: Run, specs: dict[str, Any]) -> _Page:
    study = study_of_run(run)
    pictures = []
    for number, picture in enumerate(study.pictures, 1):
        metrics = ", ".join(f"'{metric}'" for metric in picture.metrics)
        identifier = f"{study.name}-{number}"
        specs[identifier] = study_chart(run.records(f"metric in ({metrics})"), picture).to_dict()
        pictures.append((identifier, picture.title, picture.caption))
    return _Page(study, run.about, judge_study(run), pictures)
