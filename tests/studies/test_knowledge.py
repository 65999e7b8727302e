"""Knowledge study: planted knowledge is located, and kept, adapted and new places are distinguished."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.verdict_question import VerdictQuestion
from ontogeny.errors import BadInput
from ontogeny.models.model import load_model
from ontogeny.patching.map_statistics import (
    PatchMap,
    bin_cells,
    map_effect,
    null_correlation,
    retention,
)
from ontogeny.patching.patch_maps import PatchModes, compute_patch_maps, layout_pairs
from ontogeny.patching.prompt_pairs import mine_pairs, realign_pairs
from ontogeny.statistics.correlation import pearson_correlation, spearman_correlation
from ontogeny.studies.knowledge import KnowledgeSettings, patch_stages
from tests.helpers.tiny_models import SHAPES, byte_tokenizer, outspoken, save_tiny

NAMES = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jim")
TOWNS = ("Rome", "Oslo", "Kyiv", "Bern", "Lima", "Nice", "Doha", "Baku", "Cork", "Apia")
QUICK = KnowledgeSettings(samples=100, draws=0, noise=0, attribution=False)


def towns(*, answers=True):
    """True and false statements about who lives where, and questions with answers."""
    examples = [
        Example(f"{name} lives in {TOWNS[(i + shift) % 10]}.", shift == 0, name)
        for i, name in enumerate(NAMES)
        for shift in (0, 1)
    ]
    asked = tuple(Answer(f"{name} lives in", f" {TOWNS[i]}", f" {TOWNS[i - 1]}", name) for i, name in enumerate(NAMES))
    return Concept("towns", tuple(examples), answers=asked if answers else ())


def told_apart(model, found):
    """The pairs with the answer that this model prefers as the right one: a random model has preferences, too."""
    exact = compute_patch_maps(model, layout_pairs(found.pairs), PatchModes()).maps["patch"]
    turned = [
        pair if high > low else replace(pair, right=pair.wrong, wrong=pair.right)
        for pair, low, high in zip(found.pairs, exact.floor, exact.ceiling, strict=True)
    ]
    return replace(found, pairs=tuple(turned))


def rows_of(records, metric, **wanted):
    return [r for r in records if r.metric == metric and all(getattr(r, k) == v for k, v in wanted.items())]


# --- pairs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [True, False])
def test_recall_pairs_differ_in_their_subject(answers):
    """Answers, and true statements without their last word, give the same pairs."""
    found = mine_pairs(towns(answers=answers), byte_tokenizer(), pairing="recall")
    assert len(found) == found.tried == 10
    for pair in found.pairs:
        assert len(pair.clean) == len(pair.corrupt) == len(pair.roles)
        assert pair.drawn.clean.text[3:] == pair.drawn.corrupt.text[3:] == " lives in"
        differs = [x != y for x, y in zip(pair.clean, pair.corrupt, strict=True)]
        assert all(role.startswith("subject") for role, d in zip(pair.roles, differs, strict=True) if d)
        assert pair.roles[-1] == "last"
        assert pair.right != pair.wrong


def test_same_object_pairs_share_their_last_word():
    found = mine_pairs(towns(), byte_tokenizer(), pairing="same_object", question=VerdictQuestion(shots=2))
    assert len(found)
    for pair in found.pairs:
        clean, corrupt = (p.text.split("\n")[-1].split(".")[0] for p in (pair.drawn.clean, pair.drawn.corrupt))
        assert clean.split()[-1] == corrupt.split()[-1]
        assert clean.split()[0] != corrupt.split()[0]
        assert {"subject_last", "between", "object", "after", "last"} <= set(pair.roles)
        # Examples that are shown are not asked, and all prompts begin with them.
        head = pair.drawn.clean.text.rsplit("\n", 1)[0]
        assert head == found.pairs[0].drawn.clean.text.rsplit("\n", 1)[0]
        assert clean not in head
        assert corrupt not in head


def test_one_span_pairs_that_differ_in_the_last_word_have_the_role_object():
    examples = tuple(
        Example(f"{name} lives in {town}.", town == TOWNS[i], name)
        for i, name in enumerate(NAMES)
        for town in (TOWNS[i], TOWNS[(i + 1) % 10])
    )
    found = mine_pairs(
        Concept("towns", examples), byte_tokenizer(), pairing="one_span", question=VerdictQuestion(shots=0)
    )
    assert len(found)
    assert all("object" in pair.roles for pair in found.pairs)


def test_mining_is_deterministic_and_limited():
    tokenizer = byte_tokenizer()
    assert mine_pairs(towns(), tokenizer, seed=3) == mine_pairs(towns(), tokenizer, seed=3)
    assert len(mine_pairs(towns(), tokenizer, limit=2)) == 2


def test_rejects_statements_without_pairs():
    words = ("a", "to", "ten", "four", "seven", "eleven", "fifteen", "thirteen", "seventeen", "seventy-one")
    lone = Concept("lone", tuple(Example(f"{'x' * i} {w}.", i % 2 == 0, w) for i, w in enumerate(words)))
    with pytest.raises(BadInput, match=r"^no pairs of lone align \(recall: \d+ prompts, .*\)\. Give more") as told:
        mine_pairs(lone, byte_tokenizer())
    assert "\n" not in str(told.value)
    with pytest.raises(BadInput, match="did you mean"):
        mine_pairs(lone, byte_tokenizer(), pairing="recal")
    same = Concept("same", tuple(Example(e.text, e.target, e.group) for e in towns().examples))
    with pytest.raises(BadInput, match="answers that one token cannot tell apart"):
        mine_pairs(same, byte_tokenizer(), pairing="same_object", question=VerdictQuestion(true=" YES", false=" YES"))


def test_pairs_realign_under_another_tokenizer():
    found = mine_pairs(towns(), byte_tokenizer(), pairing="recall")
    again = realign_pairs(found, byte_tokenizer(bos=True))
    assert len(again) == len(found)
    assert all(len(b.clean) == len(a.clean) + 1 for a, b in zip(found.pairs, again.pairs, strict=True))


# --- maps ----------------------------------------------------------------------------------------------------------------


def test_effect_is_0_at_the_floor_and_1_at_the_ceiling():
    odds = torch.full((3, 2, 2), torch.nan)
    floor, ceiling = torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([1.0, 2.0, 5.0])
    odds[:, 0, 0], odds[:, 1, 0], odds[:2, 0, 1], odds[:2, 1, 1] = floor, ceiling, floor[:2], (floor + ceiling)[:2] / 2
    found = map_effect(PatchMap(odds, floor, ceiling, torch.ones(2, 2, dtype=torch.bool)), torch.ones(1, 3))[0]
    torch.testing.assert_close(found, torch.tensor([[0, 0], [1, 0.5]], dtype=torch.float64))


def test_correlations_equal_scipy():
    from scipy import stats

    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 4, 9, generator=g, dtype=torch.float64)
    for i in range(4):
        assert pearson_correlation(a, b)[i] == pytest.approx(stats.pearsonr(a[i], b[i])[0])
        assert spearman_correlation(a, b)[i] == pytest.approx(stats.spearmanr(a[i], b[i])[0])
    assert math.isnan(pearson_correlation(torch.ones(3), torch.arange(3.0)))


def test_binning_inflates_the_agreement_of_unrelated_maps():
    """Two maps share one hot cell and have noise elsewhere; binning removes the noise."""
    g = torch.Generator().manual_seed(0)
    a, b = (torch.rand(30, generator=g) for _ in range(2))
    a[0] = b[0] = 3.0
    assert pearson_correlation(bin_cells(a), bin_cells(b)) > 0.95 > pearson_correlation(a, b)
    assert bin_cells(torch.tensor([0.0, 1.0, 0.49, 0.51])).tolist() == pytest.approx([0, 1, 0, 0.1])


def test_null_correlation_permutes_whole_layers():
    """A band across one of six layers matches itself in one of six permutations."""
    map = torch.zeros(6, 4)
    map[2] = 1.0
    share = float((null_correlation(map, map, samples=2000, seed=0) > 0.99).float().mean())
    assert share == pytest.approx(1 / 6, abs=0.03)


def test_retention_of_planted_places():
    """Four places: one kept, one adapted, one new, one lost."""
    was = torch.tensor([[[0.9, 0.9], [0.0, 0.9]]])
    now = torch.tensor([[[0.8, 0.8], [0.8, 0.0]]])
    crossed = torch.tensor([[[0.8, 0.1], [0.3, 0.0]]])
    found = retention(was, now, crossed, torch.ones(2, 2, dtype=torch.bool))
    assert [float(x) for x in (found.kept, found.adapted, found.new, found.lost)] == pytest.approx([1 / 3] * 4)
    assert float(found.transfer) == pytest.approx(1.2 / 2.4)
    assert found.places == 3
    none = retention(was, 0 * now, crossed, torch.ones(2, 2, dtype=torch.bool))
    assert none.kept.isnan().all()
    assert none.transfer.isnan().all()


# --- a visit, and rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bloom", "gemma2", "gpt_neox", "opt"])
def test_maps_do_not_depend_on_the_batch(tiny, family):
    model = outspoken(tiny(family))
    pairs = mine_pairs(towns(), model.tokenizer).pairs
    whole, parts = (
        compute_patch_maps(model, layout_pairs(pairs, batch=batch), PatchModes(noise=1, attribution=True))
        for batch in (32, 2)
    )
    assert whole.cost.note is None
    for mode, map in whole.maps.items():
        torch.testing.assert_close(map.odds, parts.maps[mode].odds, rtol=2e-3, atol=2e-3, equal_nan=True)
    exact = whole.maps["patch"]
    assert (exact.odds - exact.floor[:, None, None])[:, exact.free].abs().nan_to_num().max() > 1e-2
    # After the last block the last token's stream is the clean run's answer, and no other token is read.
    torch.testing.assert_close(exact.odds[:, -1, -1], exact.ceiling, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(exact.odds[:, -1, 0], exact.floor, rtol=1e-3, atol=1e-3)


def test_family_without_usable_cache_is_patched_by_full_passes(tiny, monkeypatch):
    model = outspoken(tiny("gpt2"))
    layout = layout_pairs(
        mine_pairs(towns(), model.tokenizer, pairing="same_object", question=VerdictQuestion(shots=2)).pairs
    )
    fast = compute_patch_maps(model, layout, PatchModes(noise=1, attribution=True))
    monkeypatch.setattr("ontogeny.patching.kv_cache.LayerCache.get_seq_length", lambda _: 0)
    slow = compute_patch_maps(model, layout, PatchModes(noise=1, attribution=True))
    assert fast.cost.note is None
    assert "from its whole pass" in slow.cost.note
    assert slow.cost.computed > 2 * fast.cost.computed
    for mode, map in fast.maps.items():
        torch.testing.assert_close(map.odds, slow.maps[mode].odds, rtol=2e-3, atol=2e-3, equal_nan=True)


def test_own_states_as_source_give_the_own_map(tiny):
    model = outspoken(tiny("gpt_neox"))
    layout = layout_pairs(mine_pairs(towns(), model.tokenizer).pairs)
    first = compute_patch_maps(model, layout, PatchModes())
    again = compute_patch_maps(model, layout, PatchModes(patch=False), sources={"itself": first.states})
    assert torch.equal(again.maps["cross:itself"].odds, first.maps["patch"].odds)
    other = again.maps["other:itself"]
    assert torch.equal(other.odds, other.floor[:, None, None].expand_as(other.odds))


def test_planted_attention_path_is_found(tiny):
    """If only the second block attends to other tokens, the subject's information stays at the subject up to the first block."""
    model = outspoken(tiny("llama"))
    with torch.no_grad():
        model.part(1, model.architecture.heads_out).get_parameter("weight").zero_()
    found = compute_patch_maps(model, layout_pairs(mine_pairs(towns(), model.tokenizer).pairs), PatchModes()).maps[
        "patch"
    ]
    moved = (found.odds - found.floor[:, None, None]).abs().mean(0)
    names = layout_pairs(mine_pairs(towns(), model.tokenizer).pairs).columns
    subject, last = [i for i, name in enumerate(names) if name.startswith("subject")], names.index("last")
    assert moved[1, subject].max() > 0.05
    assert moved[1, last] == pytest.approx(0.0, abs=1e-5)
    assert moved[2, last] > 0.05
    assert moved[2, subject].max() == pytest.approx(0.0, abs=1e-5)


