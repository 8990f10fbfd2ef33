"""What gin files may name of studies. Importing this module registers it all."""

import gin

from ngrl.experiments import study as _study

_CLASSES = {"Study": _study.Study, "Part": _study.Part}

# The originals know nothing of gin.
_CONFIGURABLE = {
    name: gin.external_configurable(target, name=name, module="ngrl.experiments") for name, target in _CLASSES.items()
}
