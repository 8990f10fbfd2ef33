"""Speed and memory of ngrl, as ratios; prints JSON.

    .venv/bin/python tools/bench.py  # everything, with one thread and with TensorFlow's default
    .venv/bin/python tools/bench.py --only loops --rounds 9

What is compared runs in turn in one process, A B A B ..., and the figures are medians over the rounds of each round's
ratio, with their quartiles, because machines are noisy. Don't run it beside anything else.

    loops    env-steps/s of NGDQN's whole loop against ngrl's loop with Adam and against stock TF-Agents
             (DqnAgent, Adam, DynamicStepDriver, TFUniformReplayBuffer, common.function), one update per step, batch 128
    compiled env-steps/s of TRPO's, PPO's and NGDQN's whole loops with compiled environments against gymnasium's
    cores    env-steps/s of whole loops on two cores against one: the critic beside the next batch, robots in processes
    seeds    processor time of a run of PPO with compiled environments, one of eight in a process against alone
    updates  one natural-gradient update inside the many-update call against one Adam update there
    pixels   one natural-gradient update of convolutional networks against the quickest of Adam's
    gru      one natural-gradient update of GRU(64) over 16 steps against the quickest of Adam's
    exact    such an update with the exact dual solve, by Cholesky, against the one with 20 CG iterations
    kfac     an update with K-FAC against one of Adam's, and its solve of 16,384 rows against 15 CG iterations
    ray      env-steps/s of sixteen simulators of 20 ms a step in Ray actors against one process
    product  one matrix-free Fisher-vector product against one gradient, both under XLA
    buffers  bytes that XLA plans for a natural-gradient update of such networks, against one of Adam's
    memory   peak of a matrix-free step on a network of 5 million parameters, in parameter-sized vectors
"""

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import bench_rounds
from bench_compiled import measure_compiled, measure_seeds  # noqa: F401  (found by their names)
from bench_cores import measure_cores  # noqa: F401  (found by its name)
from bench_kfac import measure_kfac  # noqa: F401  (found by its name)
from bench_memory import measure_buffers  # noqa: F401  (found by its name)
from bench_pixels import measure_pixels  # noqa: F401  (found by its name)
from bench_ray import measure_ray  # noqa: F401  (found by its name)
from bench_recurrent import measure_gru  # noqa: F401  (found by its name)
from bench_rounds import interleave, normal, q_learning_spec, quartiles, ratios, timed_updates

from ngrl import loops

BATCH = 128
ENVIRONMENTS = {
    "CartPole-v1": {"hidden": (64,), "goal_stock": 7.0, "goal_adam": 2.5},
    "LunarLander-v3": {"hidden": (256, 128), "goal_stock": 3.5, "goal_adam": 1.7},
}
NETWORKS = {"4-64-2": (4, (64,), 2, 3.0), "8-256-128-4": (8, (256, 128), 4, 2.0)}
PARTS = (
    "loops",
    "compiled",
    "cores",
    "seeds",
    "updates",
    "pixels",
    "gru",
    "exact",
    "kfac",
    "ray",
    "product",
    "buffers",
    "memory",
)
UPDATES_PER_CALL = 64


def make_agent(spec: tuple[Any, Any], hidden: tuple[int, ...], natural: bool, exact: bool = False) -> Any:
    """NGDQN as in gin/ngdqn_*.gin, or with an exact solve, or the same agent with Adam; never a target network."""
    import tensorflow as tf

    from ngrl import agents, networks, optimizers, solvers

    time_step_spec, action_spec = spec
    network = networks.QNetwork(time_step_spec.observation, int(action_spec.maximum) + 1, hidden)
    if natural:
        solver = solvers.Cholesky() if exact else solvers.ConjugateGradient(max_iterations=20)
        optimizer = optimizers.NaturalGradient(0.1, solvers.Dual(solver=solver), 1.0, max_kl=0.01)
    else:
        optimizer = tf.keras.optimizers.Adam(1e-3)
    return agents.DqnAgent(time_step_spec, action_spec, network, optimizer)


def make_loop(env_id: str, hidden: tuple[int, ...], natural: bool) -> Any:
    """The loop as `gin/base/dqn.gin` sets it: eight environments, eight updates a call."""
    from tf_agents.specs import tensor_spec

    from ngrl import environments

    environment = environments.load(env_id, num_envs=8)
    spec = tuple(tensor_spec.from_spec(part()) for part in (environment.time_step_spec, environment.action_spec))
    agent = make_agent(spec, hidden, natural)
    epsilon = loops.LinearEpsilon(0.1, 0.1)
    return loops.OffPolicyLoop(agent, environment, batch_size=BATCH, epsilon=epsilon, updates_per_call=8)


def loop_rate(loop: Any, seconds: float) -> Callable[[], float]:
    """Env-steps/s of a segment of an ngrl loop that has been warmed up."""
    while loop.train_steps < 200:
        loop.step()

    def run() -> float:
        start, steps = time.perf_counter(), loop.statistics.env_steps
        while time.perf_counter() - start < seconds:
            loop.step()
        return (loop.statistics.env_steps - steps) / (time.perf_counter() - start)

    return run