def test_identical_stages_keep_all_knowledge(tiny):
    model = outspoken(tiny("gpt_neox"))
    pairs = told_apart(model, mine_pairs(towns(), model.tokenizer))
    records = list(patch_stages({"base": model, "post": model}, pairs, KnowledgeSettings(samples=100)))
    (r,) = rows_of(records, "map_correlation", method="pearson")
    assert r.value == pytest.approx(1.0)
    assert (r.stage, r.coords["other_stage"]) == ("post", "base")
    assert {r.value for r in rows_of(records, "patch_effect_difference") if r.n} <= {0.0}
    for source, target in (("base", "post"), ("post", "base")):
        (transfer,) = [
            r for r in rows_of(records, "knowledge_transfer", stage=target) if r.coords["other_stage"] == source
        ]
        assert transfer.value == pytest.approx(1.0, abs=1e-4)
        own = {(r.site, r.position): r.value for r in rows_of(records, "patch_effect", stage=target, method="patch")}
        crossed = {(r.site, r.position): r.value for r in rows_of(records, "cross_effect", stage=target)}
        assert crossed == pytest.approx(own, abs=1e-4)
    # Forward only: what the later stage kept of the earlier one.
    (kept,) = rows_of(records, "knowledge_kept")
    assert (kept.stage, kept.value) == ("post", 1.0)
    cost = rows_of(records, "patch_cost")
    assert len(cost) == 2
    assert all(1.0 <= r.value <= 1.3 for r in cost)


