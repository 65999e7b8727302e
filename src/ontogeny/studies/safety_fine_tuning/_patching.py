"""MLP outputs exchanged between the base and the tuned network, in each block and in all: does one then answer as the other does?"""

from collections.abc import Iterator, Mapping
from functools import partial

import torch

from ontogeny.fine_tuning.mlp_patching import mlp_outputs, moved_as_far, patched_mlps
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.studies.safety_fine_tuning._measures import PromptSet, Reading, read_prompt_set

INTO_BASE, INTO_TUNED = "tuned into base", "base into tuned"
RANDOM_MOVE = "random move"


@torch.no_grad()
def patching_rows(lab: Lab, base: Model, tuned: Model, sets: Mapping[str, PromptSet], refusal: int) -> Iterator[Record]:
    """Refusals and right results with the MLP outputs of the other network in each block, and in all blocks at once."""
    generator = torch.Generator().manual_seed(lab.seed)
    for name in ("unsafe", "safe"):
        prompts = sets[name]
        for condition, model, source in ((INTO_BASE, base, tuned), (INTO_TUNED, tuned, base)):
            own, plain = mlp_outputs(model, partial(read_prompt_set, model, prompts, refusal))
            other, _ = mlp_outputs(source, partial(read_prompt_set, source, prompts, refusal))
            for control in (None, RANDOM_MOVE):
                moved = other if control is None else {
                    layer: moved_as_far(own[layer], other[layer], generator) for layer in own
                }  # fmt: skip
                yield from _reading_rows(lab, condition, control, name, "none", plain)
                for layer in own:
                    with patched_mlps(model, {layer: moved[layer]}):
                        patched = read_prompt_set(model, prompts, refusal)
                    for place in {str(layer), *(("last",) if layer == model.layers else ())}:
                        yield from _reading_rows(lab, condition, control, name, place, patched)
                # A later output depends on the earlier ones; all of one pass are put in together.
                with patched_mlps(model, moved):
                    patched = read_prompt_set(model, prompts, refusal)
                yield from _reading_rows(lab, condition, control, name, "all", patched)


def _reading_rows(
    lab: Lab, condition: str, control: str | None, prompts: str, layer: str, reading: Reading
) -> Iterator[Record]:
    for metric, values in (("patched_refusals", reading.refused), ("patched_right", reading.right)):
        value = float(values.mean())
        yield lab.row(metric, value, condition, control=control, n=len(values), prompts=prompts, layer=layer)
