"""Random numbers: no two streams share a draw, nothing else derives seeds, what is out of range is refused."""

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from small_runs import train
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ngrl import agents, configuration, environments, networks, seeding, training
from ngrl.configuration import stand_ins
from ngrl.environments.member import episode_seed
from ngrl.seeding import LIMIT, Stream
from ngrl.studies import trials
from ngrl.training import configurables
from ngrl.training.evaluation import evaluate

ROOT = Path(__file__).resolve().parent.parent
SEEDS = [*range(60), *range(1_000_000, 1_000_010), LIMIT - 2, LIMIT - 1]
OBSERVATION = tensor_spec.TensorSpec([4], tf.float32)
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2)
BOX = tensor_spec.BoundedTensorSpec([2], tf.float32, -1.0, 1.0)

CARTPOLE = environments.Environment("CartPole-v1")


# --- streams share nothing


def test_no_two_streams_of_the_host_share_a_draw():
    drawn = [
        seeding.generator(seed, stream, *counters).bytes(8)
        for seed in SEEDS
        for stream in Stream
        for counters in [(), (0,), (1,), (2,), (0, 0), (0, 1), (1, 0), (1, 1)]
    ]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_no_two_streams_of_a_graph_share_a_draw(jit_compile):
    """Not a single 32-bit word of one occurs among the first of another: 1,296 streams of 16 draws of 2 words."""
    keys = np.stack([seeding.key(seed, stream) for seed in SEEDS for stream in Stream])

    @tf.function(jit_compile=jit_compile)
    def draws(counter):
        def one(key):
            return tf.random.stateless_uniform([2], seeding.at(key, counter), None, None, tf.int32, alg="philox")

        return tf.map_fn(one, tf.constant(keys), tf.int32)

    words = np.stack([draws(tf.constant(counter)).numpy() for counter in [*range(15), LIMIT - 1]])
    pairs = words.reshape(-1, 2).astype(np.int64) @ [1, 2**32]
    assert np.unique(pairs).size == pairs.size


def test_streams_of_graphs_never_run_into_each_other():
    """Their numbers count up in the second word, so that two meet only if they agree in the first, and nearly so."""
    keys = np.stack([seeding.key(seed, stream) for seed in range(2000) for stream in Stream])
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    first, second = np.diff(keys[order].astype(np.int64), axis=0).T
    assert np.all((first != 0) | (second > 10**8))
    np.testing.assert_array_equal(seeding.at(keys[0], 7), [keys[0, 0], np.int32(keys[0, 1] + 7)])
    np.testing.assert_array_equal(seeding.at(keys[0], tf.constant(7)), seeding.at(keys[0], 7))


def test_the_same_in_another_process():
    code = "from ngrl import seeding as s; print(s.integer(5, s.Stream.REPLAY, 3), s.key(5, s.Stream.ACTIONS).tolist())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    expected = f"{seeding.integer(5, Stream.REPLAY, 3)} {seeding.key(5, Stream.ACTIONS).tolist()}"
    assert done.stdout.strip() == expected


def test_streams_have_numbers_of_their_own_and_every_one_is_used():
    source = "".join(path.read_text() for top in ("ngrl", "tools") for path in (ROOT / top).rglob("*.py"))
    assert len({stream.value for stream in Stream}) == len(Stream.__members__)
    assert [stream.name for stream in Stream if not re.search(rf"Stream\.{stream.name}\b", source)] == []


def test_seeding_loads_no_library_before_the_first_number():
    code = "import sys, ngrl.seeding; sys.exit(bool({'numpy', 'tensorflow', 'gin'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# --- who draws what


def test_no_evaluation_plays_an_episode_of_any_training():
    places = list(itertools.product(SEEDS, range(4), range(5)))
    trained = {episode_seed(*place) for place in places}
    evaluated = {episode_seed(*place, Stream.EVALUATION_EPISODES) for place in places}
    assert not trained & evaluated
    assert len(trained) == len(evaluated) == len(places)
    assert max(trained | evaluated) < LIMIT


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_environments_of_training_and_evaluation_begin_differently(backend):
    def first(seed, stream):
        environment = environments.load("CartPole-v1", 2, seed, backend, stream=stream)
        observation = environment.reset().observation
        environment.close()
        return {row.tobytes() for row in observation}

    streams = (Stream.TRAINING_EPISODES, Stream.EVALUATION_EPISODES)
    begun = [first(seed, stream) for seed in (0, 1, 1_000_003) for stream in streams]
    assert len(set().union(*begun)) == 12


def test_evaluation_and_video_play_the_evaluation_stream(monkeypatch):
    asked = []
    load = environments.Environment.load

    def noting(settings, seed=0, stream=Stream.TRAINING_EPISODES):
        asked.append((seed, stream))
        return load(settings, seed, stream)

    monkeypatch.setattr(environments.Environment, "load", noting)
    evaluate(lambda step: np.zeros(step.reward.shape, np.int64), CARTPOLE, 2, seed=5)
    training.evaluation.check_video(CARTPOLE)
    assert asked == [(5, Stream.EVALUATION_EPISODES), (0, Stream.EVALUATION_EPISODES)]


