"""What gin files may name of studies. Importing this module registers it all."""

import gin

from ngrl.studies import study as _study

# The originals know nothing of gin.
_CONFIGURABLE = {
    name: gin.external_configurable(target, name=name, module="ngrl.studies")
    for name, target in {"Study": _study.Study, "Part": _study.Part}.items()
}
