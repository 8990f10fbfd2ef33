"""The part of `bench.py` that reads what memory XLA plans for an update: arguments, results and all between.

The parameters and the optimizer's state are among the arguments. Both optimizers are compiled, with images as patches
and GRU's steps unrolled.
"""

import pathlib
import re
import sys
import tempfile
from typing import Any

import bench_pixels
import bench_recurrent
from bench_rounds import in_process, timed_updates

GOAL = "< 3"


def networks() -> list[str]:
    """Those of the parts that time updates."""
    return [*bench_pixels.NETWORKS, *(f"gru, B = {batch}" for batch in bench_recurrent.BATCHES)]


def update(name: str, optimizer: str) -> None:
    """Compile one update and take it."""
    if name.startswith("gru"):
        bench_recurrent.updates(1, int(name.rpartition(" ")[2]), optimizer, "unrolled", "xla")
        return
    setting = bench_pixels.NETWORKS[name]
    agent = bench_pixels.image_agent(setting, "patches", bench_pixels.make_optimizer(optimizer == "natural"))
    timed_updates(agent, setting["shape"], bench_pixels.NUM_ACTIONS, setting["batch"], 1, compiled=True)


def planned_bytes(directory: pathlib.Path) -> int:
    """The most that one of the functions takes whose reports XLA has left in a directory."""
    reports = [path.read_text("utf-8") for path in directory.glob("*memory-usage-report.txt")]
    found = [re.match(r"Total bytes used: (\d+)", report) for report in reports]
    return max(int(match[1]) for match in found if match)


def update_bytes(name: str, optimizer: str) -> int:
    """Bytes of an update, which a process of its own takes: XLA reads its flags once.

    Buffers are planned before LLVM is called, which then needn't optimise.
    """
    with tempfile.TemporaryDirectory() as directory:
        flags = f"--xla_dump_to={directory} --xla_dump_hlo_as_text --xla_backend_optimization_level=0"
        in_process([__file__, name, optimizer], XLA_FLAGS=flags)
        return planned_bytes(pathlib.Path(directory))


def measure_buffers(rounds: int, seconds: float) -> dict[str, Any]:
    """Bytes of both optimizers' updates and their ratio, which are the same every time."""
    del rounds, seconds
    result = {}
    for name in networks():
        adam, natural = (update_bytes(name, optimizer) for optimizer in ("adam", "natural"))
        ratio = {"natural_over_adam": round(natural / adam, 3), "goal": GOAL}
        result[name] = {"megabytes": {"adam": adam / 1e6, "natural": natural / 1e6}, **ratio}
    return result


if __name__ == "__main__":
    import ngrl  # noqa: F401  (before tensorflow)

    update(*sys.argv[1:])
