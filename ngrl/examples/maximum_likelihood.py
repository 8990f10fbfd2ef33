"""Natural gradient descent on a probability space: a Gaussian fitted by maximum likelihood.

Hoagland, *Natural gradient methods for optimization and applications to reinforcement learning*, Algorithms 1 and 2 and
Figs. 1 to 3. The parameters are θ = (μ, σ) themselves, σ and not log σ; with a metric G and f the negative
log-likelihood of the points, summed over them, a step is

    g = G⁻¹ ∇f(θ),   θ ← θ − β g,   β fixed, or β = √(2ε / gᵀGg) so that every step has the same length in the metric.

Algorithm 1 takes any G: the identity makes it gradient descent, the Fisher information F = diag(1/σ², 2/σ²) natural
gradient descent. Algorithm 2 estimates F from samples of the model N(μ, σ²) itself. All of it is `NaturalGradient` with
one or the other operator and no damping: `learning_rate` is a fixed β, and `learning_rate=None` with `max_kl` = ε the
other.

The paper leaves the number of points and the horizon unsaid, and gives no ε. With 1,000 points the first step of
gradient descent at β = 1e-4 throws σ from 1 to about 16, far beyond the optimum at 4, and that of the natural gradient
only to about 9, as Fig. 2 draws it. In 1,000 steps gradient descent then draws a line of dots that nearly touch, which
ends near (5, 13), while the natural gradient arrives within 40. (Gradient descent takes about 2,400.) With ε constant
the last steps are as long as the first: Algorithms 1 and 2 end by hopping about the optimum, a step away at most.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable
from ngrl.examples import figures
from ngrl.examples.descent import (
    Descent,
    Trajectory,
    analytic_fisher,
    descend,
    draw_points,
    euclidean,
    fisher_agreement,
    gradient_field,
    sampled_fisher,
)
from ngrl.examples.gaussian import Gaussian
from ngrl.messages import counted
from ngrl.training import RunResult
from ngrl.training.context import RunContext
from ngrl.training.recording import Recorder, recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AGREEMENT_SAMPLES = 100_000
_LOG_EVERY = 10
_HOPS = 10
_HEADER = ("trajectory", "step", "mu", "sigma", "negative_log_likelihood", "gradient_norm", "kl_to_target", "step_kl")


def descents(step_size: float, max_kl: float, fisher_samples: int, seed: int) -> list[Descent]:
    """Gradient and natural gradient with a fixed and with the metric-sized step, and Algorithm 2."""
    sampled = sampled_fisher(fisher_samples, seed)
    return [
        Descent("gradient_fixed", "gradient, fixed step", euclidean, step_size=step_size),
        Descent("natural_fixed", "natural gradient, fixed step", analytic_fisher, step_size=step_size),
        Descent("gradient_metric", "gradient, metric-sized step", euclidean, max_kl=max_kl),
        Descent("natural_metric", "natural gradient, metric-sized step", analytic_fisher, max_kl=max_kl),
        Descent("sampled_metric", "natural gradient with sampled Fisher, metric-sized step", sampled, max_kl=max_kl),
    ]


@configurable
def maximum_likelihood(
    context: RunContext,
    /,
    mean: float = 12.0,
    std: float = 4.0,
    start: tuple[float, float] = (0.0, 1.0),
    step_size: float = 1e-4,
    max_kl: float = 0.005,
    num_points: int = 1_000,
    num_steps: int = 1_000,
    fisher_samples: int = 1_000,
    seed: int = 0,
) -> RunResult:
    """Fit N(mean, std²) in five ways and draw the paper's Figs. 1 to 3.

    Leaves `figure_1.png`, `figure_2.png` and `figure_3.png`, `trajectories.csv`, and in TensorBoard the same pictures
    and the curves of every trajectory.

    Args:
      context: The run's directory, and where to report.
      mean: μ of the points' distribution.
      std: Its σ.
      start: (μ, σ) to start from.
      step_size: The fixed β.
      max_kl: ε of the metric-sized step, in nats for the natural gradient.
      num_points: How many points are drawn and fitted.
      num_steps: How many steps each way takes.
      fisher_samples: Samples of the model in each step of Algorithm 2.
      seed: Seed of the points and of the samples.

    Returns:
      `optimum` (the points' own maximum likelihood), `trajectories` (name to the last μ and σ, `kl_to_target`, and
      `reached_at`, a step or None), `fisher` (see `fisher_agreement`), and `summary`.

    Raises:
      ValueError: A σ is not positive, a count too small, or a number not finite.
      ImportError: Matplotlib is not installed.
      RunDirectoryError: The directory can't be used.
      NonFiniteError: A descent left σ > 0.
    """
    check_number("start's μ", start[0], "(-inf, inf)")
    check_number("start's σ", start[1], "(0, inf)")
    target, first = Gaussian(mean, std), Gaussian(*start)
    data = draw_points(target, num_points, seed)
    ways = descents(step_size, max_kl, fisher_samples, seed)
    check_count("num_steps", num_steps)
    figures.check_matplotlib()
    settings = {
        "mean": mean,
        "std": std,
        "start": start,
        "step_size": step_size,
        "max_kl": max_kl,
        "num_points": num_points,
        "num_steps": num_steps,
        "fisher_samples": fisher_samples,
        "seed": seed,
    }
    with recording(context, settings) as record:
        agreement = fisher_agreement(first, _AGREEMENT_SAMPLES, seed)
        trajectories = [descend(data, first, target, way, num_steps) for way in ways]
        _write(record, trajectories, num_steps)
        unsaid = f"{counted(num_points, 'point')} (seed {seed}), log-likelihood summed over them"
        record.pictures(
            {
                "figure_1": draw_figure_1(),
                "figure_2": draw_figure_2(
                    trajectories, target, f"{unsaid}; {counted(num_steps, 'step')}", f"{step_size:g}", f"{max_kl:g}"
                ),
                "figure_3": draw_figure_3(data, target, unsaid),
            }
        )
        final = {
            "optimum": {"mu": float(data.mean()), "sigma": float(data.std())},
            "trajectories": {trajectory.descent.name: _outcome(trajectory) for trajectory in trajectories},
            "fisher": agreement,
        }
        length = f"{counted(num_points, 'point')}, {counted(num_steps, 'step')}"
        title = f"{target} fitted from ({first.mean:g}, {first.std:g}) to {length}"
        return record.finish(final, [title, *_summary(trajectories, agreement, record.path)])


def _write(record: Recorder, trajectories: Sequence[Trajectory], num_steps: int) -> None:
    record.table("trajectories", _HEADER, (row for trajectory in trajectories for row in trajectory.rows()))
    logged = sorted({*range(0, num_steps + 1, _LOG_EVERY), num_steps})
    for trajectory in trajectories:
        record.curves(trajectory.descent.name, logged, trajectory.scalars)


def _outcome(trajectory: Trajectory) -> dict[str, Any]:
    mu, sigma = trajectory.theta[-1].tolist()
    kl = float(trajectory.kl_to_target[-1])
    return {"mu": mu, "sigma": sigma, "kl_to_target": kl, "reached_at": trajectory.reached_at}


def _summary(trajectories: Sequence[Trajectory], agreement: Mapping[str, Any], path: Path) -> list[str]:
    lines = []
    width = max(len(trajectory.descent.label) for trajectory in trajectories)
    for trajectory in trajectories:
        mu, sigma = trajectory.theta[-1]
        reached = trajectory.reached_at
        outcome = "never reached" if reached is None else f"reached in {counted(reached, 'step')}"
        lines.append(f"{trajectory.descent.label:<{width}}  ends at ({mu:.2f}, {sigma:.2f}), {outcome}")
    lines += [
        f"Fisher of {agreement['num_samples']:,} samples: {agreement['relative_error']:.1%} from diag(1/σ², 2/σ²), "
        f"{agreement['expected_error']:.1%} expected",
        f"figures      {path / 'figure_1.png'}, figure_2.png, figure_3.png",
        f"table        {path / 'trajectories.csv'}",
    ]
    return lines


def draw_figure_1() -> bytes:
    """Hoagland's Fig. 1: Gaussians whose parameters are equally far from those of one, as the content of a PNG file."""
    centre, distance = Gaussian(0.0, 1.5), 1.2
    others = [Gaussian(0.0, 0.3), Gaussian(0.0, 2.7), Gaussian(1.2, 1.5), Gaussian(-0.72, 0.54)]
    limits = figures.span([centre, *others])
    figure = figures.new_figure(
        11,
        3.2,
        f"After Hoagland, Fig. 1. The parameters (μ, σ) of every orange Gaussian are {distance:g} from those of the "
        "blue one in Euclidean distance. The paper gives no numbers; these are chosen here.",
    )
    for axis, other in zip(figure.subplots(1, len(others), sharex=True, sharey=True), others, strict=True):
        figures.draw_densities(axis, [centre, other], (figures.BLUE, figures.ORANGE), limits)
        figures.tidy(axis, f"KL(blue ‖ orange) = {centre.kl(other):.3g} nats", "x", "")
        axis.legend(fontsize=8, loc="upper left", frameon=False)
    figure.axes[0].set_ylabel("density", fontsize=9)
    return figures.as_png(figure)


