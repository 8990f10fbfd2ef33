"""Every experiment in `gin/` is parsed; of each agent those are run that together bind what all of its do."""

import math
from pathlib import Path

import fork_server
import gin
import pytest
from experiments import said_before

from ngrl import configuration, environments
from ngrl.training import RunContext, configurables

ROOT = Path(__file__).parents[2] / "gin"
EXPERIMENTS = sorted(path for path in ROOT.rglob("*.gin") if "Environment.env_id" in path.read_text())
GAMES = ("asterix", "freeway", "seaquest", "space_invaders")  # MinAtar's, whose files are Breakout's but for the game
#: MuJoCo's, whose files are Hopper's but for the robot and these settings.
ROBOTS = ("halfcheetah", "walker2d", "ant", "swimmer")
FAR = {"GeneralisedAdvantage.gamma"}  # Swimmer's episodes have no end but the thousandth step
FAR_BY_LONG_TRACES = FAR | {"GeneralisedAdvantage.gae_lambda"}
NOISE = {"ActorNetwork.initial_log_std"}
MEMBERS = {"Environment.num_envs"}
KFAC = {"actor/NaturalGradient.solver", "actor/Kfac.inverse", "actor/Kfac.period"}
RADIUS = {"actor/NaturalGradient.max_kl"}
EPISODES = MEMBERS | {"OnPolicyLoop.batch_size"}
SHRINKING = {f"radius/PolynomialDecay.{name}" for name in ("initial_learning_rate", "end_learning_rate", "decay_steps")}
OWN = {
    "acktr_swimmer": FAR_BY_LONG_TRACES | MEMBERS | NOISE,
    "ppo_halfcheetah": MEMBERS | NOISE,
    "ppo_walker2d": NOISE | {"ClippedUpdate.max_gradient_norm"},
    "ppo_ant": NOISE,
    "ppo_swimmer": FAR_BY_LONG_TRACES | MEMBERS,
    **{
        f"{agent}_{robot}": own
        for agent in ("npg", "trpo")
        for robot, own in {
            "halfcheetah": NOISE,
            "walker2d": NOISE | EPISODES | RADIUS | SHRINKING | {"policy_agent.average_update", "SoftUpdate.tau"},
            "ant": NOISE | KFAC | RADIUS,
            "swimmer": FAR_BY_LONG_TRACES
            | (EPISODES | KFAC if agent == "trpo" else {"OnPolicyLoop.batch_size", "actor/NaturalGradient.max_kl"}),
        }.items()
    },
}


def _parts(path):
    """What a file of an agent's binds: names, and for parts which one; values of other kinds don't count."""
    configuration.parse([str(path)], [])
    agent = path.stem.split("_")[0]
    found = {(agent, name, value if "@" in value else "") for name, value in configuration.bindings().items()}
    gin.clear_config()
    return found


def _covering(paths, first):
    """Some of the files, `first` among them, that together bind what all do: one after another that with the most."""
    parts = {path: _parts(path) for path in paths}
    chosen = [path for path in paths if path.stem in first and path.parent == ROOT]
    while left := set().union(*parts.values()) - set().union(*(parts[path] for path in chosen)):
        chosen.append(max(paths, key=lambda path: len(parts[path] & left)))
    return sorted(chosen)


