import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import gin
import pytest

from ngrl import configuration
from ngrl.configuration.binding import ConfigurationError


class ToySolver:
    def __init__(self, rtol: float = 1e-6, max_iterations: int = 10):
        if rtol <= 0:
            raise ValueError(f"rtol must be positive, got {rtol}")
        self.rtol = rtol
        self.max_iterations = max_iterations


@gin.configurable(module="toy")
class ToyOptimizer:
    def __init__(
        self,
        learning_rate: float = 0.1,
        solver: ToySolver | None = None,
        outputs: Literal["chosen", "all"] = "chosen",
        name="toy",
    ):
        self.learning_rate = learning_rate
        self.solver = solver
        self.outputs = outputs
        self.name = name


@gin.configurable(module="toy")
@dataclasses.dataclass
class ToySettings:
    layers: Sequence[int] = (64,)
    verbose: bool = False


@gin.configurable(module="toy", denylist=["secret"])
def toy_run(
    num_env_steps: int = 1,
    env_id: str = "Toy-v0",
    optimizer: ToyOptimizer | None = None,
    factory: Callable[..., Any] | None = None,
    anything=None,
    secret: int = 0,
) -> dict[str, Any]:
    return dict(locals())


@gin.configurable(module="toy")
def toy_open(width: int = 1, **options: Any) -> dict[str, Any]:
    return {"width": width, **options}


@gin.configurable(module="toy")
def toy_needs(optimizer: ToyOptimizer, *, seed: int) -> None:
    pass


@gin.configurable(module="toy")
def toy_required(optimizer: ToyOptimizer = gin.REQUIRED) -> None:
    toy_run()


@gin.configurable(module="toy")
def toy_fails(message: str, env_id: str = "") -> None:
    raise KeyError(message) if message == "key" else ValueError(message)


def _same_name() -> str:
    return "other"


def _same_name_of_ngrl() -> str:
    return "ngrl"


gin.external_configurable(ToySolver, name="ToySolver", module="toy")
gin.external_configurable(_same_name, name="toy_twice", module="toy.a")
gin.external_configurable(_same_name_of_ngrl, name="toy_twice", module="ngrl.toy")
gin.external_configurable(lambda: 1, name="toy_unclear", module="toy.a")
gin.external_configurable(lambda: 2, name="toy_unclear", module="toy.b")


@pytest.fixture(autouse=True)
def _fresh_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gin.clear_config()
    yield
    gin.clear_config()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def error_of(text, tmp_path, bindings=()):
    """The message for a file x.gin with this text; nothing may be bound after it."""
    write(tmp_path / "x.gin", text)
    with pytest.raises(ConfigurationError) as caught:
        configuration.parse(["x.gin"], bindings)
    assert "\n" not in str(caught.value)
    assert configuration.bindings() == {}
    return str(caught.value)


def test_files_then_bindings_are_bound_in_order(tmp_path):
    write(tmp_path / "a.gin", "toy_run.num_env_steps = 1\ntoy_run.env_id = 'A'\n")
    write(tmp_path / "b.gin", "toy_run.num_env_steps = 2\ntoy_run.factory = @ToySolver\n")
    configuration.parse(["a.gin", "b.gin"], ["toy_run.anything=[1, 'x', {'k': @ToySolver()}]"])
    values = toy_run()
    assert (values["num_env_steps"], values["env_id"]) == (2, "A")
    assert isinstance(values["factory"](), ToySolver)
    assert isinstance(values["anything"][2]["k"], ToySolver)


def test_scopes_macros_and_blocks_are_understood(tmp_path):
    text = """
steps = %more/steps
more/steps = 7

toy_run:
  num_env_steps = %steps  # a macro through a macro
  optimizer = @fast/ToyOptimizer()

fast/ToyOptimizer.learning_rate = 2
"""
    write(tmp_path / "x.gin", text)
    configuration.parse(["x.gin"], ["steps=8", "slow/toy_run.env_id='Slow'"])
    assert toy_run()["num_env_steps"] == 8
    assert toy_run()["optimizer"].learning_rate == 2
    with gin.config_scope("slow"):
        assert toy_run()["env_id"] == "Slow"


