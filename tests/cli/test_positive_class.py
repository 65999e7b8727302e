"""The positive class is said in the dry run, the summary, the report, `steer`, and on each vector; and it can be stated."""

import json
from pathlib import Path

import pytest

from ontogeny.jobs.run_json import describe_concept
from ontogeny.storage.run import Run
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import planted, rows
from tests.helpers.tiny_models import byte_tokenizer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("positive")
    planted(4.0).save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    words = {"1": "singular", "0": "plural"}
    table = [row | {"label": words[str(row["label"])], "type": "x", "position": 3} for row in rows(characters=30)]
    (folder / "number.jsonl").write_text("\n".join(map(json.dumps, table)))
    return folder


def trace(place: Path, out: str, *more: object) -> list[object]:
    known = ("--sites", "resid.1", "--probes", "mass_mean", "--no-untrained", "-q", "--ignore-column", "position")
    return ["trace", place / "model", "-c", place / "number.jsonl", *known, "-o", place / out, *more]


@pytest.mark.usefixtures("one_view")
@pytest.mark.parametrize(
    ("given", "positive", "negative"), [((), "plural", "singular"), (("--positive", "singular"), "singular", "plural")]
)
def test_positive_class_is_said_everywhere(
    say: Say, place: Path, given: tuple[str, ...], positive: str, negative: str
) -> None:
    first = json.loads((place / "number.jsonl").read_text().splitlines()[0])["label"]
    if not given and first != positive:
        positive, negative = negative, positive
    meaning = f"1 = {positive}, 0 = {negative}"
    out = f"run-{len(given)}"
    assert meaning in say(*trace(place, out, *given, "--dry-run"))[1]
    code, summary, _ = say(*trace(place, out, *given))
    assert code == 0
    assert f"number: {meaning}" in summary
    code, _, _ = say("report", place / out, "--out", place / f"{out}.html")
    assert code == 0
    assert meaning in (place / f"{out}.html").read_text()
    assert Run.open(place / out).direction("number", site="resid.1").sign == positive
    steer = ("steer", place / "model", "-d", f"{place / out}:number", "-p", "Once", "--tokens", 2)
    assert f"towards {positive}" in say(*steer)[1]
    assert json.loads(say(*steer, "--json")[1])["towards"] == positive


def test_positive_must_be_a_label(say: Say, place: Path) -> None:
    code, _, error = say(*trace(place, "none", "--positive", "dual"))
    assert code == 2
    assert "--positive must be one of two labels, got 'dual'" in error


def test_column_of_another_meaning_names_its_way_out(say: Say, place: Path) -> None:
    words = [word for word in trace(place, "none") if word not in ("--ignore-column", "position")]
    code, _, error = say(*words)
    assert code == 2
    assert "leave it out with --ignore-column" in error


@pytest.mark.parametrize(
    ("prompt", "right", "wrong", "warning"),
    [
        ("The cat was", "happy", "sad", "run into one word in 2 of 2 answers"),
        ("The cat was", "happy", " sad", "run into one word in 1 of 2 answers"),
        ("The cat was ", " happy", " sad", "meet with two spaces in 2 of 2 answers"),
        ("The cat was", " happy", " sad", None),
        ("The cat was ", "happy", "sad", None),
        ("Answer:", "yes", "no", None),
        ("猫は", "元気", "悲しい", None),
    ],
)
def test_seams_of_questions_have_warnings(prompt: str, right: str, wrong: str, warning: str | None) -> None:
    from ontogeny import Concept
    from ontogeny.data.examples import Answer, Example

    examples = tuple(Example(f"text {i}", bool(i % 2), f"g{i}") for i in range(20))
    concept = Concept("c", examples, answers=(Answer(prompt, right, wrong, "g0"),))
    warnings = describe_concept(concept, ["other"])["warnings"]
    assert warnings[0] == "other"
    assert describe_concept(concept, warnings)["warnings"] == warnings, "a resumed run says it once"
    assert (warning is None and len(warnings) == 1) or warning in warnings[1]
