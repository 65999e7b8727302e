"""Everything behind the forward pass at the size of a real run: made in minutes without a model, then timed as a user would.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/results_scale.py --size small          # 20 seconds
    .venv/bin/python benchmarks/results_scale.py --size i --size ii --size iii --out results/scale.json

A tiny model is traced for real. Its parts are multiplied to the checkpoints, layers, heads and concepts of the size: rows by DuckDB with
curves of known shape (a sigmoid in log steps, best in the middle layers), scores with the matching AUROC, random directions. The
checkpoints themselves are sparse files with the headers of a 7B model, so the dry run and a second start read what they would read.
"""

import argparse
import contextlib
import json
import math
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist

import duckdb
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from ontogeny import Concept, Lineage, Run, TraceSettings, trace
from ontogeny.data.writing import write_concept
from ontogeny.jobs.trace.plan import plan_trace
from ontogeny.records import RECORD_COLUMNS
from ontogeny.storage.files import read_tensor_header, write_json
from ontogeny.worlds import hearsay

COMMAND = Path(sys.executable).parent / "ontogeny"
SETTINGS = TraceSettings(sites="resid,head", untrained=False)
BATCH = 64
"""Checkpoints whose rows are made by one query."""


@dataclass(frozen=True)
class Size:
    checkpoints: int
    layers: int
    heads: int
    concepts: int
    width: int
    families: int = 64
    """Groups of texts of a concept, of 12 texts each."""

    @property
    def sites(self) -> dict[str, list[str]]:
        heads = [f"head.{layer}.{head}" for layer in range(1, self.layers + 1) for head in range(self.heads)]
        return {"resid": [f"resid.{layer}" for layer in range(self.layers + 1)], "head": heads}


SIZES = {
    "small": Size(12, 4, 8, 2, 64),
    "i": Size(154, 24, 16, 5, 2048),
    "ii": Size(360, 32, 32, 5, 4096),
    "iii": Size(154, 32, 32, 30, 1024, families=24),
}
"""The tensors of (iii) at full width and with 768 texts would take 105 GB; neither is part of the bounds."""


def emergence_midpoint(concept: int) -> float:
    """The log step at which a concept's curve is half way."""
    return 4.0 + 3.0 * ((concept * 0.37) % 1.0)


def auroc(step: int, depth: float, concept: int) -> float:
    """The AUROC that is planted at a step and a relative depth (0 to 1)."""
    rise = 1 / (1 + math.exp(-(math.log(step + 1) - emergence_midpoint(concept)) / 0.4))
    return 0.5 + 0.46 * rise * math.exp(-(((depth - 0.55) / 0.3) ** 2))


# --- the lineage ------------------------------------------------------------------------------------------------------


def config_of(size: Size, vocabulary: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        max_position_embeddings=64,
    )


def make_lineage(folder: Path, size: Size, tokenizer) -> list[int]:
    """Checkpoints with true headers and sparse weights; returns their steps."""
    config = config_of(size, len(tokenizer))
    with torch.device("meta"):
        tensors = AutoModelForCausalLM.from_config(config).state_dict()
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    steps = sorted({round(float(s)) for s in np.geomspace(1, 140_000, size.checkpoints)} | {0})
    while len(steps) < size.checkpoints:
        steps = sorted({*steps, steps[-1] + 1000})
    steps = steps[: size.checkpoints]
    for step in steps:
        here = folder / f"checkpoint-{step}"
        here.mkdir(parents=True)
        config.save_pretrained(here)
        with (here / "model.safetensors").open("wb") as handle:
            handle.write(struct.pack("<Q", len(text)) + text + struct.pack("<Q", step + 1))
            handle.truncate(8 + len(text) + offset)
    tokenizer.save_pretrained(folder / f"checkpoint-{steps[0]}")
    tokenizer.save_pretrained(folder)
    return steps


def make_concepts(folder: Path, count: int, world) -> list[Path]:
    source = next(c for c in hearsay.concepts(world) if c.name == "truth")
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        paths.append(folder / f"concept{number:02d}.jsonl")
        write_concept(replace(source, name=paths[-1].stem), folder)
    return paths


def make_template(folder: Path, concept: Path, tokenizer) -> Run:
    """One checkpoint of a tiny model, traced for real."""
    config = config_of(Size(1, 2, 2, 1, 32), len(tokenizer))
    torch.manual_seed(0)
    here = folder / "model" / "checkpoint-1"
    AutoModelForCausalLM.from_config(config).save_pretrained(here)
    tokenizer.save_pretrained(here)
    return trace(Lineage.open(str(folder / "model")), [Concept.from_file(concept)], folder / "run", SETTINGS)


# --- the parts --------------------------------------------------------------------------------------------------------

