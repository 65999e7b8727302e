"""`make bench`: a trace compared with common scripts and tools, as ratios within one run; a table in Markdown and JSON.

Every program runs alone, on one thread, in its own pinned environment; CPU seconds count, imports do not. Rounds are interleaved
(A B C A B C), each ratio is taken inside its round, and the table gives medians with the least and the greatest. A peer that cannot
be installed or run is a row that says so. About 25 minutes on two cores; `--quick` takes one round and small counts.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import environments
import workload

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PEERS = {
    "script, padded batches of 32": ("hf", "run_hf.py", "padded"),
    "script, batch 1": ("hf", "run_hf.py", "single"),
    "script, well written": ("hf", "run_hf.py", "well"),
    "TransformerLens": ("transformer_lens", "run_transformer_lens.py", "padded"),
    "nnsight": ("nnsight", "run_nnsight.py", "padded"),
    "nnterp": ("nnterp", "run_nnterp.py", "padded"),
    "pyvene": ("pyvene", "run_pyvene.py", "padded"),
}
MUST = {
    # row: (must, aim, hope, whether more is better)
    "70m: whole job against the padded script": (7, 9, 12, True),
    "160m: whole job against the padded script": (4.5, 5.5, 6.5, True),
    "70m: whole job, N = 1000, against the matrix products": (1.6, 1.4, 1.15, False),
    "70m: whole job against the well-written script": (1.3, 1.8, None, True),
    "dependence against the transcribed formula": (10, 15, None, True),
    "head probes against scikit-learn": (3, 5, None, True),
    "one more concept on texts already read, fits, share of the whole job": (0.03, None, None, False),
    "statistics, share of the forward pass": (0.35, 0.25, None, False),
    "tokens computed / real tokens": (1.02, None, None, False),
    "lm_head calls": (0, None, None, False),
    "forwards per text and checkpoint": (1, None, None, False),
    "models built per lineage": (1, None, None, False),
    "peak memory against the padded script": (1, None, None, False),
}
GATES = {"activations": 5e-6, "dependence": 1e-4, "head accuracy, test items": 1, "mass mean": 1e-5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, few texts, no peers but the scripts")
    parser.add_argument("--shapes", default="70m,160m")
    parser.add_argument("--words", default="zipf", choices=workload.EXPONENTS, help="distribution of words")
    told = parser.parse_args()
    began = time.time()
    rounds = 1 if told.quick else told.rounds
    n_ratio, n_full, c_full = (100, 200, 2) if told.quick else (300, 1000, 6)
    shapes = told.shapes.split(",")
    found: dict = {"activations": {}, "jobs": {}, "failed": {}}

    names = list(PEERS)[:3] if told.quick else list(PEERS)
    say("activations alone, one checkpoint, 200 texts")
    work = workload.make(shapes[0], 64 if told.quick else 200, 1, words=told.words)
    found["activations"] = interleaved(
        {name: (lambda n=name: peer(n, work, "--only-activations")) for name in names}
        | {"Ontogeny (whole job)": lambda: ours(work)},
        rounds,
        found["failed"],
    )
    for shape in shapes:
        say(f"whole job, {shape}, two checkpoints, {n_ratio} texts")
        work = workload.make(shape, n_ratio, 2, words=told.words)
        found["jobs"][shape] = interleaved(
            {
                "padded": lambda work=work: peer("script, padded batches of 32", work),
                "well": lambda work=work: peer("script, well written", work),
                "products": lambda work=work: limit(work),
                "ours": lambda work=work: ours(work),
            },
            rounds,
            found["failed"],
        )
    say(f"whole job, {shapes[0]}, {c_full} checkpoints, {n_full} texts")
    full, once = (
        workload.make(shapes[0], n_full, c_full, words=told.words),
        workload.make(shapes[0], n_full, 1, words=told.words),
    )
    found["full"] = {
        "products": [limit(once)],
        "ours": [ours(full)],
        "products again": [limit(once)],
        "padded, one checkpoint": [peer("script, padded batches of 32", once)],
    }
    say("parts of the job, and whether the numbers agree")
    found["parts"] = run(Path(sys.executable), "run_parts.py", once)
    table = rows(found, shapes, c_full)
    write(found, table, time.time() - began, vars(told))


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def peer(name: str, work: workload.Work, *more: str) -> dict:
    environment, script, mode = PEERS[name]
    return run(environments.python_of(environment), script, work, "--mode", mode, *more)


def ours(work: workload.Work) -> dict:
    return run(Path(sys.executable), "run_ours.py", work, "--out", str(workload.ROOT / "run"))


def limit(work: workload.Work) -> dict:
    return run(Path(sys.executable), "run_limit.py", work)


def run(python: Path, script: str, work: workload.Work, *more: str) -> dict:
    """The output of a program.

    Raises:
        RuntimeError: it failed; the last line it said.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [python, HERE / "scripts" / script, work.folder, work.ids, *more]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    said = [line for line in done.stderr.splitlines() if line.strip()]
    raise RuntimeError(said[-1] if said else f"{script} ended with {done.returncode}")


def interleaved(programs: dict, rounds: int, failed: dict) -> dict[str, list[dict]]:
    told: dict[str, list[dict]] = {name: [] for name in programs}
    for turn in range(rounds):
        for name, program in programs.items():
            if name in failed:
                continue
            try:
                told[name].append(program())
                say(f"  round {turn + 1}: {name}: {told[name][-1]['cpu']:.1f} CPU s")
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                failed[name] = str(error)
                say(f"  {name} fails: {error}")
    return told


def ratios(above: list[dict], below: list[dict], key=lambda told: told["cpu"]) -> list[float]:
    return [key(a) / key(b) for a, b in zip(above, below, strict=False)]


