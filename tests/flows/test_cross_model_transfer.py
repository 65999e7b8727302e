"""A planted concept is mapped into a model of another width, better than by null maps; without a planted concept it is not."""

import json
from pathlib import Path

import pytest

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.trace import trace
from ontogeny.jobs.transfer.cross_model import transfer_to_model
from ontogeny.jobs.transfer.measure import DirectionVector, EffectMeter, VectorEffect
from ontogeny.jobs.transfer.plan import DEFAULT_READING_SETTINGS, TransferSettings
from ontogeny.lineage import Lineage
from ontogeny.storage.run import Run
from tests.helpers import tiny_models
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import rows, save_run, write

OPTIONS = TransferSettings(controls=40, shuffles=40)
MAPS = ("native", "identity", "embeddings", "activations")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onto")
    save_run(folder / "narrow", {64: 8.0}, answers={64: 1.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_models.SHAPES, "gpt_neox", tiny_models.SHAPES["gpt_neox"] | {"hidden_size": 48})
        save_run(folder / "wide", {64: 8.0}, answers={64: 1.0})
        save_run(folder / "blank", {64: 0.0})
    write(folder / "coin.jsonl", rows(answers=True))
    seeded = '[[stages]]\nname = "pretrain"\nsource = "narrow"\ntrain_seed = 7\n'
    (folder / "lineage.toml").write_text(seeded, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    return trace(Lineage.open(place / "lineage.toml"), [_coin(place)], place / "run", DEFAULT_READING_SETTINGS)


def _coin(place: Path) -> Concept:
    return Concept.from_file(place / "coin.jsonl")


def _mapped(place: Path, run: Run, target: str, options: TransferSettings = OPTIONS) -> str:
    lineage = Lineage.open(place / "lineage.toml")
    return transfer_to_model(lineage, [_coin(place)], run.folder, str(place / target), options, traced=True)[1]


def _told(run: Run, unit: str, metric: str, name: str, control: str | None = None) -> dict[str, float]:
    beside = "control is null" if control is None else f"control = '{control}'"
    found = run.records(f"unit = '{unit}' and metric = '{metric}' and coords['map'] = '{name}' and {beside}")
    assert len(found) == 1, (metric, name, control)
    return {key: float(found[key].iloc[0]) for key in ("value", "low", "high", "n")}


def test_vector_maps_into_another_width(place: Path, run: Run) -> None:
    unit = _mapped(place, run, "wide")
    assert set(run.records(f"unit = '{unit}'").train_seed) == {7}
    native = _told(run, unit, "mapped_effect", "native")
    assert native["value"] > 1
    assert _told(run, unit, "mapped_cosine", "native")["value"] == pytest.approx(1, abs=1e-5)
    for name in ("embeddings", "activations"):
        assert _told(run, unit, "mapped_auroc", name)["value"] > 0.9
        effect = _told(run, unit, "mapped_effect", name)["value"]
        assert 0.3 * native["value"] < effect < 1.2 * native["value"]
        for control in ("shuffled_map", "random_map"):
            null = _told(run, unit, "mapped_effect", name, control)
            assert null["n"] == 20
            assert effect > null["high"]
            assert abs(null["value"]) < 0.5 * effect
        assert _told(run, unit, "mapped_p", name)["value"] < 0.05
        assert 0 < _told(run, unit, "map_r2", name)["value"] <= 1
    cosines = {name: _told(run, unit, "mapped_cosine", name)["value"] for name in ("identity", "activations")}
    assert cosines["identity"] < cosines["activations"]
    doses = run.records(
        f"unit = '{unit}' and metric = 'mapped_dose_effect' and control is null and coords['map'] = 'activations'"
    )
    curve = {float(dict(c)["dose"]): value for c, value in zip(doses.coords, doses.value, strict=True)}
    assert sorted(curve) == [0.25, 0.5, 1, 2, 4]
    assert curve[1] == pytest.approx(_told(run, unit, "mapped_effect", "activations")["value"], abs=1e-5)
    assert curve[0.25] < curve[0.5] < curve[1] < curve[2]
    again = _mapped(place, run, "wide")
    assert again == unit  # the same question takes the place of its answer


def test_mapping_fails_if_target_lacks_the_concept(place: Path, run: Run) -> None:
    unit = _mapped(place, run, "blank")
    for name in ("native", "embeddings", "activations"):
        assert _told(run, unit, "mapped_effect", name)["value"] < 0.5
        assert _told(run, unit, "mapped_auroc", name)["low"] < 0.75


def test_vector_that_does_not_reach_the_cost_does_not_end_the_transfer(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapped vector without an effect leaves the others theirs; a random direction without one leaves none of them a p."""
    stubborn = [1]

    def sometimes(meter: EffectMeter, vector: DirectionVector) -> VectorEffect:
        stubborn[0] -= 1
        if not stubborn[0]:
            raise BadInput("no alpha up to 10000 costs 0.01. Compare at a smaller cost.")
        return VectorEffect(meter.base + vector.norm(), 1.0)  # without the search for the cost

    monkeypatch.setattr(EffectMeter, "measure", sometimes)
    for calls, missing, words in ((41, {"native"}, "no alpha"), (1, set(MAPS), "a control has no effect")):
        stubborn[0] = calls
        few = TransferSettings(controls=20, shuffles=20, equal_cost=0.01, neutral=("so they say x", "it was told b"))
        unit = _mapped(place, run, "wide", few)
        rows = run.records(f"unit = '{unit}' and metric = 'mapped_effect' and control is null")
        absent = rows[rows["value"].isna()]
        assert {dict(c)["map"] for c in absent["coords"]} == missing
        assert absent["note"].str.startswith(words).all()
        assert len(run.records(f"unit = '{unit}' and metric = 'mapped_p'")) == len(MAPS) - len(missing)
        assert len(run.records(f"unit = '{unit}' and metric = 'mapped_auroc' and control is null")) == len(MAPS)


def test_command_prints_rows(place: Path, run: Run, say: Say) -> None:
    line = ["transfer", str(place / "lineage.toml"), "-c", str(place / "coin.jsonl"), "--run", str(run.folder)]
    code, out, _ = say(*line, "--to-model", place / "wide", "--no-effect", "--json")
    assert code == 0
    told = json.loads(out)
    assert {row["metric"] for row in told} == {"map_r2", "mapped_auroc", "mapped_cosine"}


def test_rejects_concept_that_was_not_traced(place: Path, run: Run) -> None:
    other = Concept.from_file(place / "coin.jsonl", name="other")
    with pytest.raises(BadInput, match="holds no other"):
        transfer_to_model(Lineage.open(place / "lineage.toml"), [other], run.folder, str(place / "wide"), traced=True)
