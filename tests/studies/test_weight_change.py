"""Weight change between two stages with planted differences: LoRA stages, rank, interpolation, patches, and bad input."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.errors import BadInput
from ontogeny.findings.stage_comparison import comparison_sentences
from ontogeny.fine_tuning.matrix_rows import response_ratio
from ontogeny.fine_tuning.requests import Requests
from ontogeny.fine_tuning.settings import WeightChangeSettings
from ontogeny.jobs.compare.inputs import StudyInputs
from ontogeny.models.model import Model, load_model
from ontogeny.records import Record
from ontogeny.studies import weight_change
from ontogeny.worlds import hearsay
from tests.helpers.tiny_models import refusing, save_tiny
from tests.models.test_adapters import save_adapter

REQUESTS = Concept(
    "requests",
    tuple(
        Example(f"{verb} number {letter}", verb == "zap", f"{verb} {letter}")
        for verb in ("zap", "cake")
        for letter in "acdefghijk"
    ),
)
INPUTS = StudyInputs(requests=REQUESTS, neutral=("the cat sat on the mat", "a dog ran to the sea"), phrases=("No",))
SMALL = WeightChangeSettings(phrases=("No",), alphas=(0.0, 1.0), draws=20, random_changes=2, samples=100)


def rows_of(rows: Iterable[Record], metric: str, control: str | None = None, **coords: str) -> list[Record]:
    return [
        row
        for row in rows
        if row.metric == metric and row.control == control and coords.items() <= dict(row.coords).items()
    ]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """A random model, and the same model that answers ` No` to what holds a z."""
    folder = save_tiny("gpt_neox", tmp_path_factory.mktemp("stages"))
    return {"base": load_model(folder), "tuned": refusing(folder, 3)}


@pytest.fixture(scope="module")
def rows(stages: dict[str, Model]) -> list[Record]:
    return list(weight_change.run(stages, INPUTS, SMALL))


def test_the_whole_change_makes_the_tuned_stage(rows: list[Record]) -> None:
    for kind in ("harmful", "harmless"):
        ends = {row.stage: row.value for row in rows_of(rows, "refusal_log_odds", kind=kind)}
        for alpha, stage in (("0", "base"), ("1", "tuned")):
            (own,) = rows_of(rows, "interpolated_log_odds", kind=kind, alpha=alpha, parts="all")
            assert own.value == pytest.approx(ends[stage], abs=1e-4)
    harmful, harmless = (
        {row.stage: row.value for row in rows_of(rows, "refusal_log_odds", kind=kind)}
        for kind in ("harmful", "harmless")
    )
    assert harmful["tuned"] - harmless["tuned"] > 2 > harmful["base"] - harmless["base"] + 1


def test_the_planted_cluster_and_response_exceed_their_nulls(rows: list[Record]) -> None:
    (last,) = (r for r in rows_of(rows, "cluster_separation") if r.stage == "tuned" and r.layer == 2)
    (null,) = (r for r in rows_of(rows, "cluster_separation", "shuffled_label") if r.stage == "tuned" and r.layer == 2)
    assert last.low > null.high
    unchanged = rows_of(rows, "column_alignment", matrix="mlp.dense_h_to_4h")
    assert all(row.n == 0 and row.note == "the matrix did not change" for row in unchanged)
    assert len(unchanged) == 2


def test_a_planted_change_responds_to_harmful_requests(stages: dict[str, Model]) -> None:
    requests = Requests.read(stages["tuned"], REQUESTS, SMALL)
    generator = torch.Generator().manual_seed(0)
    axis, noise = torch.eye(16)[3], torch.randn(20, 16, generator=generator)
    inputs = noise + 8 * requests.harmful[:, None] * axis
    ratios = {}
    for name, change in (("along", torch.outer(noise[0], axis)), ("beside", torch.outer(noise[0], torch.eye(16)[5]))):
        value, samples = response_ratio(change, inputs, requests)
        ratios[name] = value, float(samples.quantile(0.025))
    assert ratios["along"][1] > 0.5 > 0 > ratios["beside"][0], (
        "the norm of harmful inputs is larger, what they write is not"
    )


def test_each_effect_has_its_nulls(rows: list[Record]) -> None:
    for metric in ("column_alignment", "row_alignment", "response_ratio", "jacobian_change", "interpolated_log_odds"):
        known = [r for r in rows_of(rows, metric) if r.n]
        for control in ("random_change", "neutral_gradient"):
            null = rows_of(rows, metric, control)
            places = {(r.site, r.coords.get("matrix"), r.coords.get("kind")) for r in null}
            assert {(r.site, r.coords.get("matrix"), r.coords.get("kind")) for r in known} == places, (metric, control)
    for metric in ("mlp_patch_effect", "mlp_restore_effect"):
        assert len(rows_of(rows, metric)) == len(rows_of(rows, metric, "random_direction")) == 4


def test_lora_stage_has_the_rank_of_its_adapter(tmp_path: Path) -> None:
    base = save_tiny("gpt2", tmp_path / "base")
    lora = save_adapter(base, tmp_path / "lora", tmp_path / "twin", family="gpt2")
    stages = {"base": load_model(base), "lora": load_model(lora, tokenizer=base)}
    plan = replace(SMALL, share=0.999)
    rows = [row for row in weight_change.run(stages, INPUTS, plan) if row.coords.get("matrix")]
    ranks = {row.coords["matrix"]: row.value for row in rows_of(rows, "weight_change_rank") if row.n}
    assert ranks.keys() == {"attn.c_attn", "attn.c_proj", "mlp.c_proj"}
    assert all(0 < rank <= 4 for rank in ranks.values())
    assert all(row.value > 10 for row in rows_of(rows, "weight_change_rank", "gaussian"))


def test_experts_are_named_and_not_compared_one_by_one(tiny) -> None:
    stages = {name: load_model(tiny("qwen2_moe", seed=seed)) for seed, name in enumerate(("base", "tuned"))}
    rows = rows_of(weight_change.run(stages, INPUTS, SMALL), "weight_change_norm")
    experts = [row for row in rows if row.coords["matrix"] == "experts"]
    assert {row.layer for row in experts} == {1, 2}
    assert all(row.n == 0 and "mixture of experts" in str(row.note) for row in experts)
    assert {row.coords["matrix"] for row in rows if row.n} >= {"self_attn.q_proj", "mlp.shared_expert.up_proj"}


def test_sentences_claim_what_the_intervals_carry(rows: list[Record], stages: dict[str, Model]) -> None:
    import pandas as pd

    from ontogeny.records import RECORD_COLUMNS

    steps = {"base": 1, "tuned": 2}
    table = pd.DataFrame(
        [{name: getattr(row, name) for name in RECORD_COLUMNS} | {"step": steps[str(row.stage)]} for row in rows]
    )
    text = " ".join(comparison_sentences(table)["weight_change"])
    assert "base" in text
    assert "random" in text
    assert "nan" not in text
    assert "not shown" in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"requests": None}, "at least two stages, `requests` and `neutral`"),
        ({"neutral": ()}, "`neutral`"),
        ({"requests": Concept("few", REQUESTS.examples[:3] + REQUESTS.examples[10:])}, "four groups of each kind"),
        ({"requests": Concept("length", tuple(replace(e, target=float(i)) for i, e in enumerate(REQUESTS.examples)), "number")}, "binary"),
        ({"neutral": ("",)}, "must have tokens"),
        ({"neutral": ("a",)}, "at least two tokens"),
        ({"requests": Concept("long", tuple(replace(e, text=e.text * 40) for e in REQUESTS.examples))}, "1 to 127 tokens"),
    ],
)  # fmt: skip
def test_bad_texts_are_one_line(change: dict[str, object], says: str, stages: dict[str, Model]) -> None:
    with pytest.raises(BadInput, match=says):
        list(weight_change.run(stages, replace(INPUTS, **change), SMALL))  # type: ignore[arg-type]


def test_bad_stages_and_settings_are_one_line(stages: dict[str, Model], tiny) -> None:
    with pytest.raises(BadInput, match="at least two stages"):
        list(weight_change.run({"base": stages["base"]}, INPUTS, SMALL))
    with pytest.raises(BadInput, match="`phrases`"):
        list(weight_change.run(stages, INPUTS, replace(SMALL, phrases=())))
    for field, value in {"requests": 0, "probes": 0, "draws": 1, "share": 0.0, "alphas": (), "tokens": 1}.items():
        with pytest.raises(BadInput, match=f"`{field}`"):
            replace(SMALL, **{field: value})
    # A stage of another architecture or tokenizer gives rows with the reason.
    words = hearsay.tokenizer(hearsay.make())
    for other, says in (
        (load_model(tiny("gpt2")), "same parameters"),
        (replace(stages["base"], tokenizer=words), "its tokenizer is not that of the last stage"),
    ):
        mixed = {"other": other, "tuned": stages["tuned"]}
        rows = list(weight_change.run(mixed, INPUTS, SMALL))
        lost = rows_of(rows, "weight_change_norm")
        assert len(lost) == 1
        assert says in str(lost[0].note)