def draw_figure_2(
    trajectories: Sequence[Trajectory], target: Gaussian, unsaid: str, step_size: str, max_kl: str
) -> bytes:
    """Hoagland's Fig. 2: the iterates in the plane of (μ, σ), as the content of a PNG file.

    Args:
      trajectories: Those with a fixed step make the left panel, the paper's; the others the right one.
      target: Where they should arrive.
      unsaid: What the caption says of points and horizon.
      step_size: β, as text.
      max_kl: ε, as text.
    """
    figure = figures.new_figure(
        10,
        4.4,
        f"After Hoagland, Fig. 2 (left); Algorithms 1 and 2 (right). {unsaid}; a dot an iterate. Points, horizon and "
        "ε are not in the paper; those of gin/examples/mle_gaussian.gin are chosen so that the behaviour it draws "
        "appears: a first jump, a line of dots that nearly touch, and arrival by the natural gradient alone on the "
        "left. With a constant ε the descents on the right end by hopping about the optimum; they are drawn until "
        f"{_HOPS} steps after arrival.",
    )
    titles = (f"fixed step β = {step_size}", f"metric-sized step β = √(2ε / gᵀGg), ε = {max_kl}")
    for axis, fixed, title in zip(figure.subplots(1, 2, sharey=True, sharex=True), (True, False), titles, strict=True):
        drawn = [trajectory for trajectory in trajectories if (trajectory.descent.max_kl is None) == fixed]
        for trajectory, colour in zip(drawn, (figures.BLUE, figures.ORANGE, figures.GREEN), strict=False):
            arrived = None if fixed else trajectory.reached_at
            theta = trajectory.theta[: None if arrived is None else arrived + _HOPS + 1]
            label = trajectory.descent.label.split(",")[0]
            axis.plot(*theta.T, "o-", color=colour, markersize=2.5, linewidth=0.7, alpha=0.8, label=label)
        axis.plot(*trajectories[0].theta[0], "s", color="black", markersize=5, label="start", linestyle="none")
        _mark(axis, target)
        figures.tidy(axis, title, "μ", "σ" if fixed else "")
        axis.legend(fontsize=8, loc="upper right", framealpha=0.9)
    return figures.as_png(figure)