#: These run as they would for a user.
COMPILED = ("ngdqn_cartpole_v1", "trpo_cartpole_v1")
#: A file is not run that binds nothing but what its agent's that are run bind too, to other numbers.
RUN = _covering(EXPERIMENTS, (*COMPILED, "acer_pendulum", "npg_cartpole_v1", "minatar_breakout", "acktr_hopper"))
ENTRIES = sorted(
    path
    for path in ROOT.rglob("*.gin")
    if path.stem not in ("base", "lunar", "mle_gaussian")  # the comparison of solvers on CartPole, tests/examples
    and ("main.entry" in path.read_text() or path.parent.name == "solvers")
)
SHORT = ["run.num_env_steps = 300", "Evaluation.episodes = 1"]
#: What shortens the experiments of each loop, and how many updates they make at least.
LOOPS = {
    "OffPolicyLoop": (
        [
            "OffPolicyLoop.warmup_steps = 200",
            "OffPolicyLoop.batch_size = 16",
            "OffPolicyLoop.max_skipped_updates = 1000",
        ],
        80,
    ),
    "OnPolicyLoop": (["Critic.epochs = 1"], 2),
    "TrajectoryReplayLoop": (["TrajectoryReplayLoop.num_steps = 4", "TrajectoryReplayLoop.warmup_steps = 100"], 6),
}
SHORT_SOLVERS = [
    "solver_comparison.at_env_steps = (300,)",
    "solver_comparison.dampings = (1.0,)",
    "solver_comparison.repeats = 1",
    "solver_comparison.jit_compile = False",
    "OffPolicyLoop.jit_compile = False",
    "OffPolicyLoop.warmup_steps = 200",
]


@pytest.fixture(autouse=True)
def _empty_gin():
    gin.clear_config()
    yield
    gin.clear_config()


def test_the_published_and_the_own_experiments_are_there():
    names = {str(path.relative_to(ROOT)) for path in EXPERIMENTS}
    for env in ("cartpole_v0", "cartpole_v1", "acrobot", "lunar"):
        assert {
            f"ngdqn_{env}.gin",
            f"dqn_{env}.gin",
            f"paper/ngdqn_{env}.gin",
            f"paper/dqn_{env}.gin",
        } <= names
    for env in ("cartpole_v1", "acrobot", "lunar", "pendulum"):
        assert {f"{agent}_{env}.gin" for agent in ("reinforce", "npg", "trpo", "ppo", "acer")} <= names
    for env in ("hopper", *ROBOTS):
        assert {f"{agent}_{env}.gin" for agent in ("npg", "trpo", "ppo", "acktr")} <= names
    assert {f"acktr_{env}.gin" for env in ("cartpole_v1", "lunar", "pendulum", "minatar_breakout")} <= names
    assert {"kfac_cartpole_v1.gin", "prong_cartpole_v1.gin"} <= names
    for game in ("breakout", *GAMES):
        assert {f"{agent}minatar_{game}.gin" for agent in ("", "dqn_", "trpo_", "ppo_")} <= names


@pytest.mark.parametrize("agent", ["", "dqn_", "trpo_", "ppo_"])
@pytest.mark.parametrize("game", GAMES)
def test_minatars_games_differ_by_their_name_alone_and_by_the_rate_that_dqn_needs(agent, game):
    bound = []
    for name in ("breakout", game):
        configuration.parse([str(ROOT / f"{agent}minatar_{name}.gin")], [])
        bound.append(configuration.bindings())
        gin.clear_config()
    own = {"Environment.env_id", *(["Adam.learning_rate"] if agent == "dqn_" else [])}
    first, second = ({name for name in found.items() if name[0] not in own} for found in bound)
    assert first == second
    assert game.title().replace("_", "") in str(bound[1])
    environments.making.find_spec(bound[1]["Environment.env_id"].strip("'\""))


@pytest.mark.parametrize("agent", ["npg", "trpo", "ppo", "acktr"])
@pytest.mark.parametrize("robot", ROBOTS)
def test_robots_differ_in_few_settings(agent, robot):
    bound = []
    for name in ("hopper", robot):
        configuration.parse([str(ROOT / f"{agent}_{name}.gin")], [])
        bound.append(configuration.bindings())
        gin.clear_config()
    differing = {name.removeprefix("ngrl.") for name in bound[1] if bound[0].get(name) != bound[1][name]}
    assert differing == {"Environment.env_id"} | OWN.get(f"{agent}_{robot}", set())
    environments.making.find_spec(bound[1]["Environment.env_id"].strip("'\""))