def kernels(*parts):
    return [v.numpy() for part in parts for v in part.trainable_variables if v.shape.rank == 2]


def all_differ(found):
    """Whether no two kernels begin with the same draws, on whatever scale and in whatever shape."""

    def same(a, b):
        heads = [kernel.ravel()[: min(a.size, b.size)].astype(np.float64) for kernel in (a, b)]
        return np.allclose(*(head / np.linalg.norm(head) for head in heads), atol=1e-5)

    return not any(same(a, b) for a, b in itertools.combinations(found, 2))


@pytest.mark.parametrize("action_spec", [DISCRETE, BOX])
def test_actor_and_critic_begin_with_different_kernels(action_spec):
    def adam():
        return tf.keras.optimizers.Adam()

    agent = configurables.policy_agent(
        ts.time_step_spec(OBSERVATION), action_spec, 0, configurables.agents.PlainUpdate, adam(), adam()
    )
    found = kernels(agent.actor_network, agent.critic.network)
    assert len(found) == 6
    assert all_differ(found)


def test_networks_of_one_seed_and_of_neighbouring_seeds_begin_with_different_kernels():
    found = []
    for seed in (0, 1, 2, 1000):
        dueling = networks.StochasticDuelingNetwork(OBSERVATION, BOX, (16, 16), seed=seed)
        others = [
            networks.ActorNetwork(OBSERVATION, DISCRETE, (16, 16), seed=seed),
            networks.ValueNetwork(OBSERVATION, (16, 16), seed=seed),
            networks.QNetwork(OBSERVATION, 3, (16, 16), seed=seed),
        ]
        for network in others:
            network.create_variables()
        found += kernels(dueling, *others)
    assert len(found) == 60
    assert all_differ(found)


# --- nothing else derives a seed

MAKERS = {"default_rng", "PCG64", "Philox", "MT19937", "SFC64", "SeedSequence", "RandomState", "Random", "set_seed"}
DRAWS = ("stateless_", "from_seed", "from_key_counter", "fold_in", "split", "set_random_seed", "seed")
STATEFUL = {"normal", "uniform", "truncated_normal", "shuffle", "categorical", "gamma", "poisson", "Generator"}
# Programs that run where ngrl's numbers don't matter, in environments without ngrl.
PEERS = ROOT / "tools" / "peers"
FOREIGN = {
    PEERS / f"{name}.py"
    for name in ("sb3_worker", "tianshou_worker", "tf_agents_worker", "pqn_scores_worker", "networks")
}


def is_given(node):
    """Whether a seed is what a caller gave, or comes from `seeding`."""
    if isinstance(node, ast.Name):
        return node.id == "seed"
    return isinstance(node, ast.Call) and dotted(node.func).startswith("seeding.")


