"""Cost of a watched training, how its interval adapts to the budget, and whether it changes the training; DeepSteer's monitor beside it.

    python benchmarks/watching.py
    python benchmarks/watching.py --only overhead --seconds 60 --seeds 0 1 2

The training is a small Llama with dropout. It is run alone and watched, in turns of five steps, so that the time that watching adds is
measured apart from what the watcher says.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "scripts"), str(HERE.parent)]

import environments
from transformers import AutoModelForCausalLM
from watched_loop import changed, loop, save_model, seed, whole_state

from ontogeny import Concept, TraceSettings, Watcher, open_run
from tests.helpers.planted_lineages import rows, write
from tests.helpers.tiny_models import byte_tokenizer

RESULTS = HERE / "results" / f"watching-{date.today().isoformat()}.json"
BUDGETS = (0.03, 0.1)
TURN = 5
LIGHT = TraceSettings(
    sites="resid", fits=("logistic", "mass_mean"), kernels=("linear",), resamples=200, permutations=200
)


def network(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder)


def bit_identity(home: Path, concept: Concept) -> dict[str, list[str]]:
    """What of a training of 50 steps is not as without the watcher, and as without DeepSteer's monitor."""
    save_model(home / "tiny", byte_tokenizer())
    alone = network(home / "tiny")
    seed()
    expected = whole_state(alone, loop(alone, 50, lambda step: None))
    watched = network(home / "tiny")
    seed()
    watcher = Watcher(watched, byte_tokenizer(), [concept], home / "identity", settings=LIGHT, on_alert="log")
    optimizer = loop(watched, 50, lambda step: watcher.measure(step) if step % 10 == 0 else None)
    watcher.finish()
    found = {"ontogeny.Watcher": changed(expected, whole_state(watched, optimizer))}
    try:
        python = environments.python_of("deepsteer")
        script = [
            str(python),
            str(HERE / "scripts/run_watch_deepsteer.py"),
            str(home / "tiny"),
            str(home / "peer.json"),
        ]
        done = subprocess.run(script, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        found["deepsteer.ProbeMonitor"] = json.loads((home / "peer.json").read_text())["changed"]
    except RuntimeError as error:
        found["deepsteer.ProbeMonitor"] = [f"not run: {error}"]
    return found


class Training:
    """A training of which a block of steps is run at a time; its seconds, by the wall and of the processor, are counted."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.network = network(folder).train()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 1e-3)
        self.draws = torch.Generator().manual_seed(seed)
        self.random = torch.Generator().manual_seed(seed).get_state()
        """State of the global generator, from which dropout draws, as this training left it."""
        self.seconds = {"wall": 0.0, "cpu": 0.0}

    @contextlib.contextmanager
    def counted(self):
        torch.set_rng_state(self.random)
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds["wall"] += time.perf_counter() - wall
        self.seconds["cpu"] += time.process_time() - cpu
        self.random = torch.get_rng_state()

    def run(self, steps: range, after=lambda step: None) -> None:
        with self.counted():
            for step in steps:
                ids = torch.randint(3, 200, (8, 96), generator=self.draws)
                self.network(input_ids=ids, labels=ids).loss.backward()
                self.optimizer.step()
                self.optimizer.zero_grad()
                after(step)


def overhead(home: Path, concept: Concept, seconds: float, budget: float, seed: int) -> dict:
    """A training of about so many seconds, alone and watched, in turns of five steps: what else the machine does slows both alike."""
    save_model(home / "small", byte_tokenizer(), layers=4, width=192)
    alone, watched = Training(home / "small", seed), Training(home / "small", seed)
    warm = Training(home / "small", seed)
    warm.run(range(15))
    steps = int(seconds / (warm.seconds["cpu"] / 15))
    with watched.counted():
        watcher = Watcher(
            watched.network,
            byte_tokenizer(),
            [concept],
            home / f"run-{budget}-{seed}",
            budget=budget,
            settings=LIGHT,
            steps=steps,
            on_alert="log",
        )
    for clock, name in zip(watcher.pace.clocks, ("wall", "cpu"), strict=True):
        clock.now = lambda now=clock.now, name=name: now() - alone.seconds[name]
    with watched.counted():
        watcher.step(0)
    for first in range(1, steps + 1, TURN):
        turn = range(first, min(first + TURN, steps + 1))
        for training in (alone, watched) if first // TURN % 2 else (watched, alone):
            training.run(turn, watcher.step if training is watched else lambda step: None)
    with watched.counted():
        watcher.finish(steps)
    pace = watcher.pace
    return {
        "budget": budget,
        "seed": seed,
        "steps": steps,
        "measured": pace.measured,
        "seconds_each": sum(pace.clocks[0].visits) / len(pace.measured),
        "said": {clock.name: clock.share for clock in pace.clocks},
        "after_effects": {clock.name: clock.after_effects for clock in pace.clocks},
        **{f"{name}_added": watched.seconds[name] / alone.seconds[name] - 1 for name in ("wall", "cpu")},
        "sentence": watcher.cost,
        "bit_identical": all(
            torch.equal(a, b) for a, b in zip(alone.network.parameters(), watched.network.parameters(), strict=True)
        ),
    }


def rotation(home: Path, concept_file: Path) -> dict:
    """A TRL training that keeps two checkpoints, watched from another process that is stopped and started again half-way."""
    save_model(home / "base", byte_tokenizer(), layers=4, width=64)
    steps, every, out = 120, 6, home / "sft"
    try:
        python = environments.python_of("trl")
    except RuntimeError as error:
        return {"not_run": str(error)}
    train = [
        str(python),
        str(HERE / "scripts/run_trl_training.py"),
        str(home / "base"),
        str(out),
        f"{steps}",
        f"{every}",
        "0.5",
    ]
    watch = [
        str(Path(sys.executable).with_name("ontogeny")),
        "watch",
        str(out),
        "-c",
        str(concept_file),
        "-o",
        str(home / "watched"),
    ]
    watch += [
        "--sites",
        "resid",
        "--probes",
        "logistic,mass_mean",
        "--interval",
        "0.5",
        "--no-page",
        "--quiet",
        "--json",
    ]
    training = subprocess.Popen(train, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    first = subprocess.Popen([*watch, "--patience", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(45)
    first.kill()
    first.wait()
    second = subprocess.run([*watch, "--patience", "20"], capture_output=True, text=True)
    errors = training.communicate()[1]
    if training.returncode:
        return {"not_run": errors.strip().splitlines()[-1]}
    (found,) = json.loads(second.stdout)
    run = open_run(home / "watched")
    traced = sorted(
        int(step) for step in run.query("select distinct step from records where metric = 'auroc' and step > 0")["step"]
    )
    missed = run.records(metric="not_traced")
    return {
        "saved": steps // every,
        "kept_on_disk": len(list(out.glob("checkpoint-*"))),
        "traced_steps": traced,
        "rows_of_deleted_ones": len(missed),
        "exit_code": second.returncode,
        "alerts": [alert["text"] for alert in found["alerts"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="CPU seconds of each training")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--budgets", type=float, nargs="*", default=list(BUDGETS))
    parser.add_argument("--only", choices=("identity", "overhead", "rotation"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    new: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write(home / "coin.csv", rows(characters=36))
        concept = Concept.from_file(home / "coin.csv")
        if options.only in (None, "rotation"):
            new["rotation"] = rotation(home, home / "coin.csv")
        if options.only in (None, "identity"):
            new["not_as_without"] = bit_identity(home, concept)
        if options.only in (None, "overhead"):
            keys = [(budget, seed) for budget in options.budgets for seed in options.seeds]
            new["overhead"] = [overhead(home, concept, options.seconds, budget, seed) for budget, seed in keys]
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    table = {(row["budget"], row["seed"]): row for row in (*found.get("overhead", ()), *new.get("overhead", ()))}
    found |= new | {"overhead": [table[key] for key in sorted(table)]}
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    for name, parts in found.get("not_as_without", {}).items():
        print(f"{name}: {', '.join(parts) if parts else 'bit-identical after 50 steps'}")
    if "rotation" in found:
        print(f"TRL with save_total_limit=2: {found['rotation']}")
    for row in found.get("overhead", ()):
        added = f"{row['wall_added']:+.1%} wall, {row['cpu_added']:+.1%} CPU"
        print(f"budget {row['budget']:.0%}, seed {row['seed']}, {row['steps']} steps: {added}; {row['sentence']}")
        print(f"  measured after {row['measured']}")


if __name__ == "__main__":
    main()
