"""Speed and memory of the dashboard in headless Chromium, on a run of any size.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/dashboard.py --run runs/mine
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/dashboard.py --make runs/heads          # 154 checkpoints, 1.9 million rows of heads

The command is a process of its own. From its start: until it prints its address, and until the atlas is drawn. After that, in new pages:
first paint, steps of the slider by the arrow key until the cells of the next checkpoint are drawn, and the same for the heads of a concept.

All charts are the first page of another process, on a page that is high enough to show them: from its address until the last one is drawn.
If fewer than 24 of them have a picture, a concept is chosen on the page, and the charts of this concept are drawn in their place, until 24
pictures have been drawn. Then the same again in a new page, for which the server has drawn them. Peak memory is the server's.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMAND = Path(sys.executable).parent / "ontogeny"
STEPS = 24
CHARTS = 24
DRAWN = """([concept, needed]) => {
  const charts = [...document.querySelectorAll(".chart")].filter((one) => !one.hasAttribute("aria-busy"));
  const isOfConcept = (one) => !concept || one.dataset.drawn.includes(`concept=${encodeURIComponent(concept)}`);
  const drawn = charts.filter((one) => one.dataset.drawn && (one.dataset.drawn === "problem" || isOfConcept(one)));
  const pictures = drawn.filter((one) => one.dataset.drawn !== "problem").length;
  const all = document.querySelectorAll(".chart").length;
  return pictures >= needed || (all && drawn.length === all) ? {pictures} : null;
}"""
"""The pictures of a concept that are drawn, as soon as there are enough or no more to come."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="Run directory that is shown.")
    parser.add_argument("--make", type=Path, help="Make a run of 1.9 million rows of heads in this folder and show it.")
    parser.add_argument(
        "--idle",
        type=float,
        default=0,
        help="Seconds on another panel, in which views are drawn ahead, before all charts are opened.",
    )
    parser.add_argument("--out", type=Path, help="JSON file that keeps the table.")
    options = parser.parse_args()
    run = options.run or make(options.make)
    table = measure(run, options.idle)
    print(json.dumps(table, indent=1))
    if options.out:
        options.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def make(folder: Path) -> Path:
    """A finished run of known curves, without a model; 154 checkpoints, 18 layers of 12 heads, 3 concepts."""
    sys.path.insert(0, str(Path(__file__).parent))
    import results_scale

    model, concepts = results_scale.make_run(folder, results_scale.Size(154, 18, 12, 3, 192, families=24))
    settings = results_scale.SETTINGS
    chosen = [word for concept in concepts for word in ("-c", concept)]
    words = [COMMAND, "trace", model, *chosen, "--sites", settings.sites, "--protocol", settings.protocol]
    subprocess.run([*map(str, words), "--no-untrained", "--quiet", "--out", str(folder / "run")], check=True)
    return folder / "run"


@contextmanager
def dashboard(run: Path) -> Iterator[tuple[str, int]]:
    """The address and the process of a dashboard."""
    words = [str(COMMAND), "dashboard", str(run), "--no-browser", "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("dashboard:").strip(), process.pid
    finally:
        process.terminate()
        process.wait(30)


def peak_mb(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024)


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return round((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), 2)


def measure(run: Path, idle: float) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    table: dict[str, Any] = {"rows": count_rows(run)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        began = time.perf_counter()
        with dashboard(run) as (address, process):
            table["seconds until the address"] = seconds(began)
            page = browser.new_page(viewport={"width": 1300, "height": 900})
            page.goto(address)
            page.wait_for_selector(
                ".chart[data-drawn*=atlas] svg.marks, .chart[data-drawn*=atlas] canvas", timeout=120_000
            )
            table["seconds until the atlas is drawn"] = seconds(began)
            table["CPU seconds of the server until then"] = cpu_seconds(process)
            table["MB of the server then"] = peak_mb(process)
            began = time.perf_counter()
            page.goto(address)
            page.wait_for_selector(
                ".chart[data-drawn*=atlas] svg.marks, .chart[data-drawn*=atlas] canvas", timeout=120_000
            )
            table["seconds of a second page"] = seconds(began)
            paints = "performance.getEntriesByName('first-contentful-paint').map((one) => one.startTime)[0]"
            table["first paint, ms"] = round(page.evaluate(paints) or 0)
            table["slider step, ms"] = slider(page)
            page.goto(f"{address}&part=head")
            page.wait_for_selector(".chart[data-drawn*='part=head']", timeout=120_000)
            table["slider step of heads, ms"] = slider(page)
            table["peak MB of the server"] = peak_mb(process)
        table |= all_charts(browser, run, idle)
        browser.close()
    return table


def all_charts(browser: Any, run: Path, idle: float) -> dict[str, Any]:
    """Seconds until 24 pictures are drawn, of a server that has drawn none, and again."""
    table: dict[str, Any] = {}
    with dashboard(run) as (address, process):
        before = cpu_seconds(process)
        if idle:
            first = browser.new_page(viewport={"width": 1300, "height": 900})
            first.goto(f"{address}&panel=records")
            first.wait_for_timeout(1000 * idle)
            first.close()
        for name in ("for the first time", "again"):
            page = browser.new_page(viewport={"width": 1300, "height": 30_000})
            began, drawn, waits = time.perf_counter(), 0, list[str]()
            concepts = [""]
            while drawn < CHARTS and concepts:
                concept = concepts.pop(0)
                if concept:
                    page.locator("label.choice:has(span:text-is('concept')) select").select_option(concept)
                else:
                    page.goto(f"{address}&panel=charts")
                found = page.wait_for_function(DRAWN, arg=[concept, CHARTS - drawn], timeout=300_000)
                drawn += found.json_value()["pictures"]
                waits.append(f"{drawn} after {seconds(began)}")
                if not concept:
                    offered = "[...document.querySelectorAll('label.choice')].find((one) => one.firstChild.textContent === 'concept')"
                    concepts = page.evaluate(
                        f"[...{offered}.querySelectorAll('option')].map((one) => one.value).filter(Boolean)"
                    )
            table[f"seconds, charts {name}"] = seconds(began)
            table[f"pictures, charts {name}"] = ", ".join(waits)
            table[f"CPU seconds of the server, charts {name}"] = round(cpu_seconds(process) - before, 2)
            before = cpu_seconds(process)
            page.close()
    return table


def slider(page: Any) -> str:
    """Milliseconds from a key until the cells of the next checkpoint are drawn; median (least – greatest)."""
    each = []
    for number in range(STEPS):
        before = page.locator(".chart").first.get_attribute("data-drawn")
        began = time.perf_counter()
        page.keyboard.press("ArrowLeft" if number < STEPS // 2 else "ArrowRight")
        page.wait_for_function("(old) => document.querySelector('.chart').dataset.drawn !== old", arg=before)
        each.append(1000 * (time.perf_counter() - began))
    return f"{statistics.median(each):.0f} ({min(each):.0f} – {max(each):.0f})"


def seconds(began: float) -> float:
    return round(time.perf_counter() - began, 2)


def count_rows(run: Path) -> dict[str, int]:
    from ontogeny.storage.run import Run

    counts = "count(*) as whole, count(head) as heads, count(distinct (stage, step)) as checkpoints"
    return {name: int(value) for name, value in Run.open(run).query(f"select {counts} from records").iloc[0].items()}


if __name__ == "__main__":
    main()
