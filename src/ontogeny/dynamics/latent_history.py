"""History of the latents of the last checkpoint: where each is matched, when it is born, and how many a second seed finds."""

from collections import Counter
from collections.abc import Callable, Sequence

from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.records import Record, make_record
from ontogeny.sae.matching import LatentMatch, latent_births, match_latents
from ontogeny.sae.plan import SaePlan
from ontogeny.sae.rows import birth_row, match_row, member_coords
from ontogeny.sae.unit import SaeUnit
from ontogeny.sites import Site


def latent_history(
    stamps: Sequence[CheckpointStamp],
    load: Callable[[int], SaeUnit],
    floor: SaeUnit,
    settings: SaePlan,
    on_pair: Callable[[int, int], None] = lambda done, total: None,
) -> list[Record]:
    """Rows of all checkpoints, for each autoencoder.

    Args:
        stamps: Of the checkpoints, in training order.
        load: The autoencoders of a checkpoint.
        floor: Those of the untrained network.
    """
    site, last, rows = Site.parse(settings.site), len(stamps) - 1, list[Record]()
    final, later = load(last), None
    place_of_final = {"other_stage": stamps[last].stage or "", "other_step": str(stamps[last].step)}
    found: list[list[LatentMatch]] = [[] for _ in settings.members]
    for place in range(last, -1, -1):
        on_pair(last - place, last + 1)
        unit, here = load(place), list[Record]()
        for i, member in enumerate(settings.members):
            if later is not None:
                match = _match(final, i, unit, i, settings)
                found[i].append(match)
                here.append(match_row("sae_matched", member, match, site, **place_of_final))
                here.append(match_row("sae_persists", member, _match(unit, i, later, i, settings), site))
            if (other := _other_seed(settings, i)) is not None:
                match = _match(final, i, unit, other, settings)
                here.append(match_row("sae_matched", member, match, site, control="other_seed", **place_of_final))
        later = unit
        rows += stamps[place].on(here)
    for i, member in enumerate(settings.members):
        untrained = _match(final, i, floor, i, settings)
        shuffled = _match(final, i, final, i, settings, shuffle=True)
        controls = (("untrained", untrained), ("permuted_texts", shuffled))
        rows += stamps[last].on([match_row("sae_matched", member, m, site, control=name) for name, m in controls])
        rows += _births(stamps, found[i][::-1], untrained, i, settings, site)
    return rows


def _births(
    stamps: Sequence[CheckpointStamp],
    matches: Sequence[LatentMatch],
    untrained: LatentMatch,
    i: int,
    settings: SaePlan,
    site: Site,
) -> list[Record]:
    member, rows = settings.members[i], list[Record]()
    compared = untrained.compared
    born = latent_births(matches)[0] if matches else compared.long() * 0
    counts = Counter(born[compared].tolist())
    for place, stamp in enumerate(stamps):
        rows += stamp.on([birth_row(member, counts, untrained, site, place)])
    of_latents = [
        make_record(
            "latent_birth",
            float(step) if (step := stamps[int(born[latent])].step) is not None else float("nan"),
            n=1,
            site=site,
            method=member.activation,
            seed=member.seed,
            reason="the checkpoint has no step",
            coords=member_coords(member)
            | {"latent": str(latent), "birth_stage": stamps[int(born[latent])].stage or ""},
        )
        for latent in compared.nonzero()[:, 0].tolist()
    ]
    return rows + stamps[-1].on(of_latents)


def _other_seed(settings: SaePlan, place: int) -> int | None:
    """The same kind of autoencoder from the next seed."""
    kinds = len(settings.members) // settings.seeds
    return (place + kinds) % len(settings.members) if settings.seeds > 1 else None


def _match(one: SaeUnit, i: int, other: SaeUnit, j: int, settings: SaePlan, *, shuffle: bool = False) -> LatentMatch:
    """Match two autoencoders; networks of one lineage share a basis, so that directions are compared as well."""
    theirs = other.latents(j)
    if shuffle:
        half = len(theirs) // 2
        theirs = theirs.roll(half, 0)
    directions = (one.autoencoders[i].decoder, other.autoencoders[j].decoder)
    return match_latents(
        one.latents(i), theirs, one.owner, directions, permutations=settings.permutations, seed=settings.seed
    )
