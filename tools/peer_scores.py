"""What peers reach on the environments that ngrl is run on; prints a Markdown table.

    .venv/bin/python tools/peer_scores.py Hopper-v5 Walker2d-v5 --seeds 0 1 2 --jobs 2
    .venv/bin/python tools/peer_scores.py MinAtar/Breakout-v1 MinAtar/Asterix-v1 --steps 500000 --episodes 100

On MuJoCo sb3-contrib's TRPO with rl-baselines3-zoo's settings: the figures that are published are of v3 and v4 of these
environments. On MinAtar PQN with its authors' settings for these games, in PyTorch. Each run is a process of the peers'
own Python (`.venv-peers`, `.venv-peers-pqn`, installed when it is missing, see `tools/compare_peers.py`), which trains
on one core, plays its greedy policy and leaves a JSON file in the folder `--out`; a run whose file is there is not run
again.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
from concurrent import futures
from pathlib import Path
from typing import Any

from peers import installation

from ngrl.runs.files import write_json

ROOT = Path(__file__).resolve().parents[1]
WORKERS = ROOT / "tools" / "peers"
COLUMNS = ("greedy", "final_100_episode_mean")


@dataclasses.dataclass(frozen=True)
class Peer:
    """Who plays an environment."""

    name: str
    environment: str  # of installation.REQUIREMENTS
    worker: Path


def peer_of(env_id: str) -> Peer:
    """Who plays it."""
    if env_id.startswith("MinAtar/"):
        return Peer("pqn", "pqn", WORKERS / "pqn_scores_worker.py")
    return Peer("sb3_contrib_trpo", "torch", WORKERS / "sb3_scores_worker.py")


def run(python: Path, env_id: str, seed: int, steps: int, episodes: int, out: Path) -> dict[str, Any]:
    """One run's result, read where it is there.

    Raises:
      RuntimeError: The run failed, or its file holds something else; the message is one line.
    """
    peer = peer_of(env_id)
    path = out / f"{peer.name}_{env_id.replace('/', '_')}-seed{seed}.json"
    wanted = {"env_id": env_id, "seed": seed, "env_steps": steps, "episodes": episodes}
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = {}
        if not isinstance(found, dict) or any(found.get(name) != value for name, value in wanted.items()):
            raise RuntimeError(f"{path} is not of {steps:,} steps and {episodes} episodes: move it away")
        return found
    command = [str(python), str(peer.worker), env_id, f"--seed={seed}", f"--steps={steps}", f"--episodes={episodes}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{env_id} seed {seed}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    result = {**wanted, **json.loads(done.stdout.splitlines()[-1])}
    write_json(path, result)
    minutes = result["train_s"] / 60
    print(f"{env_id} seed {seed}: greedy {result['greedy']:.1f}, {minutes:.1f} minutes", file=sys.stderr)
    return result


def table(results: list[dict[str, Any]]) -> str:
    """A line for each environment: every seed's greedy mean, their mean, and that of the last episodes in training."""
    lines = ["| environment | greedy, by seed | mean | last 100 in training |", "| --- | --- | --- | --- |"]
    for env_id in dict.fromkeys(result["env_id"] for result in results):
        greedy, last = ([result[name] for result in results if result["env_id"] == env_id] for name in COLUMNS)
        each = ", ".join(f"{value:.1f}" for value in greedy)
        lines.append(f"| {env_id} | {each} | **{statistics.mean(greedy):.1f}** | {statistics.mean(last):.1f} |")
    return "\n".join(lines)


def main() -> int:
    """Parse the command line, install, run, print; 1 where a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("env_ids", nargs="+", metavar="ENV_ID", help="such as Hopper-v5, MinAtar/Breakout-v1")
    add("--seeds", nargs="+", type=int, default=[0], metavar="N", help="default: 0")
    add("--steps", type=int, default=1_000_000, help="environment steps of a run (default: 1000000)")
    add("--episodes", type=int, default=20, help="that the greedy policy plays (default: 20)")
    add("--jobs", type=int, default=1, metavar="N", help="runs at a time (default: 1)")
    add("--venv", type=Path, default=ROOT / ".venv-peers", metavar="DIR", help="the peers' (default: .venv-peers)")
    add("--out", type=Path, default=Path("runs/peers"), metavar="DIR", help="default: runs/peers")
    options = parser.parse_args()
    for name in ("steps", "episodes", "jobs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be positive, got {getattr(options, name)}")
    options.out.mkdir(parents=True, exist_ok=True)
    venv = options.venv.absolute()
    try:
        pythons = {
            name: installation.ensure(installation.folder(venv, name), installation.REQUIREMENTS[name])
            for name in {peer_of(env_id).environment for env_id in options.env_ids}
        }
    except installation.InstallationError as error:
        sys.exit(f"peer_scores: {error}")
    results, failed = [], False
    with futures.ThreadPoolExecutor(options.jobs) as pool:
        pending = [
            pool.submit(
                run, pythons[peer_of(env_id).environment], env_id, seed, options.steps, options.episodes, options.out
            )
            for env_id in dict.fromkeys(options.env_ids)
            for seed in dict.fromkeys(options.seeds)
        ]
        for future in pending:
            try:
                results.append(future.result())
            except RuntimeError as error:
                print(f"peer_scores: {error}", file=sys.stderr)
                failed = True
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                sys.exit("peer_scores: stopped; the same command goes on")
    if results:
        print(table(results))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
