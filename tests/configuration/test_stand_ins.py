"""Wrong gin files are answered before TensorFlow is loaded, and exactly as they would be after."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gin
import pytest
from experiments import said_before
from gin import config as gin_config

from ngrl import configuration, renamed
from ngrl.configuration import annotations, reader, registration, sources, stand_ins
from ngrl.configuration.binding import ConfigurationError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _empty_gin():
    gin.clear_config()
    yield
    gin.clear_config()


NAMES = sorted(sources.names())
#: Of types that are not ngrl's, or of a protocol: left to the second time.
UNKNOWN = {
    "time_step_spec",
    "action_spec",
    "input_tensor_spec",
    "observation_spec",
    "agent",
    "environment",
    "q_network",
    "train_step_counter",
    "epsilon",
}


def test_what_the_sources_mark_is_what_is_registered():
    registration.register_all()
    own = {info.name for selector, info in gin_config._REGISTRY.items() if selector.rpartition(".")[0] == "ngrl"}
    assert own == set(NAMES)
    marks = sum(path.read_text().count("\n@configurable\n") for path in (ROOT / "ngrl").rglob("*.py"))
    assert marks == len(NAMES) - len(sources.KERAS) > 40


@pytest.mark.parametrize("name", NAMES)
def test_signature_in_the_sources_is_that_of_the_class_or_function_itself(name):
    registration.register_all()
    late = gin_config._REGISTRY[f"ngrl.{name}"]
    with stand_ins._registered():
        early = gin_config._REGISTRY[f"ngrl.{name}"]
        parameters, takes_any = reader.settable_parameters(early)
    expected, expected_any = reader.settable_parameters(late)
    assert (list(parameters), takes_any) == (list(expected), expected_any)
    read = annotations.parameter_annotations(reader.constructor(early))
    for parameter, annotation in annotations.parameter_annotations(reader.constructor(late)).items():
        if parameter in parameters and not isinstance(read[parameter], sources._Unknown):
            assert annotations.describe(read[parameter]) == annotations.describe(annotation), parameter
        elif parameter in parameters:
            assert parameter in UNKNOWN
    for parameter, value in parameters.items():
        if value.default is not ... and expected[parameter].default is not gin.REQUIRED:
            assert value.default == expected[parameter].default


def test_solver_within_ngrl_is_known_by_its_file_alone(tmp_path):
    """The one of docs/extending.md, as that page says."""
    shutil.copytree(ROOT / "ngrl", tmp_path / "ngrl", ignore=shutil.ignore_patterns("__pycache__"))
    page = (ROOT / "docs" / "extending.md").read_text()
    text = re.search(r'```python title="my_solver.py"\n(.*?)```', page, re.DOTALL)[1]
    text = text.replace("import gin\n", "").replace("@gin.configurable", "@configurable")
    path = tmp_path / "ngrl" / "solvers" / "steepest_descent.py"
    path.write_text(f"from ngrl.configurable import configurable\n{text}")
    code = (
        "import sys, gin\n"
        "from ngrl import configuration\n"
        "from ngrl.configuration import stand_ins\n"
        "right = ['Dual.solver = @SteepestDescent()', 'SteepestDescent.rtol = 0.5']\n"
        "stand_ins.check([], right)\n"
        "for wrong in ('SteepestDescent.rtoll = 1', 'Dual.solver = @SteepestDecent()'):\n"
        "    try:\n"
        "        stand_ins.check([], [wrong])\n"
        "    except stand_ins.ConfigurationError as error:\n"
        "        print(str(error).partition('; ')[2])\n"
        "assert 'tensorflow' not in sys.modules\n"
        "configuration.parse([], right)\n"
        "print(gin.get_configurable('Dual')().get_config()['solver']['config'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        'did you mean "rtol"?',
        'did you mean "SteepestDescent"?',
        "{'rtol': 0.5, 'max_iterations': 50}",
    ], done.stderr


FILES = sorted((ROOT / "gin").rglob("*.gin"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_right_files_pass(path):
    stand_ins.check([*said_before(path), str(path)], [])


WRONG = [
    # Names.
    "NaturalGradient.learnin_rate = 1.0",
    "NaturlGradient.learning_rate = 1.0",
    "run.agent = @dqn_agnt",
    "run.loop = @OfPolicyLoop",
    "Adam.learnin_rate = 0.1",
    "run.context = 'here'",
    "run.num_env_steps = %steps",
    "steps = 3",
    # Values.
    "NaturalGradient.damping = '0.1'",
    "NaturalGradient.max_kl = True",
    "Adam.learning_rate = '0.1'",
    "ExponentialDecay.decay_rate = '0.1'",
    "QNetwork.hidden_layers = (64)",
    "QNetwork.hidden_layers = ['64']",
    "DqnAgent.fisher_outputs = 'chosn'",
    "Environment.backend = 'async'",
    "Environment.backend = @AsyncEnvironment()",
    "run.env_backend = 'async'",
    "ExponentialEpsilon.per = 'day'",
    "QNetwork.activation = 'tanhh'",
    "ActorNetwork.activation = 'Tanh'",
    "ValueNetwork.activation = ''",
    "StochasticDuelingNetwork.activation = 'softsine'",
    "Environment.env_id = None",
    "Environment.kwargs = 3",
    "run.num_env_steps = %gin.REQUIRED",
    "policy_agent.update = 'NaturalUpdate'",
    "NaturalUpdate.optimizer = 1",
    "PpoAgent.clip_ratio = 0.1",
    "policy_agent.agent = @TrpoAgent",
    "geometry.vitay_stds = (0.1, 'x')",
    # Syntax, includes, imports.
    "Environment.env_id = ",
    "Environment.env_id",
    "run.jit = true",
    "Environment.kwargs = {'a': 1",
    "include 'nowhere.gin'",
    "import os",
    "import ngrl_evil",
]


@pytest.mark.parametrize("text", WRONG)
def test_wrong_file_is_told_of_as_it_would_be_with_the_classes_themselves(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    Path("x.gin").write_text(f"run.seed = 1\n\n{text}\n")
    with pytest.raises(ConfigurationError) as late:
        configuration.parse(["x.gin"], [])
    with pytest.raises(ConfigurationError) as early:
        stand_ins.check(["x.gin"], [])
    assert str(early.value) == str(late.value)
    assert str(early.value).startswith("x.gin:3: ")


def test_checking_leaves_gin_as_it_was(tmp_path):
    before, bound = gin_config._REGISTRY, dict(gin_config._CONFIG)
    stand_ins.check([str(FILES[0])], [])
    with pytest.raises(ConfigurationError):
        stand_ins.check([], ["run.nothing = 1"])
    assert gin_config._REGISTRY is before
    assert bound == gin_config._CONFIG


@pytest.mark.parametrize("text", ["run.agent = @OnPolicyAgent()", "tf_agents.agents.dqn.dqn_agent.DqnAgent.gamme = 1"])
def test_what_depends_on_classes_is_left_to_the_second_time(text):
    stand_ins.check([], [text])
    with pytest.raises(ConfigurationError):
        configuration.parse([], [text])


def test_file_that_imports_what_is_allowed_is_left_to_the_second_time(tmp_path):
    (tmp_path / "x.gin").write_text("import toy_never_imported\ntoy.width = 3\n")
    with pytest.raises(ConfigurationError, match="refused"):
        stand_ins.check([str(tmp_path / "x.gin")], [])
    stand_ins.check([str(tmp_path / "x.gin")], [], ["toy_never_imported"])
    assert "toy_never_imported" not in sys.modules


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_forbidden_import_is_refused_in_included_files_too(tmp_path, monkeypatch, depth):
    monkeypatch.chdir(tmp_path)
    for level in range(depth):
        Path(f"{level}.gin").write_text(f"include '{level + 1}.gin'\n")
    Path(f"{depth}.gin").write_text("\nimport antigravity\n")
    for check in (stand_ins.check, configuration.parse):
        with pytest.raises(ConfigurationError, match=rf'^{depth}.gin:2: import of "antigravity" refused'):
            check(["0.gin"], [])
    assert "antigravity" not in sys.modules


def test_a_text_is_free_only_where_any_text_may_stand():
    # Whatever else takes a text has its choices written down, and so is answered before TensorFlow is loaded.
    free = {"name", "env_id", "root_dir", "address"}
    for name, module in sources.names().items():
        for parameter, annotation in stand_ins.StandIn(name, module).__wrapped__.__annotations__.items():
            assert annotation not in (str, str | None) or parameter in free, f"{name}.{parameter}"


@pytest.mark.parametrize(
    "text",
    ["NaturalGradient.learnin_rate = 1.0", "Environment.env_id = ", "import os", "Environment.backend = 'async'"],
)
def test_launch_answers_a_wrong_file_without_tensorflow(tmp_path, text):
    """In a second or less then: nothing that takes time has been loaded."""
    (tmp_path / "x.gin").write_text(f"include '{ROOT}/gin/ngdqn_cartpole_v1.gin'\n{text}\n")
    code = (
        "import sys; from ngrl import launch\n"
        "code = launch.main(['--gin_file=x.gin'])\n"
        "assert not {'tensorflow', 'tf_agents', 'numpy', 'gymnasium'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("ngrl.launch: x.gin:2: ")
    assert [path.name for path in tmp_path.iterdir()] == ["x.gin"]


def test_macro_may_serve_what_may_change_on_resume_and_nothing_else():
    def identity(*bindings):
        return configuration.identity_of(configuration.read([], bindings))

    with_macro = identity("run.num_env_steps = %steps", "steps = 3", "Environment.env_id = 'a'")
    assert with_macro == {"Environment.env_id": "'a'", "run.num_env_steps": "3"}
    assert with_macro == identity("run.num_env_steps = 3", "Environment.env_id = 'a'")
    reference = identity("rate = 0.5", "s/Adam.learning_rate = %rate", "run.agent = %made", "made = @s/dqn_agent")
    assert reference == {"run.agent": "@s/dqn_agent", "s/Adam.learning_rate": "0.5"}
    nested = identity("n = 2", "Environment.kwargs = {'a': [%n, (%n,)]}")
    assert nested == {"Environment.kwargs": "{'a': [2, (2,)]}"}


def test_option_of_the_command_line_is_checked_against_what_main_runs():
    stand_ins.check([str(ROOT / "gin/dqn_lunar.gin")], [], entry_options={"seed": "1"})
    with pytest.raises(ConfigurationError, match='--seed: no parameter "seed" on geometry'):
        stand_ins.check([str(ROOT / "gin/examples/geometry.gin")], [], entry_options={"seed": "1"})


_EVERY = "fisher_every = n, which takes every n-th state: n = 1 / fisher_fraction"


@pytest.mark.parametrize(
    ("binding", "answer"),
    [
        ("NpgAgent.fisher_every = 2", 'no configurable "NpgAgent": it is now NaturalUpdate.fisher_every'),
        ("ngrl.TrpoAgent.fisher_every = 2", '"ngrl.TrpoAgent": it is now LineSearchedUpdate.fisher_every'),
        ("TrpoAgent.fisher_fraction = 0.1", f'"TrpoAgent": it is now LineSearchedUpdate.{_EVERY}'),
        ("LineSearchedUpdate.fisher_fraction = 0.1", f"on LineSearchedUpdate: it is now LineSearchedUpdate.{_EVERY}"),
        ("PpoAgent.clip_ratio = 0.1", '"PpoAgent": it is now ClippedUpdate.clip_ratio'),
        ("PpoAgent.entropy_weight = 0.1", '"PpoAgent": it is now OnPolicyAgent.entropy_weight'),
        ("NacAgent.compatible_critic = @LstdQ()", '"NacAgent": it is now CompatibleUpdate.compatible_critic'),
        ("ReinforceAgent.max_gradient_norm = 1.0", '"ReinforceAgent": it is now PlainUpdate.max_gradient_norm'),
        (
            "policy_agent.agent = @ReinforceAgent",
            '@ReinforceAgent: no configurable "ReinforceAgent": it is now policy_agent.update = @PlainUpdate',
        ),
        ("AcerAgent.gamma = 0.9", 'no parameter "gamma" on AcerAgent: it is now Retrace.gamma'),
        ("AcerAgent.trust_region = 0.1", '"trust_region" on AcerAgent: it is now TrustRegion.delta'),
    ],
)
@pytest.mark.parametrize("read", [stand_ins.check, configuration.read])
def test_former_name_is_answered_with_the_present_one(tmp_path, binding, answer, read):
    path = tmp_path / "x.gin"
    path.write_text(f"{binding}\n")
    with pytest.raises(ConfigurationError) as error:
        read([str(path)], [])
    assert "x.gin:1: " in str(error.value)
    assert str(error.value).endswith(answer)


def test_names_that_former_ones_are_answered_with_exist():
    for name, target in renamed._UPDATES.items():
        for answer in (renamed.present_name(name), renamed.present_name(name, "entropy_weight")):
            configurable, _, parameter = answer.partition(" = @")[0].partition(".")
            assert parameter in reader.settable_parameters(reader.find(configurable))[0]
        reader.find(target)
    for answer in renamed._PARAMETERS.values():
        configurable, _, parameter = answer.split()[0].partition(".")
        assert parameter in reader.settable_parameters(reader.find(configurable))[0]


def test_user_may_take_a_former_name():
    @gin.configurable("PpoAgent", module="mine")
    def mine(rate=1.0):
        return rate

    (binding,) = configuration.read([], ["PpoAgent.rate = 2.0"])
    assert binding.key == ("", "mine.PpoAgent", "rate")
    gin_config._REGISTRY.pop("mine.PpoAgent")
