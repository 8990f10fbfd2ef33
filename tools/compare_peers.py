"""Speed of ngrl against the libraries people use, as ratios; prints a table, and JSON on the last line.

    .venv/bin/python tools/compare_peers.py  # everything, about an hour
    .venv/bin/python tools/compare_peers.py --only 'trpo|npg'  # some rows
    .venv/bin/python tools/compare_peers.py --only dqn --threads 1 --rounds 9 --output peers.json
    .venv/bin/python tools/compare_peers.py --only trpo --gin_bindings 'OnPolicyLoop.act_on_host = True'

The peers are Stable-Baselines3, sb3-contrib and Tianshou, which the first call that needs them installs into a virtual
environment of their own (`.venv-peers`, 1.5 GB), SBX and rejax, which have theirs beside it (`.venv-peers-sbx` and so
on), and stock TF-Agents, which ngrl's has. Every contestant is a process of its own that warms up, compiles, and then
waits; they train in turn, A B A B ..., and a figure is the median over the rounds of each round's ratio, with its
quartiles, because machines are noisy. Don't run it beside anything else: with default threads a second program can make
torch a hundred times slower. Where that can't be helped, `--threads 1 --clock processor` counts processor time.

Rows whose names begin with "step" compare one step of an exact natural gradient with steps of Somax and kfac-jax on the
same network, batch and damping: what the table calls an update.

Both sides have the same environment and version of gymnasium, networks, batches, minibatches, epochs and updates per
step, and no GPU; otherwise each has its own defaults, such as the number of threads (one with ngrl). ngrl steps eight
environments together, the peer one (what Stable-Baselines3 does by default) and eight. Two things differ and can't be
made equal:

  - Conjugate gradients stop at each library's own tolerance, which may be before the most iterations.
  - An "update" is sb3-contrib's `train`, Tianshou's `update`, and TF-Agents' `train` with the reading of its buffer;
    of ngrl it is what a step that trains takes longer than one that doesn't. But for sb3-contrib's and
    Stable-Baselines3's, these include values and advantages.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from peers import installation, report
from peers.contestants import Contestant, WorkerError, ngrl_contestant, peer_contestant
from peers.rows import PEERS, ROOT, ROWS, Row
from peers.worker_protocol import Settings

THREADS = {"1": 1, "default": 0}
NGRL_ENVS = 8
# One-minute load average from which on other work disturbs: threads that wait for one another at every operation, as
# torch's do, then wait for the scheduler.
BUSY = 0.5


def settings_of(row: Row, peer_envs: list[int], processor_time: bool) -> dict[str, Settings]:
    """Settings by contestant, ngrl first."""
    values = {**vars(row.settings), "processor_time": processor_time}
    result = {report.NGRL: Settings(**{**values, "num_envs": 0 if row.is_steps else NGRL_ENVS})}
    for count in PEERS[row.peer].envs or peer_envs:
        result[f"{row.peer}-{count}"] = Settings(**{**values, "num_envs": count, "gin_file": ""})
    return result


@contextlib.contextmanager
def started(
    row: Row, threads: list[str], settings: dict[str, Settings], pythons: Mapping[str, Path]
) -> Iterator[dict[tuple[str, str], Contestant]]:
    """Contestants by threads and name, warmed up one after the other; ended afterwards."""
    contestants: dict[tuple[str, str], Contestant] = {}
    with contextlib.ExitStack() as stack:
        for count in threads:
            for name, shared in settings.items():
                own = Settings(**{**vars(shared), "threads": THREADS[count]})
                is_ngrl = name == report.NGRL
                contestant = ngrl_contestant(own) if is_ngrl else peer_contestant(row, own, pythons)
                stack.callback(contestant.close)
                contestant.wait_until_ready()
                contestants[count, name] = contestant
        yield contestants


def interleave(
    contestants: dict[tuple[str, str], Contestant], rounds: int, seconds: float, unit: int
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What the contestants measure in turn, `rounds` times, by threads and name.

    A first turn, which doesn't count, tells how many units of environment steps take each of them so many seconds.
    """
    lengths = {}
    for key, contestant in contestants.items():
        first = contestant.run(unit)
        rate = first["env_steps"] / first["seconds"]
        lengths[key] = unit * max(1, round(rate * seconds / unit))
    measured: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for _ in range(rounds):
        for (threads, name), contestant in contestants.items():
            segment = contestant.run(lengths[threads, name])
            measured.setdefault(threads, {}).setdefault(name, []).append(segment)
    return measured