@pytest.mark.parametrize("include", ["base/b.gin", "gin/base/b.gin"])
@pytest.mark.parametrize("folder", ["gin", "gin/paper", "gin/base"])
def test_includes_are_found_from_any_current_folder(tmp_path, monkeypatch, include, folder):
    write(tmp_path / "gin/base/b.gin", "include 'c.gin'\n")
    write(tmp_path / "gin/base/c.gin", "toy_run.num_env_steps = 5\n")
    path = write(tmp_path / folder / "x.gin", f"include '{include}'\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    configuration.parse([path], [])
    assert toy_run()["num_env_steps"] == 5


def test_include_is_found_in_the_current_folder(tmp_path, monkeypatch):
    path = write(tmp_path / "far/away/from/x.gin", "include 'here.gin'\n")
    write(tmp_path / "work/here.gin", "toy_run.num_env_steps = 5\n")
    monkeypatch.chdir(tmp_path / "work")
    configuration.parse([path], [])
    assert toy_run()["num_env_steps"] == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Names.
        (
            "\nToyOptimizer.learnin_rate = 1",
            'x.gin:2: no parameter "learnin_rate" on ToyOptimizer; did you mean "learning_rate"?',
        ),
        ("ToyOptimiser.name = 1", 'x.gin:1: no configurable "ToyOptimiser"; did you mean "ToyOptimizer"?'),
        (
            "# a\nToyOptimiser:\n  name = 1",
            'x.gin:2: no configurable "ToyOptimiser"; did you mean "ToyOptimizer"?',
        ),
        (
            "toy_run:\n  env_id = 'a'\n  # b\n  num_env_step = 1",
            'x.gin:4: no parameter "num_env_step" on toy_run; did you mean "num_env_steps"?',
        ),
        (
            "ToySettings.layer = (1,)",
            'x.gin:1: no parameter "layer" on ToySettings; did you mean "layers"?',
        ),
        ("s/toy_run.xyz = 1", 'x.gin:1: no parameter "xyz" on toy_run'),
        ("toy_run.secret = 1", 'x.gin:1: parameter "secret" of toy_run is not for gin files'),
        (
            "toy_run.optimizer = @ToyOptimiser()",
            'x.gin:1: @ToyOptimiser: no configurable "ToyOptimiser"; did you mean "ToyOptimizer"?',
        ),
        (
            "toy_run.anything = {'a': [@toy_rum]}",
            'x.gin:1: @toy_rum: no configurable "toy_rum"; did you mean "toy_run"?',
        ),
        (
            "steps = 1\ntoy_run.num_env_steps = %stops\ntoy_run.anything = %steps",
            'x.gin:2: no macro %stops; did you mean "steps"?',
        ),
        ("a = %b\nb = [%a]\ntoy_run.anything = %a", "x.gin:1: the macro %b is defined by itself"),
        (
            "num_env_steps = 3\ntoy_run.num_env_steps = 4",
            'x.gin:1: nothing uses the macro "num_env_steps"; did you mean "toy_run.num_env_steps"?',
        ),
        (
            "toy_unclear.x = 1",
            'x.gin:1: "toy_unclear" is ambiguous: write toy.a.toy_unclear or toy.b.toy_unclear',
        ),
        # Types.
        (
            "ToyOptimizer.learning_rate = '0.1'",
            'x.gin:1: ToyOptimizer.learning_rate must be float, got "0.1", a str; write 0.1',
        ),
        ("toy_run.num_env_steps = True", "x.gin:1: toy_run.num_env_steps must be int, got True, a bool"),
        ("toy_run.env_id = None", "x.gin:1: toy_run.env_id must be str, got None"),
        (
            "rate = 'high'\nToyOptimizer.learning_rate = %rate",
            'x.gin:2: ToyOptimizer.learning_rate must be float, got "high", a str (through %rate)',
        ),
        (
            "ToyOptimizer.outputs = 'chosn'",
            'x.gin:1: ToyOptimizer.outputs must be one of "chosen", "all", got "chosn", a str; did you mean "chosen"?',
        ),
        (
            "ToyOptimizer.solver = @ToySolver",
            "x.gin:1: ToyOptimizer.solver must be ToySolver or None, got @ToySolver; write @ToySolver()",
        ),
        (
            "toy_run.optimizer = @ToySolver()",
            "x.gin:1: toy_run.optimizer must be ToyOptimizer or None, got @ToySolver()",
        ),
        (
            "ToySettings.layers = (64)",
            "x.gin:1: ToySettings.layers must be a sequence of int, got 64, an int; write (64,)",
        ),
        (
            "toy_run.env_id = %gin.REQUIRED",
            "x.gin:1: toy_run.env_id still needs a value in place of %gin.REQUIRED",
        ),
        # Syntax.
        ("toy_run.env_id = ", "x.gin:1: syntax error: unable to parse value, in: toy_run.env_id ="),
        (
            "\n\ntoy_run.env_id",
            "x.gin:3: syntax error: couldn't parse statement, expected ':' or '=', in: toy_run.env_id",
        ),
        (
            "toy_run.anything = true",
            "x.gin:1: syntax error: true is no value; write True, in: toy_run.anything = true",
        ),
        (
            "toy_run.factory = ToySolver",
            'x.gin:1: syntax error: ToySolver is no value; write "ToySolver" for a string, '
            "@ToySolver or %ToySolver, in: toy_run.factory = ToySolver",
        ),
        (
            "toy_run.env_id = 'a'\ntoy_run.anything = (1,\n  2\n",
            "x.gin:2: syntax error: a bracket or string is never closed, in: toy_run.anything = (1,",
        ),
        ("toy_run.anything = 1 + 1", "x.gin:1: syntax error: expected newline, in: toy_run.anything = 1 + 1"),
        # Includes and imports.
        ("\ninclude 'y.gin'", 'x.gin:2: no file "y.gin"; did you mean "x.gin"?'),
        ("include 'x.gin'", 'x.gin:1: include "x.gin" comes back to a file that is still being read'),
        (
            "import toy_module",
            'x.gin:1: import of "toy_module" refused: a gin file may import only ngrl\'s modules '
            "(--allow_gin_import=toy_module allows it)",
        ),
        ("import ngrl.nothing", "x.gin:1: cannot import \"ngrl.nothing\": No module named 'ngrl.nothing'"),
    ],
)
def test_fault_is_one_line_with_its_place_and_the_nearest_name(tmp_path, text, message):
    assert error_of(text, tmp_path) == message


