"""Knowledge editing of one model: closed-form changes of an MLP's output weights, their null, their effects and their side effects."""

from ontogeny.editing.effects import EditPrompts, edit_effects
from ontogeny.editing.facts import FactEdit
from ontogeny.editing.nulls import norm_matched_edits
from ontogeny.editing.second_moment import SecondMoment, key_second_moments
from ontogeny.editing.session import AppliedEdit, EditSession, EditSettings
from ontogeny.editing.shattering import Shattering, shattering
from ontogeny.editing.value import ValueSettings

__all__ = [
    "AppliedEdit",
    "EditPrompts",
    "EditSession",
    "EditSettings",
    "FactEdit",
    "SecondMoment",
    "Shattering",
    "ValueSettings",
    "edit_effects",
    "key_second_moments",
    "norm_matched_edits",
    "shattering",
]