def measure(row: Row, options: argparse.Namespace, pythons: Mapping[str, Path]) -> dict[str, Any]:
    """One row's part of the report.

    Raises:
      WorkerError: A contestant failed.
    """
    settings = settings_of(row, options.peer_envs, options.clock == "processor")
    gin_file = Path(row.settings.gin_file)
    if not gin_file.exists():
        raise WorkerError(f"there is no {gin_file.relative_to(ROOT)}")
    with started(row, options.threads, settings, pythons) as contestants:
        measured = interleave(contestants, options.rounds, options.seconds, row.unit)
    peer = PEERS[row.peer].name
    return {
        "env_id": row.settings.env_id,
        "note": row.note,
        "contestants": {
            name: {"name": "ngrl" if name == report.NGRL else peer, "num_envs": shared.num_envs}
            for name, shared in settings.items()
        },
        "figures": report.summarise(measured),
    }


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    versions = {name: metadata.version(name) for name in ("ngrl", "tensorflow", "tf-agents", "gymnasium", "numpy")}
    return {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "versions": versions,
        "peers": [requirement for group in installation.REQUIREMENTS.values() for requirement in group],
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", default="", metavar="REGEX", help="rows whose names it is found in, such as trpo-cartpole-contrib")
    add("--rounds", type=int, default=5, help="rounds A B A B ... (default: 5, at least 2)")
    add("--seconds", type=float, default=2.0, help="rough length of a turn (default: 2); whole batches in any case")
    add("--threads", nargs="+", choices=THREADS, default=list(THREADS), help="default: 1 default")
    add("--peer_envs", nargs="+", type=int, default=[1, 8], metavar="N", help="the peer's environments (default: 1 8)")
    add("--clock", choices=("wall", "processor"), default="wall", help="processor: on a busy machine, one thread alone")
    add("--gin_bindings", action="append", default=[], metavar="BINDING", help="bound on ngrl's side")
    add("--venv", type=Path, default=ROOT / ".venv-peers", metavar="DIR", help="the peers' (default: .venv-peers)")
    add("--output", type=Path, metavar="FILE", help="write the JSON there too")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}")
    if not options.seconds > 0:
        parser.error(f"--seconds must be positive, got {options.seconds}")
    units = {row.unit for row in ROWS if not PEERS[row.peer].envs}
    wrong = [count for count in options.peer_envs if count < 1 or any(unit % count for unit in units)]
    if wrong:
        parser.error(f"--peer_envs must divide a batch of 2,048 and a turn of 512 steps, got {wrong[0]}")
    try:
        options.rows = [row for row in ROWS if re.search(options.only, row.name)]
    except re.error as error:
        parser.error(f"--only is no regular expression: {error}")
    if not options.rows:
        parser.error(f"no row matches {options.only!r}: there are {', '.join(row.name for row in ROWS)}")
    if options.output and not options.output.absolute().parent.is_dir():
        parser.error(f"--output: no such folder: {options.output.parent}")
    if options.clock == "processor" and options.threads != ["1"]:
        parser.error("--clock processor counts what threads do together: it goes with --threads 1")
    options.rows = [row.bound(options.gin_bindings) for row in options.rows]
    options.threads = list(dict.fromkeys(options.threads))
    options.peer_envs = list(dict.fromkeys(options.peer_envs))
    return options


def main() -> int:
    """Parse the command line, install, measure, print; 1 where a row could not be measured."""
    options = parse()
    try:
        result: dict[str, Any] = {"machine": machine(), "rounds": options.rounds, "rows": {}}
        venv = options.venv.absolute()
        pythons = {
            name: installation.ensure(installation.folder(venv, name), requirements)
            for name, requirements in installation.REQUIREMENTS.items()
            if any(PEERS[row.peer].environment == name for row in options.rows)
        }
    except metadata.PackageNotFoundError as error:
        print(
            f"compare_peers: {error.name} isn't installed: run this with ngrl's Python, .venv/bin/python",
            file=sys.stderr,
        )
        return 1
    except installation.InstallationError as error:
        print(f"compare_peers: {error}", file=sys.stderr)
        return 1
    load = result["machine"]["load_before"]
    if load > BUSY:
        print(
            f"compare_peers: the machine is busy (load {load}): figures will be off, with default threads wildly so",
            file=sys.stderr,
        )
    for row in options.rows:
        print(f"compare_peers: {row.name}", file=sys.stderr)
        try:
            result["rows"][row.name] = measure(row, options, pythons)
        except WorkerError as error:
            print(f"compare_peers: {row.name}: {error}", file=sys.stderr)
            result["rows"][row.name] = {"error": str(error)}
        text = json.dumps(result, ensure_ascii=False)
        if options.output:
            options.output.write_text(f"{text}\n", encoding="utf-8")  # so that an interruption costs one row
    print(report.table(result))
    print(text)
    return int(any("error" in row for row in result["rows"].values()))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
