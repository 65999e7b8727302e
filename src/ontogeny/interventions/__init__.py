"""Interventions: frozen changes of an activation, an attention pattern or a weight; tensors in, tensors out, no model and no disk.

Each is a callable `h -> h` (with a mask: only where it is True), has its `kind`, says with `nothing` that it would change nothing, and
has `null(seed)`, the norm-matched control: an edit as large that knows nothing. `a >> b` does first a, then b.
"""

from ontogeny.interventions._parts import Intervention as Intervention
from ontogeny.interventions._parts import Matched as Matched
from ontogeny.interventions._parts import Then as Then
from ontogeny.interventions.add import Add as Add
from ontogeny.interventions.attention import Reweight as Reweight
from ontogeny.interventions.overwrite import Patch as Patch
from ontogeny.interventions.overwrite import Zero as Zero
from ontogeny.interventions.project import Ablate as Ablate
from ontogeny.interventions.project import Clamp as Clamp
from ontogeny.interventions.project import Erase as Erase
from ontogeny.interventions.weight import RankOne as RankOne
