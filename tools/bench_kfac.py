"""The part of `bench.py` that times K-FAC: an update against Adam's, a solve of many rows against 15 CG iterations."""

import time
from collections.abc import Callable
from typing import Any

from bench_rounds import interleave, normal, q_learning_spec, quartiles, ratios, timed_updates

WIDTH, HIDDEN, NUM_ACTIONS, BATCH, UPDATES_PER_CALL = 8, (256, 128), 4, 128, 64
ROWS = 16_384


def make_agent(with_kfac: bool) -> Any:
    """Q-learning without target network; new inverses every ten steps."""
    import tensorflow as tf

    from ngrl import agents, networks, optimizers, solvers

    time_step_spec, action_spec = q_learning_spec([WIDTH], NUM_ACTIONS)
    network = networks.QNetwork(time_step_spec.observation, NUM_ACTIONS, HIDDEN)
    optimizer: Any = tf.keras.optimizers.Adam(1e-3)
    if with_kfac:
        optimizer = optimizers.NaturalGradient(0.1, solvers.Kfac(period=10), 1.0, max_kl=0.01)
    return agents.DqnAgent(time_step_spec, action_spec, network, optimizer)


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
    """Both comparisons."""
    del seconds
    from ngrl import solvers

    updates = {
        name: timed_updates(make_agent(name == "kfac"), [WIDTH], NUM_ACTIONS, BATCH, UPDATES_PER_CALL, compiled=True)
        for name in ("kfac", "adam")
    }
    times = interleave(updates, 3 * rounds)
    solves = {
        "kfac": solve_time(solvers.Kfac(period=10)),
        "cg": solve_time(solvers.ConjugateGradient(max_iterations=15, rtol=0.0)),
    }
    solved = interleave(solves, rounds)
    return {
        "8-256-128-4, B = 128": {
            "milliseconds": {kind: quartiles(values) for kind, values in times.items()},
            "kfac_over_adam": {**ratios(times["kfac"], times["adam"]), "goal": "<= 1.5"},
        },
        "8-256-128-4, 16,384 rows": {
            "milliseconds": {kind: quartiles(values) for kind, values in solved.items()},
            "cg_over_kfac": {**ratios(solved["cg"], solved["kfac"]), "goal": ">= 5"},
        },
    }
