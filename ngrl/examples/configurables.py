"""What gin files may name in `main.entry` beside training runs. Importing this module registers it all."""

import gin

from ngrl.examples import geometry as _geometry
from ngrl.examples import maximum_likelihood as _maximum_likelihood
from ngrl.examples import solver_comparison as _solver_comparison

_ENTRIES = {
    "geometry": _geometry.run,
    "maximum_likelihood": _maximum_likelihood.run,
    "solver_comparison": _solver_comparison.run,
}

# The originals know nothing of gin.
_CONFIGURABLE = {
    name: gin.external_configurable(target, name=name, module="ngrl.examples", denylist=["context"])
    for name, target in _ENTRIES.items()
}
geometry = _CONFIGURABLE["geometry"]
maximum_likelihood = _CONFIGURABLE["maximum_likelihood"]
solver_comparison = _CONFIGURABLE["solver_comparison"]