def rows(found: dict, shapes: list[str], checkpoints: int) -> dict[str, list[float]]:
    """Every row of the table, its values round by round."""
    told: dict[str, list[float]] = {}
    for shape in shapes:
        job = found["jobs"][shape]
        told[f"{shape}: whole job against the padded script"] = ratios(job["padded"], job["ours"])
        told[f"{shape}: whole job against the well-written script"] = ratios(job["well"], job["ours"])
        told[f"{shape}: whole job, N = 300, against the matrix products"] = [
            a["cpu"] / b["limit"] for a, b in zip(job["ours"], job["products"], strict=False)
        ]
    full = found["full"]
    products = checkpoints * statistics.mean([full["products"][0]["limit"], full["products again"][0]["limit"]])
    told[f"{shapes[0]}: whole job, N = 1000, against the matrix products"] = [full["ours"][0]["cpu"] / products]
    told[f"{shapes[0]}: whole job, N = 1000, against the padded script"] = [
        checkpoints * full["padded, one checkpoint"][0]["cpu"] / full["ours"][0]["cpu"]
    ]
    told["peak memory against the padded script"] = [
        full["ours"][0]["rss_mb"] / full["padded, one checkpoint"][0]["rss_mb"],
        *ratios(found["jobs"][shapes[0]]["ours"], found["jobs"][shapes[0]]["padded"], lambda run: run["rss_mb"]),
    ]
    parts = found["parts"]["parts"]
    told["dependence against the transcribed formula"] = parts["dependence, times faster"]
    told["head probes against scikit-learn"] = parts["head probes, times faster"]
    told["one more concept on texts already read, fits, share of the whole job"] = parts[
        "further concept, fits / whole"
    ]
    told["one more concept on texts already read, with all statistics, share of the whole job"] = parts[
        "further concept / whole"
    ]
    told["statistics, share of the forward pass"] = parts["statistics / forward"]
    counts = full["ours"][0]["counts"]
    told["tokens computed / real tokens"] = [counts["tokens_per_real_token"]]
    told["tokens of the first block's maps / real tokens"] = [counts["first_block_tokens_per_real_token"]]
    told["lm_head calls"] = [counts["lm_head_calls"]]
    told["forwards per text and checkpoint"] = [counts["forwards_per_text_and_checkpoint"]]
    told["models built per lineage"] = [counts["models_built"]]
    return told


def verdict(name: str, value: float) -> str:
    if name not in MUST:
        return ""
    must, aim, hope, more = MUST[name]
    reached = ""
    for label, bound in (("must", must), ("aim", aim), ("hope", hope)):
        if bound is not None and (value >= bound if more else value <= bound * (1 + 1e-9)):
            reached = label
    return reached or "**missed**"


def write(found: dict, table: dict[str, list[float]], seconds: float, told: dict) -> None:
    RESULTS.mkdir(exist_ok=True)
    lines = [
        f"# Benchmark of {time.strftime('%Y-%m-%d')}",
        "",
        f"`make bench`: {seconds / 60:.0f} minutes; {processor()}, {os.cpu_count()} cores, one thread used; "
        f"Python {platform.python_version()}.",
        "Ratios are of CPU seconds inside one round; median (least – greatest).",
        "",
        "| | measured | must | aim | hope | reached |",
        "|---|---|---|---|---|---|",
    ]
    for name, values in table.items():
        must, aim, hope, more = MUST.get(name, (None, None, None, True))
        sign = "≥" if more else "≤"
        bounds = " | ".join("" if b is None else f"{sign} {b:g}" for b in (must, aim, hope))
        lines.append(f"| {name} | {spread(values)} | {bounds} | {verdict(name, statistics.median(values))} |")
    lines += ["", "## Peers: residual stream and heads of the last token, one checkpoint", ""]
    lines += [
        "| | CPU s, forward and capture | times as fast as the padded script | peak MB | versions |",
        "|---|---|---|---|---|",
    ]
    base = found["activations"]["script, padded batches of 32"]
    for name, runs in found["activations"].items():
        if name in found["failed"]:
            lines.append(f"| {name} | fails: {found['failed'][name]} | | | |")
        elif runs:
            cost = [run["stages"].get("forward", run["cpu"]) for run in runs]
            speed = [b["stages"]["forward"] / c for b, c in zip(base, cost, strict=False)]
            versions = ", ".join(f"{k} {v}" for k, v in runs[0]["versions"].items())
            lines.append(
                f"| {name} | {spread(cost)} | {spread(speed)} | {max(run['rss_mb'] for run in runs):.0f} | {versions} |"
            )
    lines += ["", "## Do the numbers agree?", "", "| | largest difference | at most |", "|---|---|---|"]
    for name, value in found["parts"]["gates"].items():
        lines.append(f"| {name} | {value:.2g} | {GATES[name]:g} {'' if value <= GATES[name] else '**fails**'} |")
    text = "\n".join(lines) + "\n"
    kind = ("-quick" if told["quick"] else "") + ("-uniform" if told["words"] == "uniform" else "")
    stem = RESULTS / f"{time.strftime('%Y-%m-%d')}{kind}"
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".json").write_text(json.dumps({"table": table, "options": told, "found": found}, indent=1) + "\n")
    print(text)
    if any(value > GATES[name] for name, value in found["parts"]["gates"].items()):
        sys.exit("a number does not agree with its reference")


def spread(values: list[float]) -> str:
    middle = statistics.median(values)
    return f"{middle:.3g}" + (f" ({min(values):.3g} – {max(values):.3g})" if len(values) > 1 else "")


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