def test_rotated_basis_in_the_same_place_is_adapted(tiny):
    """The same model in another basis has the same maps, but its states do not work in the first model."""
    base = outspoken(tiny("llama"))
    turned = copy.deepcopy(base)
    order = torch.randperm(base.d, generator=torch.Generator().manual_seed(0))
    turn = torch.eye(base.d)[order]  # RMS norms keep their meaning under a reordering of the stream's dimensions
    with torch.no_grad():
        network = turned.network
        network.get_input_embeddings().weight.copy_(base.network.get_input_embeddings().weight @ turn.T)
        network.get_output_embeddings().weight.copy_(network.get_input_embeddings().weight)
        for layer in range(1, base.layers + 1):
            for path, reads in (
                ("self_attn.q_proj", True), ("self_attn.k_proj", True), ("self_attn.v_proj", True),
                ("self_attn.o_proj", False), ("mlp.gate_proj", True), ("mlp.up_proj", True), ("mlp.down_proj", False),
            ):  # fmt: skip
                weight = base.part(layer, path).weight
                turned.part(layer, path).weight.copy_(weight @ turn.T if reads else turn @ weight)
            for norm in ("input_layernorm", "post_attention_layernorm"):
                turned.part(layer, norm).weight.copy_(base.part(layer, norm).weight @ turn.T)
        network.model.norm.weight.copy_(base.network.model.norm.weight @ turn.T)
    pairs = told_apart(base, mine_pairs(towns(), base.tokenizer))
    records = list(patch_stages({"base": base, "post": turned}, pairs, QUICK))
    (likeness,) = rows_of(records, "map_correlation", method="pearson")
    assert likeness.value > 0.999
    (adapted,) = rows_of(records, "knowledge_adapted", stage="post")
    (transfer,) = rows_of(records, "knowledge_transfer", stage="post")
    assert adapted.value > 0.3
    assert transfer.value < 0.5
    (new,) = rows_of(records, "knowledge_new", stage="post")
    assert new.value == 0.0


