"""Short runs of every agent as fingerprints, to see that moving code has changed no number.

    .venv/bin/python tools/fingerprint.py --out before.json
    .venv/bin/python tools/fingerprint.py --compare before.json

A fingerprint is a SHA-256 over the bits of everything that a run computes: the weights of both exported policies, the
optimizer's slots and every other variable of the last checkpoint, the replay's content, and the returns of all
episodes. Names count for nothing, so that attributes and folders may be renamed. Runs are not compiled by XLA, whose
fusion rounds differently when the code around an operation changes; --jit_compile compares those too.

The exit code is 1 where a fingerprint differs.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import chaos
import fork_server
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
_EXPERIMENTS = {
    "ngdqn_cartpole_v1": ["OffPolicyLoop.warmup_steps=200"],
    "dqn_cartpole_v1": ["OffPolicyLoop.warmup_steps=200"],
    "kfac_cartpole_v1": ["OffPolicyLoop.warmup_steps=200"],
    "reinforce_cartpole_v1": [],
    "npg_cartpole_v1": [],
    "trpo_cartpole_v1": [],
    "ppo_cartpole_v1": [],
    "acktr_cartpole_v1": [],
    "nac_cartpole_v1": [],
    "acer_cartpole_v1": ["TrajectoryReplayLoop.warmup_steps=400"],
    "reinforce_pendulum": [],
    "npg_pendulum": [],
    "trpo_pendulum": [],
    "ppo_pendulum": [],
    "acer_pendulum": ["TrajectoryReplayLoop.warmup_steps=400"],
    "trpo_acrobot": [],
    "examples/toy_nac": [],
    "examples/toy_npg": [],
}


def fingerprint(directory: Path) -> str:
    """The hash of what a run's directory holds, whatever the names."""
    values = [np.asarray(value) for name, value in chaos.contents(directory).items() if _counts(name, value)]
    described = sorted(str((value.dtype.str, value.shape)).encode() + value.tobytes() for value in values)
    return hashlib.sha256(b"\0".join(described)).hexdigest()


def _loop(name: str) -> str:
    """The training loop of an experiment."""
    if "acer" in name:
        return "TrajectoryReplayLoop"
    return "OffPolicyLoop" if "dqn" in name or "kfac" in name else "OnPolicyLoop"


def _counts(name: str, value: object) -> bool:
    """Whether it is a number that the run computed: strings are names, `state` and `final` tell the rest again."""
    return name == "episodes.csv" or (not isinstance(value, str | bytes) and np.asarray(value).dtype != object)


def main() -> int:
    """Run the command and return its exit code."""
    description, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the fingerprints to FILE")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare with those in FILE")
    parser.add_argument("--only", nargs="+", default=list(_EXPERIMENTS), choices=list(_EXPERIMENTS), metavar="NAME")
    parser.add_argument("--steps", type=int, default=6000, help="environment steps of a run (default: 6000)")
    parser.add_argument("--jit_compile", action="store_true", help="compile by XLA, as ordinary runs do")
    options = parser.parse_args()
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        server = fork_server.Server(Path(folder) / "server.txt")
        for name in options.only:
            path = Path(folder) / name.replace("/", "_")
            output = path.with_suffix(".txt")
            bindings = [f"run.num_env_steps={options.steps}", "Evaluation.episodes=2", *_EXPERIMENTS[name]]
            bindings.append(f"{_loop(name)}.jit_compile={options.jit_compile}")
            argv = [f"--gin_file={ROOT / 'gin' / name}.gin", f"--root_dir={path}", "--noprogress"]
            argv += [f"--gin_bindings={binding}" for binding in bindings]
            if server.ask(wait=server.ask(argv=argv, cwd=str(ROOT), output=str(output))):
                print(f"fingerprint: {name} failed: {output.read_text().strip()}", file=sys.stderr)
                return 1
            found[name] = fingerprint(path)
            print(f"{name:24} {found[name][:16]}", flush=True)
        server.close()
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    if options.compare:
        before = json.loads(options.compare.read_text())
        changed = [name for name in found if before.get(name) != found[name]]
        print(f"changed: {', '.join(changed)}" if changed else f"{len(found)} fingerprints are the same")
        return int(bool(changed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