VALUES = """
case when t.value is null or isnan(t.value) then t.value
     when t.metric in ('auroc', 'accuracy', 'cv_score') and t.control is null then
          0.5 + 0.46 / (1 + exp(-(ln(u.step + 1) - u.midpoint) / 0.4))
              * exp(-pow((coalesce(s.layer, 0) / {layers}.0 - 0.55) / 0.3, 2)) + 0.01 * ({noise} - 0.5)
     else t.value * (1 + 0.05 * ({noise} - 0.5)) end
"""
NOISE = """
hash(u.unit, s.site, case when t.method = 'logistic' and t.control is null and t.metric in ('auroc', 'cv_score') then ''
                          else concat_ws(' ', t.metric, t.method, t.control, t.coords::varchar) end) / 18446744073709551616.0
"""
"""Between 0 and 1. Under cross-fitting the score of training and test groups is one number, here as well."""
STEPS = """
case when metric in ('auroc', 'auroc_excess', 'cv_score') then {pairs}
     when metric in ('accuracy', 'selectivity') then n * if(control is null and metric = 'accuracy', 1, 3) end
"""
"""Shares are multiples of 1 over the number of pairs within folds, of examples, or of examples and tasks."""
ROWS = """
with drawn as (
    select t.* exclude (site, layer, head, stage, step, tokens, revision, concept, unit), t.value as before,
           s.site, s.layer, s.head, u.stage, u.step, u.tokens, u.revision, u.concept, u.unit,
           {values} as drawn
    from units u, template t join sites s on s.part = t.part and (t.part = 'head' or t.example)
), rounded as (
    select * replace (coalesce(round(drawn * ({steps})) / ({steps}), drawn) as drawn) from drawn
)
-- A trace measures in single precision. Intervals of real cells differ in width.
select * exclude (drawn, before) replace (
    drawn::float::double as value, (drawn + (low - before) * (0.9 + 0.2 * random()))::float::double as low,
    (drawn + (high - before) * (0.9 + 0.2 * random()))::float::double as high)
from rounded
"""


def make_records(folder: Path, template: Run, size: Size, units: list[tuple], pairs: int) -> None:
    """Record parts, one a unit, as a trace writes them; `pairs` is the number of pairs that an AUROC compares."""
    (folder / "records").mkdir(parents=True)
    sites = [(part, *place(name)) for part, names in size.sites.items() for name in names]
    with duckdb.connect() as connection:
        connection.execute("select setseed(0.5)")
        connection.execute(
            f"""create table template as select *, split_part(site, '.', 1) as part, true as example
                from read_parquet('{template.folder}/records/*.parquet')
                where unit not like '%-%' and (site is null or site in ('resid.1', 'head.1.0'))"""
        )
        connection.execute("create table sites (part varchar, site varchar, layer integer, head integer)")
        connection.executemany("insert into sites values (?, ?, ?, ?)", sites)
        connection.execute(
            "create table all_units (stage varchar, step bigint, tokens double, revision varchar, concept varchar, "
            "unit varchar, midpoint double)"
        )
        connection.executemany("insert into all_units values (?, ?, ?, ?, ?, ?, ?)", units)
        columns = ", ".join(RECORD_COLUMNS)
        for at in range(0, len(units), BATCH):
            names = [unit[5] for unit in units[at : at + BATCH]]
            connection.execute(
                "create or replace temp table units as select * from all_units where unit in (select unnest(?))",
                [names],
            )
            # Rows without a site stay single.
            stamped = "u.stage, u.step, u.tokens, u.revision, u.concept, u.unit"
            single = (
                f"select t.* exclude (stage, step, tokens, revision, concept, unit), {stamped} from units u, template t"
            )
            values = VALUES.format(layers=size.layers, noise=NOISE)
            grown = ROWS.format(values=values, steps=STEPS.format(pairs=pairs))
            connection.execute(
                f"create or replace temp table made as select {columns} from ({grown}) union all by name "
                f"select {columns} from ({single} where t.site is null)"
            )
            for name in names:
                connection.execute(
                    f"copy (select * from made where unit = '{name}') "
                    f"to '{folder}/records/{name}.parquet' (format parquet, compression zstd)"
                )


def pairs_within_folds(design) -> int:
    y, folds = design.y_test, design.test_folds
    return sum(int(y[folds == f].sum() * (~y[folds == f]).sum()) for f in range(int(folds.max()) + 1))


def place(site: str) -> tuple[str, int, int | None]:
    _, layer, *head = site.split(".")
    return site, int(layer), int(head[0]) if head else None