def test_stages_of_other_depths_exchange_no_states(tiny, tmp_path, monkeypatch):
    base = outspoken(tiny("gpt_neox"))
    monkeypatch.setitem(SHAPES, "gpt_neox", SHAPES["gpt_neox"] | {"num_hidden_layers": 3})
    deeper = outspoken(save_tiny("gpt_neox", tmp_path))
    pairs = told_apart(base, mine_pairs(towns(), base.tokenizer))
    records = list(patch_stages({"base": base, "post": deeper}, pairs, QUICK))
    for stage, layers in (("base", 2), ("post", 3)):
        cells = rows_of(records, "patch_log_odds", stage=stage, method="patch")
        assert {r.layer for r in cells} == set(range(layers + 1))
    for metric in ("map_correlation", "knowledge_transfer"):
        (r,) = rows_of(records, metric)
        assert (r.n, r.stage, r.coords["other_stage"]) == (0, "post", "base")
        assert "2 blocks of width 32 and 3 of 32: the states of one do not fit the other" in r.note
    assert not rows_of(records, "cross_effect")


def test_other_tokenizer_realigns_pairs_and_exchanges_no_states(tiny):
    models = {"base": outspoken(tiny("gpt_neox")), "post": outspoken(tiny("gpt_neox", seed=1))}
    # The same bytes under one more word in the vocabulary: another tokenizer, the same pairs.
    tokenizer = byte_tokenizer(bos=True)
    tokenizer.add_tokens(["<other>"])
    object.__setattr__(models["post"], "tokenizer", tokenizer)
    records = list(patch_stages(models, mine_pairs(towns(), models["base"].tokenizer), QUICK))
    assert [r.value for r in rows_of(records, "patch_effect", stage="post", method="patch")]
    for metric in ("map_correlation", "knowledge_transfer"):
        (r,) = rows_of(records, metric)
        assert math.isnan(r.value)
        assert r.n == 0
        assert "other tokenizers" in r.note


