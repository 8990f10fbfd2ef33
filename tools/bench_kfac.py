"""The part of `bench.py` that times K-FAC: updates against Adam's, a solve of many rows against 15 CG iterations."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bench_pixels import NETWORKS, VARIANTS, image_agent
from bench_pixels import NUM_ACTIONS as IMAGE_ACTIONS
from bench_rounds import interleave, normal, q_learning_spec, quartiles, ratios, timed_updates

WIDTH, HIDDEN, NUM_ACTIONS, BATCH, UPDATES_PER_CALL = 8, (256, 128), 4, 128, 64
ROWS = 16_384
WIDE = 1290  # of three hidden layers and the inputs: 5 million parameters
#: Inputs, hidden layers, batch, updates a call, goal.
MLPS: dict[str, tuple[int, tuple[int, ...], int, int, float]] = {
    "8-256-128-4, B = 128": (WIDTH, HIDDEN, BATCH, UPDATES_PER_CALL, 1.5),
    "5 million parameters, B = 128": (WIDE, (WIDE, WIDE, WIDE), BATCH, 10, 1.5),
}
NATURE = {**NETWORKS["nature, B = 32"], "updates": 10, "goal": 2}


def make_optimizer(with_kfac: bool) -> Any:
    """Adam, or K-FAC that takes a batch into its factors, and inverts them anew, every ten steps."""
    import tensorflow as tf

    from ngrl import optimizers, solvers

    if not with_kfac:
        return tf.keras.optimizers.Adam(1e-3)
    return optimizers.NaturalGradient(0.1, solvers.Kfac(period=10, factor_period=10), 1.0, max_kl=0.01)


def make_agent(width: int, hidden: tuple[int, ...], with_kfac: bool) -> Any:
    """Q-learning without target network."""
    from ngrl import agents, networks

    time_step_spec, action_spec = q_learning_spec([width], NUM_ACTIONS)
    network = networks.QNetwork(time_step_spec.observation, NUM_ACTIONS, hidden)
    return agents.DqnAgent(time_step_spec, action_spec, network, make_optimizer(with_kfac))


def compare_mlp(name: str, rounds: int) -> dict[str, Any]:
    """An update of one of `MLPS` with K-FAC against one with Adam."""
    width, hidden, batch, updates, goal = MLPS[name]
    runs = {
        kind: timed_updates(
            make_agent(width, hidden, kind == "kfac"), [width], NUM_ACTIONS, batch, updates, True, int(width == WIDE)
        )
        for kind in ("kfac", "adam")
    }
    times = interleave(runs, 3 * rounds if width != WIDE else rounds)
    return compared(times, times["kfac"], times["adam"], goal)


def compare_nature(rounds: int) -> dict[str, Any]:
    """The same of the convolutional network, each in its quickest way."""
    shape, batch, updates = NATURE["shape"], NATURE["batch"], NATURE["updates"]
    runs = {}
    for kind in ("kfac", "adam"):
        for way in VARIANTS:
            agent = image_agent(NATURE, way[0], make_optimizer(kind == "kfac"))
            runs[(kind, *way)] = timed_updates(agent, shape, IMAGE_ACTIONS, batch, updates, way[1] == "xla", calls=1)
    times = interleave(runs, rounds)
    best = {kind: min((t for key, t in times.items() if key[0] == kind), key=median) for kind in ("kfac", "adam")}
    return compared({" ".join(key): t for key, t in times.items()}, best["kfac"], best["adam"], NATURE["goal"])


def compared(times: dict[str, list[float]], kfac: list[float], adam: list[float], goal: float) -> dict[str, Any]:
    """A row of the report."""
    return {
        "milliseconds": {name: quartiles(values) for name, values in times.items()},
        "kfac_over_adam": {**ratios(kfac, adam), "goal": f"<= {goal}"},
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