def dotted(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([getattr(node, "id", "?"), *reversed(parts)])


def is_seed(node):
    return dotted(node).rpartition(".")[2].lstrip("_") in ("seed", "run_seed")


def derivations(source):
    """Lines that derive a seed or draw in another way than `ngrl.seeding`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            *path, name = dotted(node.func).split(".")
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            if name in MAKERS and not (arguments and all(isinstance(a, ast.Call) and is_given(a) for a in arguments)):
                yield node.lineno
            elif "random" in path or name.startswith("stateless_") or name == "set_random_seed":
                seeded = any(map(is_given, arguments))
                if not seeded and (name in STATEFUL or name.startswith(DRAWS)):
                    yield node.lineno
            elif (
                name == "sample"
                and any(isinstance(a, ast.Call) and dotted(a.func).endswith("stack") for a in arguments)
            ) or (name == "VarianceScaling" and not any(map(is_given, arguments))):
                yield node.lineno
        elif isinstance(node, ast.BinOp) and (is_seed(node.left) or is_seed(node.right)):
            if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.BitXor | ast.FloorDiv | ast.Mod):
                yield node.lineno
        elif isinstance(node, ast.List | ast.Tuple):
            stored = isinstance(node.ctx, ast.Store)  # `for seed, run in ...`
            yield from [node.lineno] * (not stored and len(node.elts) > 1 and is_seed(node.elts[0]))


@pytest.mark.parametrize(
    "line",
    [
        "np.random.default_rng(seed)",
        "np.random.default_rng([self._seed, self._rounds, 0])",
        "np.random.Generator(np.random.PCG64(seed))",
        "np.random.SeedSequence(run_seed, spawn_key=(1,))",
        "np.random.default_rng()",
        "random.Random(seed)",
        "tf.random.normal([3])",
        "np.random.normal(3)",
        "tf.random.stateless_normal([3], [0, step], alg='philox')",
        "tf.random.stateless_uniform([3], seeds[0])",
        "tf.keras.utils.set_random_seed(0)",
        "np.random.seed(0)",
        "tf.random.split(key, 2)",
        "metric.sample(outputs, tf.stack([count, 0]))",
        "tf.stack([seed, step])",
        "load(seed=seed + 1_000_003)",
        "network(seed=2 * self._seed)",
        "np.array([self._seed, self._calls], np.int32)",
        "VarianceScaling(1.0, 'fan_in', seed=3)",
    ],
)
def test_other_derivations_are_found(line):
    assert list(derivations(line)) != []


def test_only_seeding_derives_seeds():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for top in ("ngrl", "tools")
        for path in sorted((ROOT / top).rglob("*.py"))
        if path not in FOREIGN and path != ROOT / "ngrl" / "seeding.py"
        for line in derivations(path.read_text())
    ]
    assert found == []


# --- what is out of range

OUT_OF_RANGE = [-1, LIMIT, 2**63, -(2**40)]


def one_line(error, value):
    text = str(error.value)
    assert "\n" not in text
    assert str(value) in text
    assert str(LIMIT - 1) in text


@pytest.mark.parametrize("seed", [*OUT_OF_RANGE, 1.0, True, None, "1", np.float32(1)])
@pytest.mark.parametrize(
    "use",
    [
        lambda seed: seeding.generator(seed, Stream.REPLAY),
        lambda seed: seeding.integer(seed, Stream.LIBRARIES),
        lambda seed: seeding.key(seed, Stream.ACTIONS),
        lambda seed: environments.load("CartPole-v1", seed=seed),
        lambda seed: networks.QNetwork(OBSERVATION, 3, seed=seed),
        lambda seed: evaluate(None, CARTPOLE, seed=seed),
        lambda seed: trials.seeds_of([3, seed]),
    ],
)
def test_seed_out_of_range_is_refused_in_one_line(use, seed):
    with pytest.raises(ValueError, match="must lie between") as error:
        use(seed)
    one_line(error, seed)


@pytest.mark.parametrize("seed", [0, LIMIT - 1, np.int64(7), np.uint8(3)])
def test_seeds_within_the_range_are_taken(seed):
    assert seeding.check_seed(seed) == seed
    assert type(seeding.check_seed(seed)) is int


def test_restored_environment_refuses_no_seed_that_it_took():
    environment = environments.load("CartPole-v1", seed=LIMIT - 1)
    with pytest.raises(ValueError, match="must lie between"):
        environment.seed(LIMIT)
    environment.reset()
    environment.set_state(environment.get_state())
    environment.close()


@pytest.mark.parametrize("seed", OUT_OF_RANGE)
def test_run_refuses_it_before_anything_is_written(tmp_path, seed):
    with pytest.raises(ValueError, match="seed must lie between") as error:
        train(tmp_path / "run", "CartPole-v1", None, None, num_env_steps=10, seed=seed)
    one_line(error, seed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read", [configuration.read, stand_ins.check])
@pytest.mark.parametrize("name", ["run.seed", "QNetwork.seed", "solver_comparison.seed", "maximum_likelihood.seed"])
@pytest.mark.parametrize("seed", OUT_OF_RANGE)
def test_gin_files_are_told_where(tmp_path, read, name, seed):
    path = tmp_path / "x.gin"
    path.write_text(f"\n{name} = {seed}\n")
    with pytest.raises(configuration.ConfigurationError, match=rf"x\.gin:2: {name} must lie between") as error:
        read([str(path)], [])
    one_line(error, seed)


def test_agents_refuse_it():
    for agent in (agents.ReinforceAgent, agents.PpoAgent):
        with pytest.raises(ValueError, match="seed must lie between"):
            agent(
                ts.time_step_spec(OBSERVATION),
                DISCRETE,
                networks.ActorNetwork(OBSERVATION, DISCRETE),
                tf.keras.optimizers.Adam(),
                seed=LIMIT,
            )


COMMANDS = [
    ([sys.executable, "-m", "ngrl.launch", "--gin_file=gin/ngdqn_lunar.gin", "--seed"], 2),
    ([sys.executable, "-m", "ngrl.evaluate", "--policy_dir=gin", "--seed"], 2),
    ([sys.executable, "-m", "ngrl.sweep", "--study=launch/paper.gin", "--seeds"], 2),
    ([sys.executable, "tools/scores.py", "gin/ngdqn_lunar.gin", "--seeds"], 1),
]


@pytest.mark.parametrize(("command", "code"), COMMANDS, ids=["launch", "evaluate", "sweep", "scores"])
def test_commands_refuse_it_in_one_line_without_tensorflow(command, code):
    done = subprocess.run([*command, str(LIMIT)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert "must lie between 0 and 2147483647, got 2147483648" in done.stderr
