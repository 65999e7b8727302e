"""Print the sentences of a trace under several seeds of the measurement: which of them say the same under every split.

    python tools/seed_sentences.py LINEAGE CONCEPT.jsonl … --out FOLDER [--seeds 8] [--protocol cross-fit] [--sites resid]

The model is read once; other seeds take the activations from the cache in FOLDER. A claim is a sentence up to its numbers: what
happened, and in which stage. It holds if at least 7 of 8 seeds make it, or if the sentence says that it is unsettled.
"""

import argparse
import re
from collections import Counter
from pathlib import Path

from ontogeny.activations.cache import ActivationCache
from ontogeny.data.concept import Concept
from ontogeny.findings.finding import collect_findings
from ontogeny.findings.selection import FINDING_ROWS, RecordSource
from ontogeny.findings.sentences import finding_sentences
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings

TOPICS = {
    "readable": ("becomes readable", "shows no emergence", "is read best"),
    "sites": ("is read first", "is read by no layer"),
    "lost": ("is lost", "is read less well"),
    "answers": ("answers", "is used", "is not shown to be"),
    "phase": ("turns", "shows no turn"),
}
"""The beginnings of the sentences on each topic."""
_UNSETTLED = " (unsettled)"


def claim_of(sentence: str) -> str:
    """The sentence without its numbers, intervals, reasons and sites."""
    head = re.split(r":|;| after block| in (?:the|head)", re.sub(r" \([^)]*\)", "", sentence))[0]
    return re.sub(r"[\d.,–−]*\d", "#", head).rstrip(".")


def claims_of(sentences: list[str]) -> dict[str, str]:
    """The claim on each topic; 'nothing said' if there is none."""
    claims = dict.fromkeys(TOPICS, "nothing said")
    for sentence in sentences:
        topic = next((name for name, starts in TOPICS.items() if sentence.startswith(starts)), None)
        if topic is None:
            raise ValueError(f"a sentence must begin as one of {TOPICS}, got {sentence!r}: add its topic.")
        unsettled = _UNSETTLED if "unsettled" in sentence else ""
        claims[topic] = claim_of(sentence) + unsettled
    return claims


def agreement_table(by_seed: list[dict[tuple[str, str], str]]) -> str:
    """The claims of each concept and topic with the number of seeds that make them, as a Markdown table."""
    least = len(by_seed) - max(1, len(by_seed) // 8)
    lines = ["| concept | topic | claims, with the number of seeds | holds |", "|---|---|---|---|"]
    for key in by_seed[0]:
        counts = Counter(claims[key] for claims in by_seed).most_common()
        happened = Counter(claims[key].removesuffix(_UNSETTLED) for claims in by_seed)
        same = happened.most_common(1)[0][1] >= least
        said = all("unsettled" in claim for claim, _ in counts if claim != "nothing said")
        verdict = "same" if same else "says so" if said else "**no**"
        lines.append(
            f"| {key[0]} | {key[1]} | {'; '.join(f'{claim} × {count}' for claim, count in counts)} | {verdict} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("lineage")
    parser.add_argument("concepts", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="the first seed; seeds of several calls share FOLDER")
    parser.add_argument("--protocol", default=TraceSettings.protocol)
    parser.add_argument("--sites", default=TraceSettings.sites)
    options = parser.parse_args()
    concepts = [Concept.from_file(path) for path in options.concepts]
    cache = ActivationCache(options.out / "activations", 20 * 10**9)
    by_seed = []
    for seed in range(options.first, options.first + options.seeds):
        settings = TraceSettings(seed=seed, protocol=options.protocol, sites=options.sites)
        run = trace(Lineage.open(options.lineage), concepts, options.out / f"seed-{seed}", settings, cache=cache)
        claims = {}
        for finding in collect_findings(RecordSource(run.query, run.about).rows(FINDING_ROWS)):
            sentences = finding_sentences(finding)
            for sentence in sentences:
                print(f"seed {seed} {finding.name} {sentence}", flush=True)
            claims |= {(finding.name, topic): claim for topic, claim in claims_of(sentences).items()}
        by_seed.append(claims)
    print(agreement_table(by_seed))


if __name__ == "__main__":
    main()
