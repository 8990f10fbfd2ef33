"""The part of `bench.py` that times updates of convolutional networks.

Adam has its choice: TensorFlow's convolution or patches and a product of matrices, a graph or XLA. So has the natural
gradient. What counts is the quickest of each, by its median.
"""

from typing import Any

from bench_rounds import interleave, q_learning_spec, quickest_over_quickest, timed_updates

_MINATAR = {"shape": [10, 10, 4], "convolutions": ((16, 3, 1),), "units": 128, "goal": 1.2}
_NATURE = {"shape": [84, 84, 4], "convolutions": ((32, 8, 4), (64, 4, 2), (64, 3, 1)), "units": 512, "goal": 1.5}
#: Shape of an image, convolutions (filters, kernel, stride), units, goal; batch, updates a call.
NETWORKS: dict[str, dict[str, Any]] = {
    "minatar, B = 32": {**_MINATAR, "batch": 32, "updates": 32},
    "minatar, B = 128": {**_MINATAR, "batch": 128, "updates": 16},
    "nature, B = 32": {**_NATURE, "batch": 32, "updates": 2},
}
NUM_ACTIONS = 6
VARIANTS = tuple((kind, way) for kind in ("conv2d", "patches") for way in ("graph", "xla"))


def image_agent(setting: dict[str, Any], kind: str, optimizer: Any) -> Any:
    """Q-learning without target network on images, by TensorFlow's convolution or by patches."""
    import tensorflow as tf
    from tf_agents.networks import sequential

    from ngrl import agents, patches

    spec = q_learning_spec(setting["shape"], NUM_ACTIONS)
    convolution = patches.PatchConv2D if kind == "patches" else tf.keras.layers.Conv2D
    layers = [
        convolution(filters, kernel, strides=stride, activation="relu")
        for filters, kernel, stride in setting["convolutions"]
    ]
    layers += [tf.keras.layers.Flatten(), tf.keras.layers.Dense(setting["units"], "relu")]
    network = sequential.Sequential([*layers, tf.keras.layers.Dense(NUM_ACTIONS)])
    network.create_variables(spec[0].observation)
    return agents.DqnAgent(*spec, network, optimizer)


def make_optimizer(natural: bool) -> Any:
    """The natural gradient by 20 CG iterations, or Adam."""
    import tensorflow as tf

    from ngrl import optimizers, solvers

    if not natural:
        return tf.keras.optimizers.Adam(1e-3)
    solver = solvers.Dual(solver=solvers.ConjugateGradient(max_iterations=20))
    return optimizers.NaturalGradient(0.1, solver, 1.0, max_kl=0.01)


def measure_pixels(rounds: int, seconds: float) -> dict[str, Any]:
    """Updates inside the many-update call, of every variant in turn."""
    del seconds
    result = {}
    for name, setting in NETWORKS.items():
        runs = {
            (optimizer, kind, way): timed_updates(
                image_agent(setting, kind, make_optimizer(optimizer == "natural")),
                setting["shape"],
                NUM_ACTIONS,
                setting["batch"],
                setting["updates"],
                compiled=way == "xla",
            )
            for optimizer in ("adam", "natural")
            for kind, way in VARIANTS
        }
        result[name] = quickest_over_quickest(interleave(runs, rounds), setting["goal"])
    return result
