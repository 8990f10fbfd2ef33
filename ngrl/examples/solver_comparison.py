"""How the solvers fare on the systems that NGDQN meets: time, and distance from the exact natural gradient.

At given points of a training run the system `(F + λI) x = g` of one minibatch is solved by every solver for every λ.
The reference is computed in float64 from the eigenvalues of the Gram matrix; it also tells λ_max, the largest
eigenvalue of F, beside which λ is small or large (Knight & Lerner, version of October 2018, report λ/λ_max).
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ngrl import environments, figures, seeding, solvers
from ngrl.agents import DqnAgent
from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable
from ngrl.curvature import GaussNewton, unflatten
from ngrl.loops.off_policy import OffPolicyLoop, as_experience
from ngrl.messages import counted
from ngrl.training.context import RunContext
from ngrl.training.experiment import RunResult
from ngrl.training.recording import recording

_HEADER = (
    "env_steps",
    "damping",
    "lambda_max",
    "damping_over_lambda_max",
    "solver",
    "milliseconds",
    "iterations",
    "residual",
    "angle_degrees",
    "angle_of_gradient_degrees",
    "predicted_reduction",
    "achieved_reduction",
    "reduction_of_exact",
)
#: δ of the steps whose reductions are compared, as in `gin/base/ngdqn.gin`.
_MAX_KL = 0.01


@dataclasses.dataclass(frozen=True)
class System:
    """`F x = g` of one minibatch.

    Attributes:
      operator: F, with rows A: F = AᵀA.
      output_gradient: ∂L/∂y [B, K], so that g = Jᵀ output_gradient.
    """

    operator: GaussNewton
    output_gradient: tf.Tensor


class Exact:
    """Exact solutions of `(F + λI) x = g`, in float64, for a system with fewer rows than parameters or not.

    With rows A [n, P], F = AᵀA and g = Aᵀ c: x = Aᵀ (AAᵀ + λI)⁻¹ c.

    Args:
      system: The system.
    """

    def __init__(self, system: System):
        operator = system.operator
        coefficients = operator.row_coefficients(system.output_gradient)
        size = coefficients.shape[0]
        self._rows = np.stack([operator.row_rmatvec(unit).numpy() for unit in tf.eye(size)]).astype(np.float64)
        self._eigenvalues, self._vectors = np.linalg.eigh(self._rows @ self._rows.T)
        self._coefficients = self._vectors.T @ coefficients.numpy().astype(np.float64)

    @property
    def lambda_max(self) -> float:
        """The largest eigenvalue of F."""
        return float(self._eigenvalues[-1])

    @property
    def gradient(self) -> np.ndarray:
        """The gradient g [P]."""
        return self._rows.T @ (self._vectors @ self._coefficients)

    def solve(self, damping: float) -> np.ndarray:
        """The solution x [P], for λ > 0."""
        return self._rows.T @ (self._vectors @ (self._coefficients / (self._eigenvalues + damping)))


def angle(first: np.ndarray, second: np.ndarray) -> float:
    """The angle between two vectors [P] in degrees; NaN if one is zero."""
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    if lengths == 0:
        return math.nan
    # Of the unit vectors' difference: the cosine of a small angle rounds to 1.
    difference = np.linalg.norm(first / np.linalg.norm(first) - second / np.linalg.norm(second))
    return math.degrees(2 * math.asin(min(1.0, float(difference) / 2)))


def reductions(system: System, direction: np.ndarray, max_kl: float = _MAX_KL) -> tuple[float, float]:
    """By how much the loss falls along a direction x: the quadratic model's prediction, and what is measured.

    The step is −s·x with s = min(1, √(2δ / xᵀFx)). The loss is L + u·Δy + ½ Σ_i w_i Δy_iᵀ M_i Δy_i for a change Δy of
    the outputs, the TD loss with its targets held; the prediction has −s·J x for Δy. The variables are left as they
    were.
    """
    operator = system.operator
    variables = operator.parameters["variables"]
    x = tf.constant(direction, operator.dtype)

    def weighed(change: tf.Tensor) -> tf.Tensor:
        product = operator.output_metric.matvec(operator.outputs, change)
        return tf.reshape(operator.example_weights, [-1, 1]) * product

    def fall(change: tf.Tensor) -> float:
        slope = tf.reduce_sum(change * system.output_gradient)
        return -float(slope + 0.5 * tf.reduce_sum(change * weighed(change)))

    linear = operator.jvp(x)
    curvature = float(tf.reduce_sum(linear * weighed(linear)))
    scale = min(1.0, math.sqrt(2 * max_kl / curvature)) if curvature > 0 else 1.0
    before = [variable.numpy() for variable in variables]
    for variable, part in zip(variables, unflatten(x, variables), strict=True):
        variable.assign_sub(scale * part)
    moved = operator.parameters["forward"](operator.parameters["inputs"]) - operator.outputs
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return fall(-scale * linear), fall(moved)


class TimedSolver:
    """Solves a system as the optimizer would, from the network to the solution, in one compiled call.

    Args:
      system: The system.
      solver: The solver.
      jit_compile: Compile with XLA, as the loops do.
    """

    def __init__(self, system: System, solver: solvers.Solver, jit_compile: bool = True):
        self._system = system
        self._solver = solver
        self._compiled = tf.function(self._solve, jit_compile=jit_compile)

    def _solve(self, damping: tf.Tensor) -> tuple[tf.Tensor, Any]:
        system, solver = self._system, self._solver
        operator = GaussNewton(**system.operator.parameters)
        solution = solver.answer(operator, solvers.OutputGradient(system.output_gradient), damping).solution
        return solution.value, solution.stats

    def __call__(self, damping: float, repeats: int) -> tuple[np.ndarray, Any, float]:
        """Solve with λ = `damping`.

        Returns:
          x [P], the solver's stats, and the median of the seconds of `repeats` calls; one that compiles doesn't count.
        """
        argument = tf.constant(damping, tf.float32)
        value, stats = self._compiled(argument)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            value, stats = self._compiled(argument)
            value = value.numpy()
            seconds.append(time.perf_counter() - start)
        return np.asarray(value), stats, float(np.median(seconds))


@configurable
def solver_comparison(
    context: RunContext,
    /,
    environment: environments.Environment,
    agent: Callable[..., DqnAgent],
    loop: Callable[..., OffPolicyLoop],
    methods: Mapping[str, solvers.Solver],
    dampings: Sequence[float] = (0.01, 0.1, 1.0, 6.0),
    at_env_steps: Sequence[int] = (1_200, 5_000, 20_000),
    batch_size: int = 128,
    repeats: int = 20,
    jit_compile: bool = True,
    seed: int = 0,
) -> RunResult:
    """Compare solvers on systems that occur while NGDQN learns.

    Leaves `solvers.csv` and `solvers.png`, and the picture in TensorBoard.

    Args:
      context: The run's directory, and where to report.
      environment: Which environment is learned, and how many of it are stepped together.
      agent: Builds the agent, as in `ngrl.training.run`; also with another network or optimizer.
      loop: Builds the loop that trains it.
      methods: The solvers by name.
      dampings: λ, positive.
      at_env_steps: After how many environment steps systems are taken, increasing.
      batch_size: Transitions of a system.
      repeats: Solves that are timed, for each.
      jit_compile: Compile the solves with XLA, as the loops do.
      seed: Seed of everything random.

    Returns:
      `systems`, of each its `env_steps` and `lambda_max`; `methods`, name to the medians of `milliseconds` and
      `reduction_of_exact` and the largest of `angle_degrees`; and `summary`.

    Raises:
      ValueError: There is no solver, a number isn't positive, or `at_env_steps` don't increase.
      ImportError: Matplotlib is not installed.
      RunDirectoryError: The directory can't be used.
    """
    if not methods or not dampings or not at_env_steps:
        raise ValueError("methods, dampings and at_env_steps must not be empty")
    check_count("batch_size", batch_size)
    check_count("repeats", repeats)
    for damping in dampings:
        check_number("dampings", damping, "(0, inf)")
    for steps in at_env_steps:
        check_count("at_env_steps", steps)
    if list(at_env_steps) != sorted(set(at_env_steps)):
        raise ValueError(f"at_env_steps must increase, got {at_env_steps}")
    figures.check_matplotlib()
    tf.keras.utils.set_random_seed(seeding.integer(seed, seeding.Stream.LIBRARIES))
    env_id = environment.env_id
    settings = {"env_id": env_id, "dampings": tuple(dampings), "at_env_steps": tuple(at_env_steps), "seed": seed}
    with contextlib.closing(environment.load(seed)) as played:
        specs = [tensor_spec.from_spec(spec()) for spec in (played.time_step_spec, played.action_spec)]
        learner = agent(*specs, seed=seed)
        training = loop(learner, played, seed=seed)
        with recording(context, settings) as record:
            rows: list[dict[str, Any]] = []
            for env_steps in at_env_steps:
                context.progress.note(f"training until {counted(env_steps, 'step')}")
                while training.statistics.env_steps < env_steps:
                    training.step()
                    training.check_streak()
                system = _system(learner, training, batch_size)
                found = compare(system, methods, dampings, repeats, jit_compile)
                rows += [{"env_steps": training.statistics.env_steps, **row} for row in found]
            record.table("solvers", _HEADER, ([row[name] for name in _HEADER] for row in rows))
            record.pictures({"solvers": draw(rows, env_id)})
            final = {
                "systems": [
                    dict(pair)
                    for pair in dict.fromkeys(
                        (("env_steps", row["env_steps"]), ("lambda_max", row["lambda_max"])) for row in rows
                    )
                ],
                "methods": {name: _outcome([row for row in rows if row["solver"] == name]) for name in methods},
            }
            return record.finish(final, _summary(env_id, final, record.path))


def _system(agent: DqnAgent, training: OffPolicyLoop, batch_size: int) -> System:
    """The system of the agent's next step, on a minibatch of what it has collected."""
    batch = tf.nest.map_structure(lambda leaf: tf.convert_to_tensor(leaf[0]), training.sample(1, batch_size))
    return System(*agent.system(as_experience(batch)))