def make_tensors(folder: Path, template: Run, size: Size, plan) -> None:
    """Directions and held-out scores of every unit."""
    for kind in ("directions", "scores"):
        (folder / kind).mkdir(parents=True)
    source, header = next(iter(template.headers().items()))
    generator = torch.Generator().manual_seed(0)
    widths = {"resid": size.width, "head": size.width // size.heads}
    shapes = {key: list(tensor.shape) for key, tensor in template.directions(source).items()}
    held_out, template_sites = template.scores(source), header["sites"]
    directions = {}
    for key, shape in shapes.items():
        part = key.split("/")[1]
        grown = [len(size.sites[part]), *(widths[part] if n in (32, 16) else n for n in shape[1:])]
        directions[key] = torch.randn(grown, generator=generator)
    normal = NormalDist()
    for number, concept in enumerate(plan.concepts):
        y = plan.designs[concept.name].y_test.float()
        noise = {part: torch.randn(len(names), len(y), 1, generator=generator) for part, names in size.sites.items()}
        for checkpoint in plan.checkpoints:
            unit = plan.units[checkpoint, concept.name]
            header_of_unit = {
                **header,
                "checkpoint": checkpoint.name,
                "stage": checkpoint.stage,
                "step": checkpoint.step,
                "tokens": checkpoint.tokens,
                "revision": checkpoint.revision or checkpoint.name,
                "train_seed": checkpoint.train_seed,
                "order": plan.order(checkpoint),
                "untrained": plan.is_untrained(checkpoint),
                "concept": concept.name,
                "sites": size.sites,
                "tensors": sorted(directions),
            }
            scores = {}
            for key, tensor in held_out.items():
                if "/" not in key:
                    scores[key] = tensor
                    continue
                part, *field = key.split("/")[1:]
                planted = [
                    auroc(checkpoint.step, layer / size.layers, number) for _, layer, _ in map(place, size.sites[part])
                ]
                if field:
                    scores[key] = grown_null(field[0], tensor, len(template_sites[part]), torch.tensor(planted))
                    continue
                lift = [math.sqrt(2) * normal.inv_cdf(value) for value in planted]
                scores[key] = noise[part] + torch.tensor(lift)[:, None, None] * y[None, :, None]
            save(folder / "directions" / f"{unit}.safetensors", directions, header_of_unit)
            save(folder / "scores" / f"{unit}.safetensors", scores, {**header_of_unit, "tensors": sorted(scores)})


def grown_null(field: str, tensor, count: int, planted):
    """What a unit keeps of a null, for more sites: by permutation as it is, by site again and again, with the planted score."""
    if tensor.shape[0] != count:
        return tensor
    again = tensor[torch.arange(len(planted)) % count]
    if field == "null_observed":
        return again + planted - 0.5
    if field == "null_p":
        return torch.where(planted > 0.6, again.new_tensor(1 / (SETTINGS.permutations + 1)), again)
    return again


def save(path: Path, tensors, header) -> None:
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"ontogeny": json.dumps(header)})


def make_run(folder: Path, size: Size) -> tuple[Path, list[Path]]:
    """A run directory in which every checkpoint is measured and nothing is related yet; its lineage and its concept files."""
    world = hearsay.make(hearsay.Config(families=size.families, context=64))
    tokenizer = hearsay.tokenizer(world)
    shutil.rmtree(folder, ignore_errors=True)
    make_lineage(folder / "model", size, tokenizer)
    concepts = make_concepts(folder / "concepts", size.concepts, world)
    template = make_template(folder / "template", concepts[0], tokenizer)
    lineage = Lineage.open(str(folder / "model"))
    plan = plan_trace(lineage, [Concept.from_file(path) for path in concepts], SETTINGS)
    units = [
        (c.stage, c.step, c.tokens, c.revision or c.name, k.name, plan.units[c, k.name], emergence_midpoint(i))
        for c in plan.checkpoints
        for i, k in enumerate(plan.concepts)
    ]
    make_records(folder / "run", template, size, units, pairs_within_folds(plan.designs[plan.concepts[0].name]))
    about = template.about
    entries = [{**about["concepts"][0], "name": k.name, "hash": k.hash} for k in plan.concepts]
    write_json(
        folder / "run" / "run.json", about | {"lineage": about["lineage"] | {"name": lineage.name}, "concepts": entries}
    )
    make_tensors(folder / "run", template, size, plan)
    return folder / "model", concepts


# --- the clock --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    cpu: float
    seconds: float
    peak_gb: float
    exit: int


def timed(*command: str | Path, limit_gb: float = 8.0) -> tuple[Cost, str]:
    """A command as a process of its own: CPU seconds and peak memory of it and its children; killed above `limit_gb`."""
    limit = int(limit_gb * 2**30)
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    cost = Cost(used.ru_utime + used.ru_stime, seconds, used.ru_maxrss / 2**20, os.waitstatus_to_exitcode(status))
    return cost, output


