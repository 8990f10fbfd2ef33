"""Gaussian pairs that are equally far apart as parameters, but not as distributions.

Fig. 2 of van Heeswijk (2022), *Natural policy gradients in reinforcement learning explained*, and Fig. 28 of Vitay's
chapter on natural gradients (section 4.5.1). In each, one pair of Gaussians is narrow and one wide; both pairs have
means 1 apart and equal standard deviations, so that the Euclidean distance of (μ, σ) is 1 for both.

The divergence is the closed form of `ngrl.losses`: (Δμ)² / (2σ²) nats for equal σ, hence 5.5556 and 0.055556 for van
Heeswijk's pairs. The article prints 0.81661 and 0.023481 for them, which are not this divergence; the Jensen-Shannon
divergence in bits, 0.824 and 0.0198, comes nearer, without being equal either. What Vitay calls Jensen-Shannon is the
symmetrised KL; with equal σ it is the KL itself. The second number of Vitay's N(0, 0.2) is read as σ, as his distance
formula does.
"""

from typing import NamedTuple

from ngrl.checks import check_number
from ngrl.configurable import configurable
from ngrl.examples import figures
from ngrl.examples.gaussian import Gaussian
from ngrl.training import RunResult
from ngrl.training.context import RunContext
from ngrl.training.recording import recording

_HEADER = ("figure", "mean_1", "std_1", "mean_2", "std_2", "parameter_distance", "kl_nats", "symmetric_kl_nats")


class Pair(NamedTuple):
    """Two Gaussians and how far apart they are."""

    first: Gaussian
    second: Gaussian

    @property
    def parameter_distance(self) -> float:
        """Euclidean distance of (μ, σ)."""
        return self.first.parameter_distance(self.second)

    @property
    def kl(self) -> float:
        """KL(first ‖ second) in nats."""
        return self.first.kl(self.second)

    @property
    def symmetric_kl(self) -> float:
        """½ (KL(first ‖ second) + KL(second ‖ first)) in nats."""
        return self.first.symmetric_kl(self.second)


def pairs(distance: float, stds: tuple[float, ...]) -> list[Pair]:
    """Pairs N(0, σ²), N(distance, σ²), one for each σ of `stds`.

    Raises:
      ValueError: `stds` is empty, one of them is not positive, or a number is not finite.
    """
    if not stds:
        raise ValueError("at least one standard deviation is needed")
    check_number("distance", distance, "(-inf, inf)")
    return [Pair(Gaussian(0.0, std), Gaussian(distance, std)) for std in stds]


def draw(drawn: list[Pair], caption: str) -> bytes:
    """A panel for every pair, as the content of a PNG file."""
    figure = figures.new_figure(4.2 * len(drawn), 3.4, caption)
    for axis, pair in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        figures.draw_densities(axis, pair, (figures.BLUE, figures.ORANGE), figures.span(pair))
        title = f"parameter distance {pair.parameter_distance:g},  KL {pair.kl:.5g} nats"
        figures.tidy(axis, title, "x", "density")
        axis.set_ylim(top=1.25 * axis.get_ylim()[1])  # room for the legend
        axis.legend(fontsize=8, ncols=2, loc="upper center", frameon=False)
    return figures.as_png(figure)


@configurable
def geometry(
    context: RunContext,
    /,
    distance: float = 1.0,
    vanheeswijk_stds: tuple[float, ...] = (0.3, 3.0),
    vitay_stds: tuple[float, ...] = (0.2, 10.0),
) -> RunResult:
    """Draw both figures: `vanheeswijk_figure_2.png`, `vitay_figure_28.png`, and `pairs.csv` with the numbers.

    Args:
      context: The run's directory, and where to report.
      distance: Δμ between the two Gaussians of every pair.
      vanheeswijk_stds: Standard deviations of van Heeswijk's pairs.
      vitay_stds: Standard deviations of Vitay's pairs.

    Returns:
      `pairs`, a list of the rows of `pairs.csv` as dicts, and `summary`.

    Raises:
      ValueError: A standard deviation is not positive, or a number is not finite.
      ImportError: Matplotlib is not installed.
      RunDirectoryError: The directory can't be used.
    """
    drawn = {
        "vanheeswijk_figure_2": pairs(distance, vanheeswijk_stds),
        "vitay_figure_28": pairs(distance, vitay_stds),
    }
    figures.check_matplotlib()
    captions = {
        "vanheeswijk_figure_2": "After van Heeswijk (2022), Fig. 2. KL in closed form; for Δμ = 1 and σ = 0.3, 3 the "
        "article prints 0.81661 and 0.023481, which are not this divergence.",
        "vitay_figure_28": "After Vitay, Fig. 28. KL in closed form; as the standard deviations are equal, so is its "
        "symmetrised form.",
    }
    settings = {"distance": distance, "vanheeswijk_stds": vanheeswijk_stds, "vitay_stds": vitay_stds}
    with recording(context, settings) as record:
        rows = [
            (name, p.mean, p.std, q.mean, q.std, pair.parameter_distance, pair.kl, pair.symmetric_kl)
            for name, of_figure in drawn.items()
            for pair in of_figure
            for p, q in [pair]
        ]
        record.table("pairs", _HEADER, rows)
        record.pictures({name: draw(of_figure, captions[name]) for name, of_figure in drawn.items()})
        summary = ["pairs of Gaussians at equal distance of their parameters"]
        summary += [
            f"{f'{pair.first}, {pair.second}':<24} distance {pair.parameter_distance:g}, KL {pair.kl:.5g} nats"
            for of_figure in drawn.values()
            for pair in of_figure
        ]
        summary += [
            f"figures      {', '.join(str(record.path / f'{name}.png') for name in drawn)}",
            f"table        {record.path / 'pairs.csv'}",
        ]
        return record.finish({"pairs": [dict(zip(_HEADER, row, strict=True)) for row in rows]}, summary)