def test_fault_in_a_binding_names_the_flag(tmp_path):
    message = error_of("toy_run.env_id = 'a'", tmp_path, ["toy_run.num_env_steps='1'"])
    assert message == (
        '--gin_bindings "toy_run.num_env_steps=\'1\'": toy_run.num_env_steps must be int, got "1", a str; write 1'
    )
    message = error_of("toy_run.env_id = 'a'", tmp_path, ["toy_run.num_env_step=1"])
    assert message.startswith("--gin_bindings 'toy_run.num_env_step=1': no parameter \"num_env_step\" on toy_run;")


def test_what_an_option_sets_is_not_to_be_set_beside_it(tmp_path):
    write(tmp_path / "x.gin", "run.seed = 3\n")
    configuration.parse(["x.gin"], [], entry_options={"seed": "1"})  # a file's is a default
    with pytest.raises(ConfigurationError) as caught:
        configuration.parse(["x.gin"], ["run.seed=2"], entry_options={"seed": "1"})
    assert str(caught.value) == "--gin_bindings 'run.seed=2': --seed sets run.seed too: give one of them"


@pytest.mark.parametrize(
    ("binding", "fault"),
    [
        ("main.entry=@Environment", "must be a function that takes a run's context, as @run, got @Environment"),
        ("Adam.learning_rate=-1.0", "must be finite and not negative, got -1.0"),
        ("PolynomialDecay.initial_learning_rate=1e400", "must be finite and not negative, got inf"),
    ],
)
def test_what_nothing_could_work_with_is_refused(binding, fault, tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        configuration.parse([], [binding])
    assert str(caught.value) == f"--gin_bindings '{binding}': {binding.partition('=')[0]} {fault}"


def test_fault_in_an_included_file_names_that_file(tmp_path):
    write(tmp_path / "base/b.gin", "\n\ntoy_run.x = 1\n")
    assert error_of("include 'base/b.gin'", tmp_path) == 'base/b.gin:3: no parameter "x" on toy_run'


def test_missing_file_suggests_the_nearest(tmp_path):
    write(tmp_path / "gin/lunar.gin", "")
    for name, message in [
        ("gin/lunr.gin", 'no file "gin/lunr.gin"; did you mean "gin/lunar.gin"?'),
        ("gin", '"gin" is a folder, not a gin file'),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            configuration.parse([name], [])
        assert str(caught.value) == message


def test_binary_file_is_refused(tmp_path):
    (tmp_path / "x.gin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"^x\.gin: is not a text file$"):
        configuration.parse(["x.gin"], [])


def test_only_the_value_in_force_is_checked(tmp_path):
    write(tmp_path / "x.gin", "toy_run.num_env_steps = %gin.REQUIRED\ntoy_run.env_id = 'a'\n")
    configuration.parse(["x.gin"], ["toy_run.num_env_steps=3"])
    assert toy_run()["num_env_steps"] == 3


def test_parameters_of_open_and_unannotated_functions_take_anything(tmp_path):
    text = "toy_open.width = 2\ntoy_open.other = 'x'\nToyOptimizer.name = 3\ntoy_run.anything = (1, None)\n"
    write(tmp_path / "x.gin", text)
    configuration.parse(["x.gin"], [])
    assert toy_open() == {"width": 2, "other": "x"}


def test_annotated_parameters_of_open_functions_are_checked(tmp_path):
    message = error_of("toy_open.width = '2'", tmp_path)
    assert message == 'x.gin:1: toy_open.width must be int, got "2", a str; write 2'


def test_ngrl_wins_where_another_package_registered_the_same_name():
    configuration.parse([], ["toy_run.anything=@toy_twice()"])
    assert toy_run()["anything"] == "ngrl"


def test_allowed_module_is_imported_and_its_configurables_can_be_bound(tmp_path, monkeypatch):
    write(
        tmp_path / "toy_allowed_module.py",
        "import gin\n\n@gin.configurable\ndef toy_imported(x: int = 1):\n    return x\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path / "x.gin", "import toy_allowed_module\ntoy_imported.x = 4\n")
    with pytest.raises(ConfigurationError, match="refused"):
        configuration.parse(["x.gin"], [], allow_gin_import=["toy_allowed"])
    assert "toy_allowed_module" not in sys.modules
    configuration.parse(["x.gin"], [], allow_gin_import=["toy_allowed_module"])
    assert sys.modules["toy_allowed_module"].toy_imported() == 4


def test_operative_configuration_can_be_parsed_again(tmp_path):
    text = "rate = 0.5\ntoy_run.optimizer = @s/ToyOptimizer()\ns/ToyOptimizer.learning_rate = %rate\n"
    write(tmp_path / "x.gin", text)
    configuration.parse(["x.gin"], ["toy_run.anything=@toy_twice"])
    toy_run()
    operative = gin.operative_config_str()
    assert "toy_run.num_env_steps = 1" in operative
    gin.clear_config()
    write(tmp_path / "operative.gin", operative)
    configuration.parse(["operative.gin"], [])
    values = toy_run()
    assert values["optimizer"].learning_rate == 0.5
    assert values["anything"]() == "ngrl"


def test_bindings_are_told_with_value_and_place(tmp_path):
    write(tmp_path / "x.gin", "\ns/toy_run.env_id = 'a'\nsteps = 3\n")
    configuration.parse(["x.gin"], ["toy_run.num_env_steps=%steps"])
    assert configuration.bindings() == {
        "s/toy_run.env_id": "'a'",
        "steps": "3",
        "toy_run.num_env_steps": "%steps",
    }
    assert {configuration.name_of(key): where for key, where in configuration.locations().items()} == {
        "s/toy_run.env_id": "x.gin:2",
        "steps": "x.gin:3",
        "toy_run.num_env_steps": "--gin_bindings 'toy_run.num_env_steps=%steps'",
    }


def message_of(function):
    try:
        function()
    except Exception as error:
        return configuration.one_line(error)
    raise AssertionError("nothing was raised")


def test_error_from_a_configurable_is_told_in_one_line_with_the_place_of_the_binding(tmp_path):
    write(tmp_path / "x.gin", "toy_run.optimizer = @ToyOptimizer()\nToyOptimizer.solver = @ToySolver()\n")
    configuration.parse(["x.gin"], ["ToySolver.rtol=-1"])
    assert message_of(toy_run) == ("--gin_bindings 'ToySolver.rtol=-1': ToySolver: rtol must be positive, got -1")


def test_error_that_quotes_a_bound_value_is_told_with_its_place(tmp_path):
    write(tmp_path / "x.gin", "\ntoy_fails.message = \"no environment 'Lunr'\"\n")
    configuration.parse(["x.gin"], ["toy_fails.env_id='Lunr'"])
    assert message_of(toy_fails) == ("--gin_bindings \"toy_fails.env_id='Lunr'\": toy_fails: no environment 'Lunr'")


@pytest.mark.parametrize(
    ("message", "place"),
    [("unknown anything 'Lunr'", "x.gin:1: "), ("num_env_steps must be even", "x.gin:2: "), ("anything goes", "")],
)
def test_error_names_the_place_of_what_another_part_was_given(tmp_path, message, place):
    """Of values that were bound for others only a text that is quoted, or a name that is no word, can tell."""
    write(tmp_path / "x.gin", "toy_run.env_id = 'Lunr'\ntoy_run.num_env_steps = 3\ntoy_run.anything = True\n")
    configuration.parse(["x.gin"], [])
    assert message_of(lambda: toy_fails(message)) == f"{place}toy_fails: {message}"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("toy_fails: no more", "toy_fails: no more"),
        ("can't be made with {'num_env_steps': 3}: no", "toy_fails: can't be made with {'num_env_steps': 3}: no"),
        ("no {'num_env_steps': 3}: anything=True", "x.gin:3: toy_fails: no {'num_env_steps': 3}: anything=True"),
    ],
)
def test_what_an_error_repeats_is_not_blamed(tmp_path, message, told):
    """Neither the name of who raises it, nor keys of a dictionary; a binding that it repeats is."""
    write(tmp_path / "x.gin", "toy_run.env_id = 'Lunr'\ntoy_run.num_env_steps = 3\ntoy_run.anything = True\n")
    configuration.parse(["x.gin"], [])
    assert message_of(lambda: toy_fails(message)) == told


def test_missing_values_are_told_in_one_line():
    assert message_of(toy_required) == "toy_required needs a value for optimizer: bind toy_required.optimizer"
    assert message_of(toy_needs) == "toy_needs needs a value for optimizer: bind toy_needs.optimizer"
    assert message_of(lambda: toy_needs(None)) == "toy_needs needs a value for seed: bind toy_needs.seed"


def test_missing_value_is_known_from_faults_of_a_program():
    with pytest.raises(RuntimeError) as missing:
        toy_required()
    assert configuration.lacks_value(missing.value)
    assert not configuration.lacks_value(RuntimeError("it broke"))
    assert not configuration.lacks_value(ValueError(str(missing.value)))


def test_other_errors_keep_their_first_line():
    assert message_of(lambda: toy_fails("it broke\n  at depth 3\n  in /some/place")) == "toy_fails: it broke"
    assert message_of(lambda: toy_fails("it broke:\n  no width\n")) == "toy_fails: it broke: no width"
    assert message_of(lambda: toy_fails("key")) == "toy_fails: no 'key'"
    assert configuration.one_line(ValueError("plain")) == "plain"
    assert configuration.one_line(ConfigurationError("x.gin:1: no")) == "x.gin:1: no"
    assert configuration.one_line(ZeroDivisionError()) == "ZeroDivisionError"