def compare(
    system: System,
    methods: Mapping[str, solvers.Solver],
    dampings: Sequence[float],
    repeats: int,
    jit_compile: bool = True,
) -> Iterator[dict[str, Any]]:
    """A row of `solvers.csv`, without `env_steps`, for every solver and every λ."""
    exact = Exact(system)
    timed = {name: TimedSolver(system, solver, jit_compile) for name, solver in methods.items()}
    for damping in dampings:
        reference = exact.solve(damping)
        _, of_exact = reductions(system, reference)
        for name, solve in timed.items():
            value, stats, seconds = solve(damping, repeats)
            predicted, achieved = reductions(system, value)
            yield {
                "damping": damping,
                "lambda_max": exact.lambda_max,
                "damping_over_lambda_max": damping / exact.lambda_max,
                "solver": name,
                "milliseconds": 1e3 * seconds,
                "iterations": int(stats.iterations),
                "residual": float(stats.residual),
                "angle_degrees": angle(value.astype(np.float64), reference),
                "angle_of_gradient_degrees": angle(exact.gradient, reference),
                "predicted_reduction": predicted,
                "achieved_reduction": achieved,
                "reduction_of_exact": achieved / of_exact if of_exact else math.nan,
            }


def _outcome(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {
        "milliseconds": float(np.median([row["milliseconds"] for row in rows])),
        "angle_degrees": float(np.max([row["angle_degrees"] for row in rows])),
        "reduction_of_exact": float(np.median([row["reduction_of_exact"] for row in rows])),
    }


def _summary(env_id: str, final: Mapping[str, Any], path: Path) -> list[str]:
    width = max(map(len, final["methods"]))
    largest = ", ".join(f"{system['lambda_max']:.3g}" for system in final["systems"])
    return [
        f"solvers on {env_id}: λ_max {largest}",
        *(
            f"{name:<{width}}  {outcome['milliseconds']:8.3f} ms, at most {outcome['angle_degrees']:.2g}° from exact, "
            f"{outcome['reduction_of_exact']:.0%} of its reduction"
            for name, outcome in final["methods"].items()
        ),
        f"table        {path / 'solvers.csv'}",
        f"picture      {path / 'solvers.png'}",
    ]


def draw(rows: Sequence[Mapping[str, Any]], env_id: str) -> bytes:
    """Time, angle against λ/λ_max, and λ_max over training, as the content of a PNG file."""
    figure = figures.new_figure(
        15,
        3.8,
        f"NGDQN on {env_id}. Left: medians over all systems and λ, from the network to the solution in one compiled "
        "call. Second: from the exact damped natural gradient; dashed: the plain gradient's angle. Third: reduction of "
        "the loss in the trust region, against the exact direction's. Right: the largest eigenvalue of F.",
    )
    times, angles, falls, largest = figure.subplots(1, 4, width_ratios=(1.2, 1, 1, 0.8))
    names = list(dict.fromkeys(row["solver"] for row in rows))
    for number, name in enumerate(names):
        colour = figures.COLOURS[number % len(figures.COLOURS)]
        own = sorted((row for row in rows if row["solver"] == name), key=lambda row: row["damping_over_lambda_max"])
        times.barh(-number, np.median([row["milliseconds"] for row in own]), color=colour, alpha=0.6)
        ratios = [row["damping_over_lambda_max"] for row in own]
        # Exact to rounding is 0, which a logarithmic scale doesn't have.
        degrees = [max(row["angle_degrees"], 1e-6) for row in own]
        angles.plot(ratios, degrees, "o-", color=colour, markersize=3, linewidth=1, label=name)
        falls.plot(ratios, [row["reduction_of_exact"] for row in own], "o-", color=colour, markersize=3, linewidth=1)
    own = sorted((row for row in rows if row["solver"] == names[0]), key=lambda row: row["damping_over_lambda_max"])
    gradient = [max(row["angle_of_gradient_degrees"], 1e-6) for row in own]
    angles.plot([row["damping_over_lambda_max"] for row in own], gradient, "--", color="0.4", linewidth=1)
    angles.set(xscale="log", yscale="log")
    falls.set_xscale("log")
    angles.legend(fontsize=6.5, framealpha=0.9, loc="lower left")
    times.set_xscale("log")
    times.set_yticks([-number for number in range(len(names))], names)
    points = sorted({(row["env_steps"], row["lambda_max"]) for row in rows})
    largest.plot(*zip(*points, strict=True), "o-", color="0.2", markersize=4)
    largest.set_ylim(bottom=0)
    figures.tidy(times, "time of a solve", "milliseconds", "")
    figures.tidy(angles, "angle to the exact solution", "λ / λ_max", "degrees")
    figures.tidy(falls, "reduction / the exact direction's", "λ / λ_max", "")
    figures.tidy(largest, "λ_max of F", "environment steps", "")
    return figures.as_png(figure)
