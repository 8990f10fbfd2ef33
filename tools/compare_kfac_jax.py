"""K-FAC's factors and preconditioned gradients against kfac-jax's, on the same weights and batch; prints a table.

    .venv/bin/python tools/compare_kfac_jax.py --python kfac-jax/bin/python

`kfac-jax/bin/python` is the Python of an environment of its own, made with `python3 -m venv kfac-jax` and
`kfac-jax/bin/pip install kfac-jax==0.0.8 jax==0.7.2` (the newest jax is too new for it). It runs this file too, without
ngrl. The exit code is 1 where a number is further off than 1e-5 of the largest of its kind. Both work in float64.
kfac-jax divides a convolution's G by the number of positions and multiplies the block by it: here G is multiplied.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

BATCH, OUTPUTS, DAMPING, TOLERANCE = 16, 3, 0.1, 1e-5
CASES = ("Dense, squared error", "Dense, softmax", "Conv2D, squared error", "Conv2D, softmax")


def ours(case: str) -> dict[str, np.ndarray]:
    """The problem (weights, inputs, output gradient) and what ngrl finds."""
    import tensorflow as tf

    from ngrl import seeding, solvers
    from ngrl.curvature import Categorical, GaussNewton, SquaredError

    tf.keras.utils.set_random_seed(seeding.integer(1, seeding.Stream.LIBRARIES))
    keras = tf.keras.layers
    first = [keras.Dense(7, "tanh", dtype="float64")]
    shape: tuple[int, ...] = (5,)
    if case.startswith("Conv2D"):
        first = [keras.Conv2D(4, 3, (2, 2), activation="tanh", dtype="float64"), keras.Flatten(dtype="float64")]
        shape = (7, 7, 2)
    model = tf.keras.Sequential([tf.keras.Input(shape, dtype="float64"), *first, keras.Dense(OUTPUTS, dtype="float64")])
    generator = seeding.generator(1, seeding.Stream.POINTS)
    model.set_weights([generator.normal(size=weight.shape) / 2 for weight in model.get_weights()])
    inputs = generator.normal(size=(BATCH, *shape))
    pull = generator.normal(size=(BATCH, OUTPUTS)) / BATCH
    metric = Categorical() if "softmax" in case else SquaredError()
    operator = GaussNewton(model, model.trainable_variables, inputs, metric)
    layers = operator.kronecker_layers()
    gradient = operator.vjp(pull)
    found = {"inputs": inputs, "gradient": gradient.numpy(), "strides": np.array(2)}
    found |= {f"weight{number}": weight for number, weight in enumerate(model.get_weights())}
    for number, layer in enumerate(layers.layers):
        found[f"A{number}"], found[f"G{number}"] = layer.input_factor().numpy(), layer.derivative_factor().numpy()
    for inverse in ("factored", "exact"):
        found[inverse] = solvers.Kfac(inverse=inverse)(operator, gradient, DAMPING).value.numpy()
    return found


def theirs(case: str, problem: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What kfac-jax finds, under the Python that has it."""
    import jax
    import jax.numpy as jnp
    import kfac_jax

    jax.config.update("jax_enable_x64", True)
    weights = [jnp.asarray(problem[f"weight{number}"]) for number in range(4)]
    inputs = jnp.asarray(problem["inputs"])

    def network(weights: Any, x: Any) -> Any:
        if case.startswith("Conv2D"):
            order = ("NHWC", "HWIO", "NHWC")
            z = jax.lax.conv_general_dilated(x, weights[0], (2, 2), "VALID", dimension_numbers=order) + weights[1]
        else:
            z = x @ weights[0] + weights[1]
        return jnp.tanh(z).reshape(x.shape[0], -1) @ weights[2] + weights[3]

    def loss(weights: Any, x: Any) -> Any:
        outputs = network(weights, x)
        if "softmax" in case:
            kfac_jax.register_categorical_predictive_distribution(outputs)
        else:
            kfac_jax.register_normal_predictive_distribution(outputs, variance=1.0)
        return jnp.sum(outputs)

    estimator = kfac_jax.BlockDiagonalCurvature(loss, default_estimation_mode="fisher_exact")
    key = jax.random.PRNGKey(0)
    arguments = (weights, inputs)
    state = estimator.init(key, arguments, exact_powers_to_cache=None, approx_powers_to_cache=None)
    state = estimator.update_curvature_matrix_estimate(state, 0.0, 1.0, 0.0, BATCH, key, arguments)
    found = {}
    for number, (block, values) in enumerate(zip(estimator.blocks, state.blocks_states, strict=True)):
        a, g = (np.asarray(factor.value) for factor in values.factors)
        if case.startswith("Conv2D") and number == 0:
            g = g * block.num_locations
        found[f"A{number}"], found[f"G{number}"] = a, g
    sizes = np.cumsum([weight.size for weight in weights])[:-1]
    parts = np.split(problem["gradient"], sizes)
    vector = [jnp.asarray(part.reshape(weight.shape)) for part, weight in zip(parts, weights, strict=True)]
    for inverse in ("factored", "exact"):
        product = estimator.multiply_inverse(state, vector, DAMPING, inverse == "exact", False, None)
        found[inverse] = np.concatenate([np.asarray(part).ravel() for part in product])
    return found


def compare(python: str) -> bool:
    """Print the table; whether all agree."""
    agree = True
    print("| network, loss | " + " | ".join(("A1", "G1", "A2", "G2", "factored", "exact")) + " |")
    print("| --- |" + " --- |" * 6)
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            problem, answer = Path(folder) / "problem.npz", Path(folder) / "answer.npz"
            found = ours(case)
            np.savez(problem, **found)
            peer_command = [python, __file__, "--peer", case, str(problem), str(answer)]
            done = subprocess.run(peer_command, capture_output=True, text=True, check=False)
            if done.returncode:
                said = done.stderr.strip().splitlines() or ["it said nothing"]
                raise SystemExit(f"compare_kfac_jax.py: {python} ended with exit code {done.returncode}: {said[-1]}")
            peer = np.load(answer)
            cells = []
            for name in ("A0", "G0", "A1", "G1", "factored", "exact"):
                off = np.abs(found[name] - peer[name]).max() / np.abs(peer[name]).max()
                agree &= bool(off <= TOLERANCE)
                cells.append(f"{off:.0e}")
            print(f"| {case} | " + " | ".join(cells) + " |", flush=True)
    return agree


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="kfac-jax/bin/python", help="of the environment that has kfac-jax")
    parser.add_argument("--peer", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        case, problem, answer = arguments.peer
        np.savez(answer, **theirs(case, dict(np.load(problem))))
        return 0
    if not Path(arguments.python).exists():
        parser.error(f"{arguments.python} does not exist: make the environment as --help says")
    return 0 if compare(arguments.python) else 1


if __name__ == "__main__":
    sys.exit(main())
