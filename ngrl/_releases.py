"""Which releases of other packages ngrl is made for, told by their files' names: `importlib.metadata` takes 0.1 s."""

import importlib.util
import os
import re
import sys

# From the first of the two on, up to the second, which is not supported; setup.py has the same ranges.
SUPPORTED = {
    "numpy": ((1, 26), (3, 0)),
    "tensorflow": ((2, 21), (2, 22)),
    "tf-keras": ((2, 21), (2, 22)),
    "tensorflow-probability": ((0, 23), (0, 26)),
    "gymnasium": ((1, 2), (1, 5)),
    "tf-agents": ((0, 19), (0, 20)),
}
TF_AGENTS_MISSING = "TF-Agents is not installed: pip install --no-deps tf-agents==0.19.0"

_INFO = re.compile(r"(\w+)-(\d+)\.(\d+)[^-]*\.(?:dist|egg)-info", re.IGNORECASE)


def installed() -> dict[str, tuple[int, int]]:
    """Major and minor version of each package, by lower-case name with hyphens; the first on the path counts."""
    found: dict[str, tuple[int, int]] = {}
    for folder in sys.path:
        try:
            matches = [match for name in os.listdir(folder or ".") if (match := _INFO.match(name))]
        except OSError:  # a zip file, or not there
            continue
        for name, major, minor in (match.groups() for match in matches):
            found.setdefault(name.lower().replace("_", "-"), (int(major), int(minor)))
    return found


def complaint() -> str | None:
    """One line about the first package of a release that is not supported; what isn't installed is passed over."""
    found = installed()
    for name, (first, end) in SUPPORTED.items():
        version = found.get(name)
        if version is not None and not first <= version < end:
            range_ = f">={first[0]}.{first[1]},<{end[0]}.{end[1]}"
            no_deps = "--no-deps " if name == "tf-agents" else ""
            have = f"{version[0]}.{version[1]}"
            return f"ngrl needs {name} {range_}, but {have} is installed: pip install {no_deps}'{name}{range_}'"
    return None


def has_tf_agents() -> bool:
    """Whether TF-Agents can be imported; a command asks before it hides the terminal from libraries."""
    return importlib.util.find_spec("tf_agents") is not None
