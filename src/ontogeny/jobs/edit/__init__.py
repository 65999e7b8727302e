"""Edit job: change facts of one checkpoint in its weights, measure the effects beside their nulls, and save the edited model."""

from ontogeny.jobs.edit.edit import edit
from ontogeny.jobs.edit.plan import EditPlan, estimate_edit, plan_edit

__all__ = ["EditPlan", "edit", "estimate_edit", "plan_edit"]
