"""Per-token reading over checkpoints: the score of each checkpoint's own probe at every token of some texts, as rows of its run."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ontogeny.activations.activations import ActivationOrigin
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, measured_checkpoints
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.inputs import as_run
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.jobs.trace.plan import trace_settings_of
from ontogeny.jobs.trace.reread import checkpoint_in_run
from ontogeny.lineage import fetch_checkpoint
from ontogeny.measurements.fitted_probe import FittedProbe
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.token_scores import TokenScores, read
from ontogeny.models.loading import ModelOptions
from ontogeny.models.reusable import ReusableModel
from ontogeny.probes import Probe
from ontogeny.records import Record, make_record, stamp_checkpoint
from ontogeny.sites import Site
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run


def read_checkpoints(
    source: Run | str | Path,
    concept: str,
    texts: str | Sequence[str],
    *,
    site: str | None = None,
    method: str = "mass_mean",
    model: ModelOptions | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Add the score of every token of some texts at every checkpoint of a trace: when does which word become true to the model?

    Each checkpoint is read with its own probe. `run.show("token_ribbon")` draws the rows, and so does the report. They replace those of
    an earlier call for the concept.

    Args:
        source: A traced run, or its folder.
        concept: Name of a traced concept of two classes.
        texts: One text, or several.
        site: Site that is read; by default the best site of the concept.
        method: Probe of the trace: mass_mean, logistic, …
        model: How models are loaded; by default on the CPU, in the dtype of the trace.
        on_progress: Called with each step; by default nothing is shown.

    Raises:
        BadInput: the run lacks the concept, site or probe, a text is empty or too long, or a checkpoint cannot be read.
    """
    run, listed = as_run(source), [texts] if isinstance(texts, str) else list(texts)
    if not listed:
        raise BadInput("`texts` must hold at least one text, got none: give a sentence.")
    visits = measured_checkpoints(run, concept)
    if not visits:
        raise unknown_name("traced concept", concept, {str(entry["name"]) for entry in run.about["concepts"]})
    wanted = run.direction(concept, site=site, method=method).site
    options = replace(model or ModelOptions(), dtype=trace_settings_of(run).dtype)
    reusable, records = ReusableModel(options, scores_vocabulary=False), list[Record]()
    with run_lock(run.folder):
        for done, visit in enumerate(visits):
            on_progress(TraceProgress(f"{visit.stage} {visit.checkpoint}", done, len(visits), "reading tokens"))
            checkpoint = checkpoint_in_run(run, visit.stage, visit.checkpoint)
            network, _ = reusable.load(fetch_checkpoint(checkpoint, allow_pickle=options.allow_pickle))
            probe = probe_in_run(run, concept, visit, wanted, method)
            for number, text in enumerate(listed):
                reading = read(network, probe, text)
                records += stamp_checkpoint(_token_rows(reading, concept, wanted, method, number), visit)
        key = [listed, str(wanted), method, [visit.unit for visit in visits]]
        prefix = f"tokens-{content_digest(concept)}"
        unit = f"{prefix}-{content_digest(key)}"
        run.keep(unit, CheckpointStamp(str(run.about["lineage"]["name"]), unit).sign(records))
        run.forget(prefix, but=unit)
    return run


def probe_in_run(run: Run, concept: str, visit: MeasuredCheckpoint, site: Site, method: str) -> FittedProbe:
    """The probe that a trace fitted at one checkpoint and site.

    Raises:
        BadInput: the trace fitted none there.
    """
    if site not in visit.sites.get(site.part, ()) or method not in visit.methods:
        raise BadInput(
            f"{concept} has no {method} at {site} of {visit.checkpoint}: trace it there, or read another site."
        )
    at, key = visit.sites[site.part].index(site), f"{method}/{site.part}"
    tensors = run.directions(visit.unit, [f"{key}/direction", f"{key}/bias"])
    readout = Probe(tensors[f"{key}/direction"][at : at + 1], tensors[f"{key}/bias"][at : at + 1], {})
    origin = ActivationOrigin(concept, visit.checkpoint, (), (), "", "")
    return FittedProbe(method, {site.part: readout}, {site.part: (site,)}, origin)


def _token_rows(reading: TokenScores, concept: str, site: Site, method: str, number: int) -> Iterator[Record]:
    for place, (token, score) in enumerate(zip(reading.tokens, reading.scores[0].tolist(), strict=True)):
        yield make_record(
            "token_score",
            score,
            n=1,
            site=site,
            concept=concept,
            method=method,
            reason="the activation is not finite",
            coords={"text": f"{number}", "token": f"{place}", "word": token},
        )