def test_effects_are_missing_if_the_model_has_no_preference(tiny):
    """If both answers are equally likely, raw log odds are given and effects are missing with a reason."""
    model = outspoken(tiny("gpt2"))
    with torch.no_grad():
        model.network.get_output_embeddings().weight.zero_()
    records = list(patch_stages({"base": model}, mine_pairs(towns(), model.tokenizer), KnowledgeSettings(samples=100)))
    assert all(r.n == 0 and "tell" in r.note for r in rows_of(records, "patch_effect"))
    assert all(r.value == 0 for r in rows_of(records, "patch_log_odds", method="patch"))
    assert rows_of(records, "pairs_told_apart")[0].value == 0.0
    assert not rows_of(records, "direction_effect")


def test_stages_are_loaded_once_and_again_for_backward_patching(tiny):
    class Counting(dict):
        asked: list = []  # noqa: RUF012

        def __getitem__(self, name):
            self.asked.append(name)
            return super().__getitem__(name)

    model = outspoken(tiny("gpt_neox"))
    models = Counting(a=model, b=model, c=model)
    list(patch_stages(models, mine_pairs(towns(), model.tokenizer), QUICK))
    assert models.asked == ["a", "b", "c", "b", "a"]


def test_rejects_bad_settings_and_long_prompts(tiny):
    with pytest.raises(BadInput, match="did you mean ends"):
        KnowledgeSettings(cross="end")
    with pytest.raises(BadInput, match="samples from 100"):
        KnowledgeSettings(samples=3)
    model = outspoken(tiny("gpt2"))
    pairs = mine_pairs(towns(), model.tokenizer)
    long = mine_pairs(towns(), model.tokenizer, pairing="same_object", question=VerdictQuestion(shots=4))
    with pytest.raises(BadInput, match="exceeds the context of 128 of base"):
        list(patch_stages({"base": model}, long, QUICK))
    with pytest.raises(BadInput, match="no pairs of towns"):
        list(patch_stages({"base": model}, replace(pairs, pairs=()), QUICK))


# --- real statements -----------------------------------------------------------------------------------------------------


def test_real_statements_on_a_small_model(shared, stories260k):
    file = shared / "geometry_of_truth/cities.csv"
    if not file.is_file():
        pytest.skip("needs the cities")
    model = load_model(stories260k)
    pairs = mine_pairs(
        Concept.from_file(file), model.tokenizer, pairing="same_object", limit=8, question=VerdictQuestion(shots=2)
    )
    assert len(pairs) == 8
    records = list(patch_stages({"base": model}, pairs, KnowledgeSettings(samples=200, draws=1, noise=1)))
    cells = rows_of(records, "patch_log_odds", method="patch")
    assert len(cells) == (model.layers + 1) * len({r.position for r in cells})
    assert {"subject", "object", "last"} <= {r.position for r in cells}
    assert all(1.0 <= r.value <= 1.3 for r in rows_of(records, "patch_cost"))