def stock_rate(env_id: str, hidden: tuple[int, ...], seconds: float) -> Callable[[], float]:
    """Env-steps/s of a segment of the loop that TF-Agents' own tutorials write."""
    import tensorflow as tf
    from tf_agents.agents.dqn import dqn_agent
    from tf_agents.drivers import dynamic_step_driver
    from tf_agents.environments import tf_py_environment
    from tf_agents.replay_buffers import tf_uniform_replay_buffer
    from tf_agents.utils import common

    from ngrl import environments, networks

    environment = tf_py_environment.TFPyEnvironment(environments.load(env_id, num_envs=1))
    time_step_spec, action_spec = environment.time_step_spec(), environment.action_spec()
    network = networks.QNetwork(time_step_spec.observation, int(action_spec.maximum) + 1, hidden)
    agent = dqn_agent.DqnAgent(time_step_spec, action_spec, network, tf.keras.optimizers.Adam(1e-3))
    agent.initialize()
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(agent.collect_data_spec, 1, max_length=50_000)
    driver = dynamic_step_driver.DynamicStepDriver(environment, agent.collect_policy, [buffer.add_batch], num_steps=1)
    drive, train = common.function(driver.run), common.function(agent.train)
    for _ in range(BATCH * 2):
        drive()
    samples = iter(buffer.as_dataset(sample_batch_size=BATCH, num_steps=2).prefetch(3))
    for _ in range(50):
        drive()
        train(next(samples)[0])

    def run() -> float:
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            drive()
            train(next(samples)[0])
            steps += 1
        return steps / (time.perf_counter() - start)

    return run


def measure_loops(rounds: int, seconds: float) -> dict[str, Any]:
    """Whole training loops."""
    result = {}
    for env_id, setting in ENVIRONMENTS.items():
        runs = {
            "ngdqn": loop_rate(make_loop(env_id, setting["hidden"], natural=True), seconds),
            "adam": loop_rate(make_loop(env_id, setting["hidden"], natural=False), seconds),
            "stock": stock_rate(env_id, setting["hidden"], seconds),
        }
        rates = interleave(runs, rounds)
        result[env_id] = {
            "env_steps_per_second": {name: quartiles(values) for name, values in rates.items()},
            "ngdqn_over_stock": {**ratios(rates["ngdqn"], rates["stock"]), "goal": f">= {setting['goal_stock']}"},
            "cost_ngdqn_over_adam": {**ratios(rates["adam"], rates["ngdqn"]), "goal": f"<= {setting['goal_adam']}"},
        }
    return result


def update_time(
    width: int, hidden: tuple[int, ...], num_actions: int, natural: bool, exact: bool = False
) -> Callable[[], float]:
    """Milliseconds of one update inside the compiled call of UPDATES_PER_CALL updates."""
    agent = make_agent(q_learning_spec([width], num_actions), hidden, natural, exact)
    return timed_updates(agent, [width], num_actions, BATCH, UPDATES_PER_CALL, compiled=True)


def measure_updates(rounds: int, seconds: float) -> dict[str, Any]:
    """Updates inside the many-update call."""
    del seconds
    result = {}
    for name, (width, hidden, num_actions, goal) in NETWORKS.items():
        runs = {
            "natural": update_time(width, hidden, num_actions, natural=True),
            "adam": update_time(width, hidden, num_actions, natural=False),
        }
        times = interleave(runs, 3 * rounds)
        result[name] = {
            "milliseconds": {kind: quartiles(values) for kind, values in times.items()},
            "natural_over_adam": {**ratios(times["natural"], times["adam"]), "goal": f"<= {goal}"},
        }
    return result


def measure_exact(rounds: int, seconds: float) -> dict[str, Any]:
    """Exact solves inside the many-update call."""
    del seconds
    result = {}
    for name, (width, hidden, num_actions, _) in NETWORKS.items():
        runs = {
            "cholesky": update_time(width, hidden, num_actions, natural=True, exact=True),
            "cg": update_time(width, hidden, num_actions, natural=True),
        }
        times = interleave(runs, 3 * rounds)
        result[name] = {
            "milliseconds": {kind: quartiles(values) for kind, values in times.items()},
            "cholesky_over_cg": {**ratios(times["cholesky"], times["cg"]), "goal": "<= 3"},
        }
    return result


