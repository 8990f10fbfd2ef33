"""The part of `bench.py` that times K-FAC: updates against Adam's, a solve of many rows against 15 CG iterations."""

import time
from collections.abc import Callable
from typing import Any

from bench_pixels import NETWORKS, VARIANTS, image_agent
from bench_pixels import NUM_ACTIONS as IMAGE_ACTIONS
from bench_rounds import interleave, normal, q_learning_spec, quartiles, quickest, ratios, timed_updates

WIDTH, HIDDEN, NUM_ACTIONS, BATCH, UPDATES_PER_CALL = 8, (256, 128), 4, 128, 64
ROWS = 16_384
KINDS = ("kfac", "low", "adam")
RANK, LARGE_RANK = 8, 64  # of "low": for the small network, and for the others
CLOCK = time.process_time
WIDE = 1290  # of three hidden layers and the inputs: 5 million parameters
#: Inputs, hidden layers, batch, updates a call, goal.
MLPS: dict[str, tuple[int, tuple[int, ...], int, int, float]] = {
    "8-256-128-4, B = 128": (WIDTH, HIDDEN, BATCH, UPDATES_PER_CALL, 1.5),
    "5 million parameters, B = 128": (WIDE, (WIDE, WIDE, WIDE), BATCH, 10, 1.5),
}
NATURE = {**NETWORKS["nature, B = 32"], "updates": 10, "goal": 2}


def make_optimizer(kind: str, rank: int) -> Any:
    """Adam, or K-FAC that takes a batch into its factors, and inverts them anew, every ten steps.

    "kfac" has whole factors, "low" has them of this rank, and the solver's own curvature for the trust region.
    """
    import tensorflow as tf

    from ngrl import optimizers, solvers

    if kind == "adam":
        return tf.keras.optimizers.Adam(1e-3)
    cheaper = {"rank": rank, "quadratic_model": "factored"} if kind == "low" else {}
    return optimizers.NaturalGradient(0.1, solvers.Kfac(period=10, factor_period=10, **cheaper), 1.0, max_kl=0.01)


def make_agent(width: int, hidden: tuple[int, ...], kind: str, rank: int) -> Any:
    """Q-learning without target network."""
    from ngrl import agents, networks

    time_step_spec, action_spec = q_learning_spec([width], NUM_ACTIONS)
    network = networks.QNetwork(time_step_spec.observation, NUM_ACTIONS, hidden)
    return agents.DqnAgent(time_step_spec, action_spec, network, make_optimizer(kind, rank))


def compare_mlp(name: str, rounds: int) -> dict[str, Any]:
    """An update of one of `MLPS` with K-FAC against one with Adam."""
    width, hidden, batch, updates, goal = MLPS[name]
    rank = LARGE_RANK if width == WIDE else RANK
    runs = {
        kind: timed_updates(
            make_agent(width, hidden, kind, rank), [width], NUM_ACTIONS, batch, updates, True, int(width == WIDE), CLOCK
        )
        for kind in KINDS
    }
    times = interleave(runs, 3 * rounds if width != WIDE else rounds)
    return compared(times, times, goal)


def compare_nature(rounds: int) -> dict[str, Any]:
    """The same of the convolutional network, each in its quickest way."""
    shape, batch, updates = NATURE["shape"], NATURE["batch"], NATURE["updates"]
    runs = {}
    for kind in KINDS:
        for way in VARIANTS:
            agent = image_agent(NATURE, way[0], make_optimizer(kind, LARGE_RANK))
            compiled = way[1] == "xla"
            runs[(kind, *way)] = timed_updates(agent, shape, IMAGE_ACTIONS, batch, updates, compiled, 1, CLOCK)
    times = interleave(runs, rounds)
    best = {kind: times[quickest(times, kind)] for kind in KINDS}
    return compared({" ".join(key): t for key, t in times.items()}, best, NATURE["goal"])


def compared(times: dict[str, list[float]], best: dict[str, list[float]], goal: float) -> dict[str, Any]:
    """A row of the report."""
    return {
        "milliseconds": {name: quartiles(values) for name, values in times.items()},
        **{f"{kind}_over_adam": {**ratios(best[kind], best["adam"]), "goal": f"<= {goal}"} for kind in KINDS[:-1]},
    }


def solve_time(solver: Any) -> Callable[[], float]:
    """Milliseconds from a policy's states, one row each, to the natural gradient, under XLA."""
    import tensorflow as tf

    from ngrl import solvers
    from ngrl.curvature import DenseStack, GaussNewton, SquaredError

    layers, width = [], WIDTH
    for units, activation in ((HIDDEN[0], "tanh"), (HIDDEN[1], "tanh"), (NUM_ACTIONS, None)):
        layers.append(tf.keras.layers.Dense(units, activation))
        layers[-1].build([None, width])
        width = units
    stack = DenseStack(layers)
    states, pull = normal([ROWS, WIDTH], [ROWS, NUM_ACTIONS])
    chosen = tf.zeros([ROWS], tf.int32)
    state = {name: tf.Variable(value) for name, value in solver.slots(stack.variables).items()}

    @tf.function(jit_compile=True)
    def solve() -> Any:
        operator = GaussNewton(stack, stack.variables, states, SquaredError(chosen=chosen))
        before = {name: slot.read_value() for name, slot in state.items()}
        answer = solver.answer(operator, solvers.OutputGradient(pull), 0.1, before)
        for name, slot in state.items():
            slot.assign(answer.state[name])
        return tf.reduce_sum(answer.solution.value)

    solve().numpy()

    def run() -> float:
        start = time.process_time()
        for _ in range(10):
            solve().numpy()
        return (time.process_time() - start) * 1e2

    return run


def measure_kfac(rounds: int, seconds: float) -> dict[str, Any]:
    """All comparisons."""
    del seconds
    from ngrl import solvers

    solves = {
        "kfac": solve_time(solvers.Kfac(period=10)),
        "cg": solve_time(solvers.ConjugateGradient(max_iterations=15, rtol=0.0)),
    }
    solved = interleave(solves, rounds)
    return {
        **{name: compare_mlp(name, rounds) for name in MLPS},
        "nature, B = 32": compare_nature(rounds),
        "8-256-128-4, 16,384 rows": {
            "milliseconds": {kind: quartiles(values) for kind, values in solved.items()},
            "cg_over_kfac": {**ratios(solved["cg"], solved["kfac"]), "goal": ">= 5"},
        },
    }
