"""What gin files may name of studies, and in `main.entry`. Importing this module registers it all."""

import gin

from ngrl.experiments import solver_comparison as _solver_comparison
from ngrl.experiments import study as _study
from ngrl.training.configurables import ENTRY_ARGUMENTS

# The originals know nothing of gin.
_CONFIGURABLE = {
    name: gin.external_configurable(target, name=name, module="ngrl.experiments")
    for name, target in {"Study": _study.Study, "Part": _study.Part}.items()
}
solver_comparison = gin.external_configurable(
    _solver_comparison.run, name="solver_comparison", module="ngrl.experiments", denylist=list(ENTRY_ARGUMENTS)
)
