"""Gaussian pairs at equal distance of their parameters, and the picture of them."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

from ngrl.examples import figures, geometry
from ngrl.examples.gaussian import Gaussian
from ngrl.training import RunContext

VAN_HEESWIJK, VITAY = geometry.pairs(1.0, (0.3, 3.0)), geometry.pairs(1.0, (0.2, 10.0))


def integrate(function, pair):
    low = min(g.mean - 12 * g.std for g in pair)
    high = max(g.mean + 12 * g.std for g in pair)
    return scipy.integrate.quad(function, low, high, epsabs=1e-12, epsrel=1e-12, limit=400)[0]


def log_densities(pair):
    return [scipy.stats.norm(gaussian.mean, gaussian.std).logpdf for gaussian in pair]


@pytest.mark.parametrize("pair", [*VAN_HEESWIJK, *VITAY], ids=str)
def test_divergence_is_the_integral_and_the_closed_form(pair):
    log_p, log_q = log_densities(pair)
    assert pair.kl == pytest.approx(integrate(lambda x: math.exp(log_p(x)) * (log_p(x) - log_q(x)), pair), rel=1e-7)
    assert pair.kl == pytest.approx(1 / (2 * pair.first.std**2), rel=1e-12)
    assert pair.symmetric_kl == pytest.approx(pair.kl, rel=1e-12)
    assert pair.parameter_distance == 1


def test_divergence_of_different_widths_is_the_integral_in_both_directions():
    pair = geometry.Pair(Gaussian(0.5, 0.7), Gaussian(-1.0, 2.0))
    log_p, log_q = log_densities(pair)
    forward = integrate(lambda x: math.exp(log_p(x)) * (log_p(x) - log_q(x)), pair)
    backward = integrate(lambda x: math.exp(log_q(x)) * (log_q(x) - log_p(x)), pair)
    assert pair.kl == pytest.approx(forward, rel=1e-7)
    assert pair.symmetric_kl == pytest.approx((forward + backward) / 2, rel=1e-7)
    assert pair.parameter_distance == pytest.approx(math.sqrt(1.5**2 + 1.3**2), rel=1e-12)


@pytest.mark.parametrize(
    ("pair", "printed", "bits"), list(zip(VAN_HEESWIJK, (0.81661, 0.023481), (0.824, 0.0198), strict=True))
)
def test_numbers_printed_in_the_article_are_neither_kl_nor_jensen_shannon(pair, printed, bits):
    log_p, log_q = log_densities(pair)

    def jensen_shannon(x):
        log_m = np.logaddexp(log_p(x), log_q(x)) - math.log(2)
        return (math.exp(log_p(x)) * (log_p(x) - log_m) + math.exp(log_q(x)) * (log_q(x) - log_m)) / 2

    in_bits = integrate(jensen_shannon, pair) / math.log(2)
    assert in_bits == pytest.approx(bits, rel=5e-3)  # what the docstring says
    assert abs(printed / in_bits - 1) > 5e-3
    assert abs(printed / pair.kl - 1) > 0.5


def test_density_is_that_of_scipy():
    x = np.linspace(-5, 5, 11)
    expected = scipy.stats.norm(0.5, 0.7).pdf(x)
    np.testing.assert_allclose(Gaussian(0.5, 0.7).density(x), expected, rtol=1e-12)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0), (0.0, -1.0), (0.0, math.nan), (math.inf, 1.0)])
def test_no_gaussian_has_such_parameters(mean, std):
    with pytest.raises(ValueError, match="must be"):
        Gaussian(mean, std)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"vitay_stds": (0.2, 0.0)}, "std must be positive and finite, got 0"),
        ({"vanheeswijk_stds": ()}, "at least one standard deviation"),
        ({"distance": math.nan}, "distance must be finite, got nan"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(settings, expected, tmp_path):
    with pytest.raises(ValueError, match=expected):
        geometry.geometry(RunContext(tmp_path / "run"), **settings)
    assert not (tmp_path / "run").exists()


def test_picture_shows_both_colours_in_as_many_panels_as_pairs():
    one, two = (tf.io.decode_png(geometry.draw(pairs, "caption")).numpy() for pairs in (VITAY[:1], VITAY))
    assert two.shape[1] == 2 * one.shape[1]
    for colour in (figures.BLUE, figures.ORANGE):
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        columns = np.flatnonzero((np.abs(two[..., :3].astype(int) - wanted) < 8).all(axis=-1).any(axis=0))
        assert columns.min() < two.shape[1] / 2 < columns.max()


def test_one_number_is_drawn_as_it_is_written():
    assert str(Gaussian(-0.72, 0.54)) == "N(−0.72, 0.54²)"
