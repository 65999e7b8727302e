"""Cost of a watched training, how its interval adapts to the budget, and whether it changes the training; DeepSteer's monitor beside it.

    python benchmarks/watching.py            # about four minutes
    python benchmarks/watching.py --seconds 20

The training is a small Llama with dropout. The watcher says its share of the wall time; CPU seconds, watched and alone, are measured
beside it.
"""

import argparse
import itertools
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


def overhead(home: Path, concept: Concept, seconds: float, budgets: list[float]) -> list[dict]:
    """Trainings of about so many seconds, alone and at each budget."""
    save_model(home / "small", byte_tokenizer(), layers=4, width=192)
    size = {"rows": 8, "length": 96}
    model = network(home / "small")
    start = time.process_time()
    loop(model, 20, lambda step: None, **size)
    steps = int(seconds / ((time.process_time() - start) / 20))
    start = time.process_time()
    loop(network(home / "small"), steps, lambda step: None, **size)
    alone = time.process_time() - start
    table = []
    for budget in budgets:
        model = network(home / "small")
        start = time.process_time()
        watcher = Watcher(
            model,
            byte_tokenizer(),
            [concept],
            home / f"run-{budget}",
            budget=budget,
            settings=LIGHT,
            steps=steps,
            on_alert="log",
        )
        inside = [time.process_time() - start]

        def after(step: int, watcher: Watcher = watcher, inside: list[float] = inside) -> None:
            began = time.process_time()
            watcher.step(step)
            inside.append(time.process_time() - began)

        loop(model, steps, after, **size)
        used, pace = time.process_time() - start, watcher.pace
        share, measured = pace.share, list(pace.measured)
        watcher.finish(steps)
        gaps = [b - a for a, b in itertools.pairwise(measured)]
        table.append(
            {
                "budget": budget,
                "steps": steps,
                "measurements": len(measured),
                "seconds_each": sum(pace.costs) / len(pace.costs),
                "first_gaps": gaps[:6],
                "median_gap_of_the_last_half": sorted(gaps[len(gaps) // 2 :])[len(gaps) // 4] if gaps else None,
                "share_of_wall_time": share,
                "share_of_cpu_time": sum(inside) / used,
                "cpu_overhead": used / alone - 1,
                "share_with_the_last_measurement": pace.share,
                "said": watcher.cost,
            }
        )
    return table


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
    parser.add_argument("--seconds", type=float, default=75, help="CPU seconds of each training")
    parser.add_argument("--budgets", type=float, nargs="*", default=list(BUDGETS))
    parser.add_argument("--only", choices=("identity", "overhead", "rotation"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write(home / "coin.csv", rows(characters=36))
        concept = Concept.from_file(home / "coin.csv")
        if options.only in (None, "rotation"):
            found["rotation"] = rotation(home, home / "coin.csv")
        if options.only in (None, "identity"):
            found["not_as_without"] = bit_identity(home, concept)
        if options.only in (None, "overhead"):
            before = [row for row in found.get("overhead", ()) if row["budget"] not in options.budgets]
            new = overhead(home, concept, options.seconds, options.budgets)
            found["overhead"] = sorted(before + new, key=lambda row: row["budget"])
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    for name, parts in found.get("not_as_without", {}).items():
        print(f"{name}: {', '.join(parts) if parts else 'bit-identical after 50 steps'}")
    if "rotation" in found:
        print(f"TRL with save_total_limit=2: {found['rotation']}")
    for row in found.get("overhead", ()):
        cpu = row.get("share_of_cpu_time", float("nan"))  # not in results of earlier versions
        cost = f"{row['share_of_wall_time']:.2%} of the wall time, {cpu:.2%} of the CPU time"
        print(
            f"budget {row['budget']:.0%}: {row['measurements']} measurements in {row['steps']} steps, gaps {row['first_gaps']} …"
        )
        print(
            f"  {row['median_gap_of_the_last_half']}; {cost}, {row['cpu_overhead']:+.1%} CPU against the training alone"
        )


if __name__ == "__main__":
    main()