def draw_figure_3(data: np.ndarray, target: Gaussian, unsaid: str) -> bytes:
    """Hoagland's Fig. 3: the directions of steepest descent in the plane of (μ, σ), as the content of a PNG file.

    Args:
      data: The points [N].
      target: What they were drawn from.
      unsaid: What the caption says of them.
    """
    import matplotlib
    from matplotlib.colors import ListedColormap, LogNorm

    reach = max(abs(target.mean), 3 * target.std)
    mu, sigma = np.meshgrid(target.mean + np.linspace(-reach, reach, 13), np.linspace(0.25, 3, 12) * target.std)
    fields = gradient_field(data, np.stack([mu, sigma], axis=-1))
    lengths = [np.linalg.norm(field, axis=-1) for field in fields]
    figure = figures.new_figure(
        11,
        4.4,
        f"After Hoagland, Fig. 3. {unsaid}. Arrow lengths are true within a panel, where the longest spans half of its "
        "height; the colour gives the length on one logarithmic scale for both. The grid is chosen here.",
    )
    axes = figure.subplots(1, 2, sharey=True)
    colours = ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0, 0.85, 256)))  # without the pale end
    norm = LogNorm(np.min(lengths), np.max(lengths))
    titles = ("descent by the gradient, −∇f", "descent by the natural gradient, −F⁻¹∇f")
    for axis, field, length, title in zip(axes, fields, lengths, titles, strict=True):
        u, v = -np.moveaxis(field, -1, 0)
        scale = length.max() / (1.7 * target.std)  # length of an arrow that spans a unit of μ or σ
        arrows = axis.quiver(
            mu, sigma, u, v, length, norm=norm, cmap=colours, angles="xy", scale_units="xy", scale=scale, width=0.004
        )
        _mark(axis, target)
        axis.set_xlim(target.mean - 1.1 * reach, target.mean + 1.1 * reach)
        axis.set_ylim(0, 3.3 * target.std)
        figures.tidy(axis, title, "μ", "σ" if axis is axes[0] else "")
    figure.colorbar(arrows, ax=axes).set_label("length of ∇f and of F⁻¹∇f", fontsize=9)
    return figures.as_png(figure)


def _mark(axis: "Axes", target: Gaussian) -> None:
    label = f"({target.mean:g}, {target.std:g})"
    axis.plot(target.mean, target.std, "*", color="black", markersize=11, label=label, linestyle="none")
