"""`pip check`, but for the complaints that are known to be harmless, each with its reason."""

import re
import subprocess
import sys

# (who complains, of what): why that is no fault. All are pins of TF-Agents 0.19, whose code runs with the locked set.
ALLOWED = {
    ("tf-agents", "gym"): "retired; TF-Agents uses it for its own gym environments only (see ngrl/_importing.py)",
    ("tf-agents", "pygame"): "TF-Agents imports it nowhere; gymnasium brings the one that it wants",
    ("tf-agents", "typing-extensions"): "TF-Agents takes Protocol and the like, which every later release has too",
    ("tf-agents", "tensorflow-probability"): "the suite passes with 0.23 and with 0.25",
}

_COMPLAINT = re.compile(r"(?P<who>\S+) \S+ (?:requires|has requirement) (?P<what>[A-Za-z0-9._-]+)")


def unexpected(lines: list[str]) -> list[str]:
    """The lines of `pip check` that are not allowed, those that can't be read among them."""
    found = []
    for line in lines:
        match = _COMPLAINT.match(line)
        names = [re.sub(r"[-_.]+", "-", name).lower() for name in match.groups()] if match else []
        if tuple(names) not in ALLOWED:
            found.append(line)
    return found


def main() -> int:
    """Run `pip check` of this Python; its exit code, if it complains of anything else than what is allowed."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return 0
    lines = (done.stdout + done.stderr).splitlines()
    faults = unexpected(lines) or ([] if lines else ["pip check failed and said nothing"])
    print("\n".join(faults), end="\n" if faults else "", file=sys.stderr)
    return done.returncode if faults else 0


if __name__ == "__main__":
    sys.exit(main())
