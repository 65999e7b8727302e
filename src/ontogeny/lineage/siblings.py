"""Siblings: stages with one parent that differ in the share of some data, the data-mix axis of a lineage beside its time axis."""

from collections.abc import Sequence

from ontogeny.errors import BadInput
from ontogeny.lineage.checkpoint import Stage


def sibling_stages(stages: Sequence[Stage]) -> list[tuple[float, Stage]]:
    """The stages with a data share, by ascending share."""
    shares = [(stage.checkpoints[0].data_share, stage) for stage in stages if stage.checkpoints]
    return sorted(((share, stage) for share, stage in shares if share is not None), key=lambda pair: pair[0])


def check_sibling_places(stages: Sequence[Stage], name: str) -> None:
    """Raise BadInput if stages with a data share have different parents, or if two have the same share and training seed."""
    siblings = sibling_stages(stages)
    parents = {stage.parent for _, stage in siblings}
    if len(parents) > 1:
        shown = ", ".join(sorted("none" if parent is None else parent for parent in parents))
        raise BadInput(
            f'stages of {name} with a data_share must have the same parent, got {shown}: set `parent` to "" for independent runs, or write '
            "a lineage.toml for each group."
        )
    places: dict[tuple[float, int | None], str] = {}
    sources: dict[tuple[str, str, str | None, str], str] = {}
    for share, stage in siblings:
        source = stage.checkpoints[-1].hub_place
        if source in sources:
            raise BadInput(
                f"the stages {sources[source]} and {stage.name} of {name} have different values of data_share and the same source "
                f"{source[0]}: correct one of them."
            )
        sources[source] = stage.name
        place = (share, stage.checkpoints[0].train_seed)
        if place in places:
            raise BadInput(
                f"the stages {places[place]} and {stage.name} of {name} have the same data_share {share:g}: correct it, or give "
                "each its own train_seed."
            )
        places[place] = stage.name


def check_siblings(stages: Sequence[Stage], name: str) -> None:
    """`check_sibling_places`, and raise BadInput if there is a data share, but one only."""
    check_sibling_places(stages, name)
    siblings = sibling_stages(stages)
    if siblings and len({share for share, _ in siblings}) < 2:
        share, stage = siblings[0]
        raise BadInput(
            f"{name} must have stages with at least two values of data_share, got {share:g} of {stage.name} alone: give its "
            "siblings theirs, or leave it out."
        )