def product_times(width: int, hidden: tuple[int, ...], outputs: int) -> dict[str, Callable[[], float]]:
    """Milliseconds of a product and of a gradient, each with its own forward pass, 100 in one compiled call."""
    import tensorflow as tf

    from ngrl.curvature import GaussNewton, flatten, num_parameters

    layers = [tf.keras.layers.Dense(size, "tanh") for size in hidden] + [tf.keras.layers.Dense(outputs)]
    network = tf.keras.Sequential(layers)
    network.build((None, width))
    variables = network.trainable_variables
    inputs, targets, start_vector = normal([BATCH, width], [BATCH, outputs], [num_parameters(variables)])

    # Each turn's input depends on the turn before, so that the compiler can't move work out of the loop.
    def moved(vector: Any) -> Any:
        return inputs + 1e-20 * vector[0]

    def product(vector: Any) -> Any:
        # A plain function, so that nothing is recognised and forward- and reverse-mode differentiation do the work.
        result = GaussNewton(lambda x: network(x), variables, moved(vector)).matvec(vector)
        return result / tf.norm(result)

    def gradient(vector: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(network(moved(vector)) - targets))
        return flatten(tape.gradient(loss, variables))

    def timed(step: Callable[[Any], Any]) -> Callable[[], float]:
        @tf.function(jit_compile=True)
        def repeat() -> Any:
            return tf.while_loop(lambda i, v: i < 100, lambda i, v: (i + 1, step(v)), (0, start_vector))[1]

        repeat().numpy()

        def run() -> float:
            start = time.perf_counter()
            repeat().numpy()
            return (time.perf_counter() - start) * 10

        return run

    return {"product": timed(product), "gradient": timed(gradient)}


def measure_product(rounds: int, seconds: float) -> dict[str, Any]:
    """The matrix-free product."""
    del seconds
    result = {}
    for name, (width, hidden, outputs, _) in NETWORKS.items():
        times = interleave(product_times(width, hidden, outputs), 3 * rounds)
        result[name] = {
            "milliseconds": {kind: quartiles(values) for kind, values in times.items()},
            "product_over_gradient": {**ratios(times["product"], times["gradient"]), "goal": "<= 2.5"},
        }
    return result


def peak_memory(width: int, compiled: bool) -> dict[str, int]:
    """Peak resident bytes of this process after natural-gradient steps with ten matrix-free products each."""
    import tensorflow as tf

    from ngrl import optimizers, solvers
    from ngrl.curvature import GaussNewton, num_parameters

    layers = [tf.keras.layers.Dense(width, "tanh") for _ in range(3)] + [tf.keras.layers.Dense(4)]
    network = tf.keras.Sequential(layers)
    network.build((None, width))
    variables = network.trainable_variables
    solver = solvers.ConjugateGradient(rtol=0.0, max_iterations=10)
    optimizer = optimizers.NaturalGradient(1e-3, solver, damping=1.0)
    optimizer.build(variables)
    (inputs,) = normal([8, width])

    def step() -> Any:
        # A plain function, so that nothing is recognised and forward- and reverse-mode differentiation do the work.
        operator = GaussNewton(lambda x: network(x), variables, inputs)
        return optimizer.apply_output_gradient(operator.outputs / 8, operator).step_norm

    call = tf.function(step, jit_compile=compiled)
    for _ in range(3):
        call().numpy()
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "parameters": num_parameters(variables)}


def measure_memory(rounds: int, seconds: float) -> dict[str, Any]:
    """Vectors of the parameters' size that a whole process holds at its peak, the parameters among them.

    TensorFlow and its compiler take memory of their own, so it is the difference of two processes, with a large and a
    small network, over the difference of their parameters.
    """
    del seconds
    result: dict[str, Any] = {}
    for kind in ("graph", "xla"):
        vectors = []
        for _ in range(max(2, rounds // 2)):
            small, large = (in_process("peak", "--width", str(width), "--kind", kind) for width in (300, 1290))
            grown = (large["bytes"] - small["bytes"]) / 4
            vectors.append(grown / (large["parameters"] - small["parameters"]))
        result[kind] = {"vectors": quartiles(vectors), "parameters": large["parameters"], "goal": "< 10 vectors"}
    return result


def measure(part: str, threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    """One part in this process; `threads` 0 is TensorFlow's default."""
    import ngrl  # noqa: F401  (before tensorflow)

    import tensorflow as tf  # isort: skip

    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    return globals()[f"measure_{part}"](rounds, seconds)


def in_process(worker: str, *arguments: str) -> dict[str, Any]:
    """What a process of its own measures; TensorFlow's thread counts are fixed at its start."""
    printed = bench_rounds.in_process([__file__, "--worker", worker, *arguments])
    return json.loads(printed.splitlines()[-1])


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part; may be repeated")
    parser.add_argument("--rounds", type=int, default=7, help="rounds A B A B ... (default: 7, at least 2)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a loop's segment (default: 2)")
    for hidden, kind in (("--worker", str), ("--threads", int), ("--width", int), ("--kind", str)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}")
    if options.worker == "peak":
        print(json.dumps(peak_memory(options.width, options.kind == "xla")))
        return
    if options.worker:
        print(json.dumps(measure(options.worker, options.threads, options.rounds, options.seconds)))
        return
    report: dict[str, Any] = {"machine": {"cores": os.cpu_count(), "processor": platform.machine()}}
    for part in options.only or PARTS:
        for threads, label in ((1, "1 thread"), (0, "default threads")):
            print(f"bench: {part}, {label}", file=sys.stderr)
            arguments = ["--threads", str(threads), "--rounds", str(options.rounds), "--seconds", str(options.seconds)]
            report.setdefault(part, {})[label] = in_process(part, *arguments)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