def test_experiments_that_are_not_run_here_bind_what_some_that_are_bind():
    run = set().union(*map(_parts, RUN))
    assert all(_parts(path) <= run for path in EXPERIMENTS)
    assert {path.stem for path in RUN} >= {*COMPILED}
    assert 15 < len(RUN) < 45


def _unused(name, path):
    """Whether a binding of a shared base belongs to a part that some experiments replace by another."""
    replaced = ("ExponentialEpsilon", "LevenbergMarquardt", "Critic.epochs")
    if path.stem.startswith(("acktr_", "kfac_", "prong_")):
        replaced += ("critic/Adam", "Dual", "ConjugateGradient")
    return name.startswith(replaced)


@pytest.mark.parametrize("path", RUN, ids=lambda path: str(path.relative_to(ROOT)))
def test_experiment_runs(path, tmp_path, monkeypatch):
    configuration.parse([str(path)], [])
    loop = next(name for name in LOOPS if name in str(gin.query_parameter("run.loop")))
    num_envs = gin.query_parameter("Environment.num_envs")
    gin.clear_config()
    shortened, least_updates = LOOPS[loop]
    short = [*SHORT, *shortened]
    if loop == "OnPolicyLoop":  # whose batches are so many steps of each environment
        short.append(f"{loop}.batch_size = {num_envs * math.ceil(128 / num_envs)}")
    if path.stem == "atari_pong":  # whose network takes milliseconds for an action
        short.append("Evaluation.max_episode_steps = 30")
        least_updates = 16  # one for four steps
    if "masked" in path.stem:  # whose graph grows with the steps that it unrolls
        short.append("OnPolicyAgent.sequence_length = 2")
    if path.parent != ROOT or path.stem not in COMPILED:
        # Compiling and exporting take most of the time, and have tests of their own for every agent.
        short.append(f"{loop}.jit_compile = False")
        fork_server.play_live_policies(monkeypatch.setattr)
    configuration.parse([str(path)], short)
    final = configurables.run(RunContext(tmp_path / "run"))
    operative = gin.operative_config_str()
    dead = [name for name in configuration.bindings() if f"{name} = " not in operative and not _unused(name, path)]
    assert not dead, "bound, but without effect"
    assert final["env_steps"] >= 300
    assert final["train_steps"] >= least_updates
    if path.parent.name != "paper":  # the published update, as printed, can diverge within a hundred steps
        assert final["skipped_updates"] == 0
    assert final["evaluation"]["episodes"] == 1


def test_the_examples_are_there():
    names = {str(path.relative_to(ROOT)) for path in ENTRIES}
    assert "examples/geometry.gin" in names
    assert "solvers/cartpole_v1.gin" in names


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_entry_runs_as_the_file_says(path, tmp_path):
    compares_solvers = path.parent.name == "solvers"
    configuration.parse([str(path)], SHORT_SOLVERS if compares_solvers else [])
    result = configurables.main(RunContext(tmp_path / "run", config=configuration.bindings))
    operative = gin.operative_config_str()
    dead = [name for name in configuration.bindings() if f"{name} = " not in operative]
    if compares_solvers:  # these include an experiment for its agent, and run no training of its length
        dead = [name for name in dead if not name.startswith(("run.", "Evaluation."))]
    assert not dead, "bound, but without effect"
    assert result["summary"]
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.gin")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_parses(path):
    configuration.parse([*said_before(path), str(path)], [])
    assert configuration.bindings()


@pytest.mark.parametrize("binding", ["Adam.learning_rate = '0.1'", "ExponentialDecay.decay_rate = '0.1'"])
def test_texts_for_keras_numbers_are_refused_though_keras_annotates_nothing(binding):
    with pytest.raises(configuration.ConfigurationError, match=r'must be float, got "0.1", a str; write 0.1'):
        configuration.parse([], [binding])
