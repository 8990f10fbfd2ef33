"""A small network, Keras' losses and natural-gradient steps in NumPy, float64: no ngrl, no tape."""

import numpy as np

SIZES = (3, 4)  # inputs and hidden units


def split(theta, num_outputs):
    """Kernel, bias, kernel, bias of the flat vector, in the order of Keras' `trainable_variables`."""
    d, m = SIZES
    shapes = [(d, m), (m,), (m, num_outputs), (num_outputs,)]
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    return [theta[a:b].reshape(shape) for a, b, shape in zip(ends[:-1], ends[1:], shapes, strict=True)]


def start(num_outputs, seed=0):
    d, m = SIZES
    return np.random.default_rng(seed).normal(size=(d + 1) * m + (m + 1) * num_outputs)


def chain(theta, x, num_outputs):
    """The outputs [B, K] of a tanh layer and a linear one."""
    w, b, v, c = split(theta, num_outputs)
    return np.tanh(x @ w + b) @ v + c


def residual(theta, x, num_outputs):
    """As `chain`, with the last layer's input h + h²: no chain of layers."""
    w, b, v, c = split(theta, num_outputs)
    h = np.tanh(x @ w + b)
    return (h + h * h) @ v + c


def one_hot(labels, num_outputs):
    return np.eye(num_outputs)[labels]


def values(loss, t, y):
    """ℓ_i [B]; analytic in y, for complex steps. Crossentropies take logits."""
    if loss == "mse":
        return np.mean((y - t) ** 2, axis=1)
    if loss == "binary_crossentropy":
        return np.mean(np.log(1 + np.exp(y)) - t * y, axis=1)
    return np.sum(t, axis=1) * np.log(np.sum(np.exp(y), axis=1)) - np.sum(t * y, axis=1)


def hessians(loss, t, y):
    """∂²ℓ_i/∂y_i² [B, K, K], in closed form."""
    k = y.shape[1]
    if loss == "mse":
        return np.broadcast_to(2 / k * np.eye(k), (len(y), k, k))
    if loss == "binary_crossentropy":
        p = 1 / (1 + np.exp(-y))
        return np.stack([np.diag(row) for row in p * (1 - p) / k])
    p = np.exp(y) / np.sum(np.exp(y), axis=1, keepdims=True)
    return np.sum(t, axis=1)[:, None, None] * (np.stack([np.diag(row) for row in p]) - p[:, :, None] * p[:, None, :])


def derivative(function, theta, step=1e-30):
    """∂function/∂θ by complex steps, exact to rounding: [..., P]."""
    columns = []
    for index in range(theta.size):
        shifted = theta.astype(complex)
        shifted[index] += 1j * step
        columns.append(np.imag(function(shifted)) / step)
    return np.stack(columns, axis=-1)


class Problem:
    """L(θ) = (1/B) Σ_i w_i ℓ_i (or the sum) + penalty(θ, x), and its damped natural-gradient steps."""

    def __init__(self, loss, num_outputs, network=chain, sums=False, penalty=None):
        self.loss, self.num_outputs, self.network, self.sums = loss, num_outputs, network, sums
        self.penalty = penalty or (lambda theta, x: 0.0)

    def value(self, theta, x, t, w):
        total = np.sum(w * values(self.loss, t, self.network(theta, x, self.num_outputs)))
        return total / (1 if self.sums else len(x)) + self.penalty(theta, x)

    def gradient(self, theta, x, t, w):
        return derivative(lambda shifted: self.value(shifted, x, t, w), theta)

    def curvature(self, theta, x, t, w):
        jacobian = derivative(lambda shifted: self.network(shifted, x, self.num_outputs), theta)
        h = hessians(self.loss, t, self.network(theta, x, self.num_outputs))
        total = np.einsum("b,bkp,bkl,blq->pq", w, jacobian, h, jacobian)
        return total / (1 if self.sums else len(x))

    def direction(self, theta, x, t, w, damping):
        """(F + λI)⁻¹ g."""
        return np.linalg.solve(
            self.curvature(theta, x, t, w) + damping * np.eye(theta.size), self.gradient(theta, x, t, w)
        )
