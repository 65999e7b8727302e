"""A watcher in a plain loop: the training is the same bit for bit, and the run is that of a trace."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

import ontogeny as on
from ontogeny.errors import BadInput
from ontogeny.jobs.watch.inner_network import inner_network
from ontogeny.jobs.watch.undisturbed import TrainingDisturbed, undisturbed
from ontogeny.jobs.watch.watcher import Watcher
from tests.helpers.subprocesses import python
from tests.helpers.tiny_models import byte_tokenizer, tiny_model
from tests.helpers.watched_trainings import LIGHT, concept, differences, loop, start, trained, whole_state


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watcher]:
    """A loop of 50 steps, of which steps 0, 4, 16 and 50 are measured and 16 and 50 are saved; and the same loop alone."""
    home = tmp_path_factory.mktemp("watched")
    tokenizer, out = byte_tokenizer(), home / "out"
    network = start()
    watcher = Watcher(
        network, tokenizer, [concept(home)], home / "run", budget=0.9, checkpoints=out, settings=LIGHT, on_alert="log"
    )
    watcher.add_rollouts(["so ", "so ", "we "], ["they say a", "they say b", "have seen c"])

    def after(step: int) -> None:
        folder = out / f"checkpoint-{step}"
        if step in (16, 50):
            network.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        if step in (0, 4, 16):
            watcher.measure(step, saved=folder if step == 16 else None)

    optimizer = loop(network, 50, after)
    watcher.finish(50, saved=out / "checkpoint-50")
    state = whole_state(network, optimizer)
    assert differences(trained(50), state) == []
    return home, watcher


def test_states_are_compared_bit_for_bit() -> None:
    assert differences(trained(2), trained(2, lambda step: None)) == []
    assert "state.weights.lm_head.weight" in differences(
        trained(2), trained(2, lambda step: torch.rand(1))
    )  # a draw from the global generator


def test_watched_training_is_the_same_and_its_run_is_that_of_a_trace(watched: tuple[Path, Watcher]) -> None:
    home, watcher = watched
    run = on.open_run(home / "run")
    steps = run.query("select distinct step from records where metric = 'auroc' and control is null order by step")
    assert list(steps["step"]) == [0, 4, 16, 50]
    assert run.about["finished"]
    assert not run.records(metric="best_site").empty
    assert "measurements" in watcher.cost
    visits = len(run.ledger())
    on.trace(home / "out", [concept(home)], home / "run", LIGHT)
    assert [line["checkpoint"] for line in run.ledger()[visits:]] == ["untrained"]  # nothing else was left to do
    fresh = on.trace(home / "out", [concept(home)], home / "fresh", LIGHT)
    columns = "step, site, method, metric, control, value, low, high, n"
    # But the certificate, which has its own line, a trace of the same folder gives the same numbers.
    question = f"select {columns} from records where step in (16, 50) and metric in ('auroc', 'accuracy', 'cv_score') order by all"
    assert len(run.query(question)) > 20
    assert run.query(question).equals(fresh.query(question))


def test_rollouts_are_read_once_at_the_next_measurement(watched: tuple[Path, Watcher]) -> None:
    rows = watched[1].run.records(metric="rollout_share")
    assert list(rows["step"]) == [0]
    assert list(rows["n"]) == [3]
    assert rows["value"].between(0, 1).all()


def test_doctor_reads_a_watched_run(watched: tuple[Path, Watcher]) -> None:
    found = on.doctor(watched[1].run)
    assert found.checkpoints == 4
    assert found.concepts == ("coin",)


def test_modes_buffers_and_compiled_calls_come_back_after_an_error() -> None:
    network = start()
    network.register_buffer("own", torch.zeros(1))
    network.transformer.h[1].mlp._compiled_call_impl = marker = lambda *args: None
    modes = [module.training for module in network.modules()]
    own, state = network.own, torch.get_rng_state()
    with pytest.raises(ValueError, match="stop"), undisturbed(network):  # noqa: PT012
        assert not any(module.training for module in network.modules())
        assert network.transformer.h[1].mlp._compiled_call_impl is None
        network.register_buffer("own", torch.ones(1))
        torch.rand(3)
        raise ValueError("stop")
    assert [module.training for module in network.modules()] == modes
    assert network.own is own
    assert network.transformer.h[1].mlp._compiled_call_impl is marker
    assert torch.equal(torch.get_rng_state(), state)


def test_a_weight_that_is_written_is_an_error() -> None:
    network = start()
    with pytest.raises(TrainingDisturbed, match="wte"), undisturbed(network), torch.no_grad():
        network.transformer.wte.weight.add_(1)


def test_autocast_is_off_inside_and_on_again() -> None:
    network = start()
    with torch.autocast("cpu", torch.bfloat16):
        with undisturbed(network):
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")


class _Wrapper(nn.Module):
    def __init__(self, inner: nn.Module, name: str) -> None:
        super().__init__()
        setattr(self, name, inner)


@pytest.mark.parametrize("name", ["module", "_orig_mod", "policy", "pretrained_model"])
def test_wrapped_network_is_found(name: str) -> None:
    network = tiny_model("gpt2")
    assert inner_network(_Wrapper(_Wrapper(network, name), "module")) is network


def test_two_processes_train_as_without_a_watcher_and_the_first_one_measures(tmp_path: Path) -> None:
    done = python(
        "from tests.helpers.watched_ranks import main; main()", tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first == {"differences": [], "sums": [first["sums"][0]] * 2, "measured": [0, 2, 6], "failures": 0}, (
        done.stderr
    )
    assert second == {**first, "measured": []}
    assert not (tmp_path / "run-1").exists()
    assert set(on.open_run(tmp_path / "run-0").records(metric="auroc", control=None)["step"]) == {0, 2, 6}


def test_compiled_network_is_read_uncompiled() -> None:
    network = tiny_model("gpt2")
    assert inner_network(torch.compile(network, backend="eager")) is network


def test_sharded_weights_are_refused() -> None:
    network = tiny_model("gpt2")
    network.transformer.wte.weight.ds_id = 0
    with pytest.raises(BadInput, match=r"ZeRO-3.*trace its saved checkpoints"):
        inner_network(network)
    sharded = type("FullyShardedDataParallel", (_Wrapper,), {})(tiny_model("gpt2"), "module")
    with pytest.raises(BadInput, match="sharded by FSDP"):
        inner_network(sharded)


def test_learned_prompts_are_refused() -> None:
    wrapper = _Wrapper(tiny_model("gpt2"), "inner")
    wrapper.get_base_model, wrapper.active_peft_config = None, SimpleNamespace(is_prompt_learning=True)
    with pytest.raises(BadInput, match=r"got a learned prompt \(PEFT\)"):
        inner_network(wrapper)


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    network, tokenizer, coin = tiny_model("gpt2"), byte_tokenizer(), concept(tmp_path)
    for budget in (0, 1, -0.1, float("nan"), None):
        with pytest.raises(BadInput, match="`budget` must be a share of the time between 0 and 1"):
            Watcher(network, tokenizer, [coin], tmp_path / "a", budget=budget)
    with pytest.raises(BadInput, match="got the optimizer AdamW: give the model itself"):
        Watcher(torch.optim.AdamW(network.parameters()), tokenizer, [coin], tmp_path / "a")
    with pytest.raises(BadInput, match=r"must be a transformers network .* got a Linear"):
        Watcher(nn.Linear(2, 2), tokenizer, [coin], tmp_path / "a")
    for other in (None, "gpt2"):
        with pytest.raises(BadInput, match="`tokenizer` must be that of the model"):
            Watcher(network, other, [coin], tmp_path / "a")  # type: ignore[arg-type]
    with torch.inference_mode(), pytest.raises(BadInput, match="weights that were made in inference mode"):
        Watcher(tiny_model("gpt2"), tokenizer, [coin], tmp_path / "a")
    with torch.device("meta"), pytest.raises(BadInput, match="weights on the meta device"):
        Watcher(AutoModelForCausalLM.from_config(network.config), tokenizer, [coin], tmp_path / "a")
    for more in ({"steps": 0}, {"steps": 2.5}, {"stage": ""}, {"out": tmp_path / "coin.csv"}):
        with pytest.raises(BadInput, match=r"`(steps|stage|out)` must be"):
            Watcher(network, tokenizer, [coin], **{"out": tmp_path / "a", **more})
    with pytest.raises(BadInput, match="`dtype` must be that of the model in training, float32, got bfloat16"):
        Watcher(network, tokenizer, [coin], tmp_path / "a", settings=on.TraceSettings(dtype="bfloat16"))
    with pytest.raises(BadInput, match="`on_alert` must be terminal"):
        Watcher(network, tokenizer, [coin], tmp_path / "a", on_alert="pager")
    config = AutoConfig.for_model("mamba", hidden_size=16, num_hidden_layers=2, state_size=4, vocab_size=300)
    with pytest.raises(BadInput, match="no architecture table supports models of type 'mamba'"):
        Watcher(AutoModelForCausalLM.from_config(config), tokenizer, [coin], tmp_path / "a")
    with pytest.raises(BadInput, match="groups"):
        concept(tmp_path, "few", characters=4)
    assert not (tmp_path / "a").exists()


def test_failed_measurements_never_stop_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = start()
    watcher = Watcher(network, byte_tokenizer(), [concept(tmp_path)], tmp_path / "run", budget=0.9, settings=LIGHT)

    def fail(*_: object, **__: object) -> None:
        torch.rand(1)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(watcher.executor, "measure_loaded", fail)
    optimizer = loop(network, 6, watcher.measure)
    run = watcher.finish()
    assert "out of memory" in watcher.cost
    assert run.exists()
    state = whole_state(network, optimizer)
    assert differences(trained(6), state) == []


def test_a_resumed_training_joins_its_rows_and_replaces_those_of_the_steps_that_it_repeats(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def watcher(network: nn.Module) -> Watcher:
        return Watcher(network, byte_tokenizer(), [concept(tmp_path)], tmp_path / "run", settings=LIGHT, on_alert="log")

    first = watcher(start())
    for step in (0, 2, 4):  # then the process ends
        first.measure(step)
    second = watcher(start())
    for step in (2, 3, 5):
        second.measure(step)
    assert "goes on at step 2: 1 later measured steps are removed" in caplog.text
    run = second.finish(5)
    assert set(run.records(metric="auroc", control=None)["step"]) == {0, 2, 3, 5}
    assert [header["step"] for header in run.headers().values()] == [0, 2, 3, 5]
    with pytest.raises(BadInput, match="a finished training of 5 steps: set another `out`"):
        watcher(start()).step(0)
    with pytest.raises(BadInput, match=r"`step` must be a number of steps from 0 on, got 2\.5"):
        watcher(start()).step(2.5)  # type: ignore[arg-type]


def test_a_model_that_is_rebuilt_is_no_longer_measured(tmp_path: Path) -> None:
    network = start()
    watcher = Watcher(network, byte_tokenizer(), [concept(tmp_path)], tmp_path / "run", settings=LIGHT, on_alert="log")
    del network.transformer.h[1]
    watcher.measure(0)
    assert "as it was before the first step, 2 layers of float32, got 1 layers" in watcher.last_error
