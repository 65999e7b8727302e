"""What a command chooses by a name: the concept of `-c`, its columns, the sites of a model; found out before any weight is read."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ontogeny import plugins
from ontogeny.cli._arguments import concept_from_argument
from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.plan import plan_trace
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models import loading
from ontogeny.models.model import load_model, tokenizer_fingerprint
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import rows, save_run, write

QUICK = TraceSettings(sites="resid", fits=("logistic", "mass_mean"), resamples=100, permutations=100, untrained=False)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "planted.csv", rows(characters=30))


def test_a_folder_does_not_hide_a_concept_of_that_name_and_a_file_does(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = Concept.from_file(table, name="robustness")
    load_plugin = plugins.load_plugin
    named = SimpleNamespace(concept=lambda seed: made)
    monkeypatch.setattr(plugins, "load_plugin", lambda f, n: named if n == "robustness" else load_plugin(f, n))
    (tmp_path / "robustness").mkdir()
    assert concept_from_argument("robustness") == made
    assert concept_from_argument("robustness", template=True).template
    (tmp_path / "robustness").rmdir()
    (tmp_path / "robustness").write_bytes(table.read_bytes())
    with pytest.raises(BadInput, match="must end in"):  # the file is meant now, and has no format
        concept_from_argument("robustness")
    with pytest.raises(BadInput, match="no concept called 'robustnes'; did you mean robustness"):
        concept_from_argument("robustnes")


def test_a_file_with_both_names_of_a_column_says_how_to_choose(tmp_path: Path) -> None:
    path = write(tmp_path / "both.csv", [row | {"target": str(i % 2)} for i, row in enumerate(rows(characters=30))])
    with pytest.raises(BadInput, match=r"both columns 'label' and 'target'.*`label`"):
        concept_from_argument(str(path))
    one, other = (concept_from_argument(str(path), label=name) for name in ("label", "target"))
    assert one.hash != other.hash
    assert [e.target for e in other.examples] == [bool(i % 2) for i in range(len(other.examples))]
    odd = write(tmp_path / "odd.csv", [{"words": r["text"], "verdict": r["label"]} for r in rows(characters=30)])
    with pytest.raises(BadInput, match=r"no column 'text' or 'statement'.*`text`"):
        concept_from_argument(str(odd))
    assert concept_from_argument(str(odd), text="words", label="verdict").texts == one.texts


@pytest.mark.parametrize(
    ("sites", "why"),
    [("resid.7", "layers are 0 to 2"), ("head.1.9", "heads are 0 to 3"), ("resid,mlp.2-5", "layers are 1 to 2")],
)
def test_a_layer_that_is_not_there_is_found_before_a_model_is_opened(
    sites: str, why: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    save_run(tmp_path / "run", {1: 8.0})
    monkeypatch.setattr(loading, "load_network", lambda *_: pytest.fail("weights were read"))
    code, _, err = say("trace", tmp_path / "run", "-c", table, "-o", tmp_path / "out", "--sites", sites)
    assert code == 2
    assert why in err
    assert "--sites" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "opt", "bloom"])
def test_the_shape_is_told_by_the_config_of_each_family(family: str, tiny, table: Path) -> None:
    concepts = [Concept.from_file(table)]
    plan_trace(Lineage.open(tiny(family)), concepts, TraceSettings(sites="resid.2,head.2.3", untrained=False))
    for sites in ("resid.3", "head.1.4"):
        with pytest.raises(BadInput, match="this model's"):
            plan_trace(Lineage.open(tiny(family)), concepts, TraceSettings(sites=sites, untrained=False))


def test_a_direction_of_a_run_says_its_positive_end_and_its_tokenizer(tmp_path: Path) -> None:
    words = {"0": "false", "1": "sound"}
    table = [row | {"label": words[row["label"]]} for row in rows(characters=60)]
    save_run(tmp_path / "run", {1: 8.0})
    run = trace(
        Lineage.open(tmp_path / "run"),
        [Concept.from_file(write(tmp_path / "planted.csv", table))],
        tmp_path / "out",
        QUICK,
    )
    found = run.direction("planted")
    model = load_model(tmp_path / "run" / "checkpoint-1", tokenizer=tmp_path / "run")
    assert (found.sign, found.tokenizer) == ("sound", tokenizer_fingerprint(model))