def seconds_to_draw(page: Path) -> float:
    """Seconds from opening a report in Chromium until its last picture is drawn; NaN without a browser."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        return math.nan
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1300, "height": 900})
        began = time.perf_counter()
        view.goto(page.as_uri(), timeout=120_000)
        view.wait_for_function("document.body.dataset.drawn !== undefined", timeout=120_000)
        drawn = time.perf_counter() - began
        browser.close()
    return drawn


ONE_QUERY = """
import sys
from ontogeny import Run
print(len(Run.open(sys.argv[1]).records("metric = 'auroc' and control is null and site = 'resid.1'")))
"""


def measure(folder: Path, size: Size, views: list[str], *, made: bool = False) -> dict[str, object]:
    """All rows of the table for one size; of the run that is in the folder, if it is `made`."""
    model, concepts = (folder / "model", sorted((folder / "concepts").iterdir())) if made else make_run(folder, size)
    run = folder / "run"
    words = [
        COMMAND,
        "trace",
        model,
        *(w for c in concepts for w in ("-c", c)),
        "--sites",
        SETTINGS.sites,
        "--protocol",
        SETTINGS.protocol,
        "--no-untrained",
        "--quiet",
    ]
    before = bytes_in(run / "records")
    late = hold_back(run, size)
    table: dict[str, object] = {"size": asdict(size), "bytes of records before": before}

    def note(name: str, cost: Cost, output: str) -> None:
        table[name] = asdict(cost)
        print(
            f"  {name}: {cost.cpu:.1f} CPU-s, {cost.seconds:.1f} s, {cost.peak_gb:.2f} GB, exit {cost.exit}", flush=True
        )
        if cost.exit:
            print("   ", output.strip()[-300:], flush=True)

    note("dry run", *timed(*words, "--out", folder / "nowhere", "--dry-run"))
    note("relate", *timed(*words, "--steps", f"0-{late.last}", "--out", run))
    late.put_back()
    os.sync()  # a new checkpoint comes when the parts of the others have reached the disk
    note("relate again after one checkpoint", *timed(*words, "--out", run))
    note("second start with nothing to do", *timed(*words, "--out", run))
    note("open and one query", *timed(sys.executable, "-c", ONE_QUERY, run))
    note("report", *timed(COMMAND, "report", run))
    page = run / "report.html"
    if page.is_file():
        table["report MB"] = page.stat().st_size / 2**20
        table["report seconds to draw"] = seconds_to_draw(page)
        print(f"  report: {table['report MB']:.1f} MB, drawn in {table['report seconds to draw']:.1f} s", flush=True)
    for view in views:
        note(f"show {view}", *timed(COMMAND, "show", run, view, "--out", folder / f"{view}.json"))
    files = sum(1 for kind in ("records", "directions", "scores") for _ in (run / kind).iterdir())
    table |= {"files a checkpoint": files / size.checkpoints, "bytes of records": bytes_in(run / "records")}
    print(f"  files a checkpoint: {table['files a checkpoint']:.1f}", flush=True)
    print(f"  bytes of records: {table['bytes of records']:,}, of the unit parts {before:,}", flush=True)
    return table


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@dataclass(frozen=True)
class HeldBack:
    """The last checkpoint's parts, moved aside."""

    run: Path
    aside: Path
    last: int
    """The last step that stays."""

    def put_back(self) -> None:
        for path in self.aside.rglob("*.*"):
            target = self.run / path.relative_to(self.aside)
            if path.is_file():
                shutil.move(path, target)


def hold_back(run: Path, size: Size) -> HeldBack:
    headers = {p.stem: read_tensor_header(p) for p in (run / "directions").glob("*.safetensors")}
    steps = sorted({int(h["step"]) for h in headers.values()})
    aside = run.parent / "aside"
    for kind in ("records", "directions", "scores"):
        (aside / kind).mkdir(parents=True, exist_ok=True)
        for path in list((run / kind).iterdir()):
            if headers[path.stem]["step"] == steps[-1]:
                shutil.move(path, aside / kind / path.name)
    return HeldBack(run, aside, steps[-2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", choices=sorted(SIZES), help="Repeat for more; small by default.")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/scale"), help="Where the runs are made (up to 45 GB)."
    )
    parser.add_argument("--views", default="emergence,layers,heads,drift,dependence", help="Pictures that are timed.")
    parser.add_argument(
        "--made", action="store_true", help="Measure runs that are in the folder, with unit parts only."
    )
    parser.add_argument("--keep", action="store_true", help="Keep the runs.")
    parser.add_argument("--out", type=Path, help="JSON file that keeps the table.")
    args = parser.parse_args()
    tables = {}
    for name in args.size or ["small"]:
        print(f"{name}: {SIZES[name]}", flush=True)
        views = [v for v in args.views.split(",") if v]
        tables[name] = measure(args.folder / name, SIZES[name], views, made=args.made)
        if args.keep:
            with contextlib.suppress(OSError):
                shutil.rmtree(args.folder / name / "aside")
        else:
            shutil.rmtree(args.folder / name)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
