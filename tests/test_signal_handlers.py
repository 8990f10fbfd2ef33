"""Who is told of a signal, and that whoever was told before is told afterwards."""

import contextlib
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from ngrl import evaluate, launch, report, sweep
from ngrl.reports import runs
from ngrl.signals import StopRequest, Terminated, exit_code, heed, terminable
from ngrl.studies import study
from ngrl.training import configurables, export

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def ours():
    """Handlers of our own, which stand for whatever was in place before; what they were told."""
    told = []
    before = {number: signal.signal(number, lambda number, frame: told.append(number)) for number in BOTH}
    yield told
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


def test_sigterm_ends_a_command_as_ctrl_c_does_with_a_code_of_its_own(ours):
    with pytest.raises(KeyboardInterrupt) as stopped, terminable():
        send(signal.SIGTERM)
    assert isinstance(stopped.value, Terminated)
    assert exit_code(stopped.value) == 143
    assert exit_code(KeyboardInterrupt()) == 130
    send(signal.SIGTERM)
    assert ours == [signal.SIGTERM]


def interrupt_plainly():
    """Make of any KeyboardInterrupt a plain one, as Ray does."""
    try:
        send(signal.SIGTERM)
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None


def test_sigterm_is_told_from_ctrl_c_whatever_a_library_makes_of_it():
    with pytest.raises(Terminated), terminable():
        interrupt_plainly()
    with pytest.raises(KeyboardInterrupt) as stopped, terminable():
        send(signal.SIGINT)
    assert not isinstance(stopped.value, Terminated)


@pytest.mark.parametrize("number", BOTH)
def test_first_signal_asks_to_stop_and_a_second_acts_as_usual(ours, number):
    with StopRequest() as stop:
        assert not stop.requested
        send(number)
        assert stop.requested
        assert stop.signal == number
        assert ours == []
        send(number)
        assert ours == [number]
    send(number)
    assert ours == [number, number]


def test_elsewhere_than_in_the_main_thread_signals_are_left_alone(ours):
    found = []

    def work():
        with terminable(), StopRequest() as stop:
            found.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    here = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, here)]


def swallow(number):
    """Make another exception of what a signal raises, as NumPy and environments do."""
    try:
        send(number)
    except KeyboardInterrupt as error:
        raise SystemError("returned a result with an exception set") from error


#: By command: itself, what stands for all that it does, and arguments that take it there.
COMMANDS = {
    "evaluate": (evaluate, (evaluate, "_evaluate"), ["--policy_dir=."]),
    "launch": (launch, (configurables, "main"), ["--gin_file=gin/ngdqn_cartpole_v1.gin", "--noprogress"]),
    "report": (report, (runs, "collect"), ["--runs=.", "--out=report"]),
    "sweep": (sweep, (study, "read"), ["--study=launch/paper.gin", "--noprogress"]),
}


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_say_that_they_were_stopped_whatever_compiled_code_makes_of_the_signal(
    name, number, tmp_path, monkeypatch, capfd
):
    command, replaced, arguments = COMMANDS[name]
    monkeypatch.setattr(*replaced, lambda *arguments, **options: swallow(number))
    monkeypatch.chdir(tmp_path)
    before = [signal.getsignal(number) for number in BOTH]
    assert command.main(arguments) == 128 + number
    told = capfd.readouterr().err
    assert f"ngrl.{name}: stopped" in told
    assert "SystemError" not in told
    assert [signal.getsignal(number) for number in BOTH] == before


def test_ctrl_c_that_is_ignored_stays_so_and_no_signal_is_remembered():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with terminable():
            send(signal.SIGINT)
            heed(ValueError())
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(Terminated), terminable():
        send(signal.SIGTERM)
    with terminable():
        heed(ValueError())


@pytest.mark.parametrize("number", BOTH)
def test_evaluation_stops_though_something_has_swallowed_the_signal(number, tmp_path, monkeypatch):
    played = []

    def actor(step):
        played.append(step)
        assert len(played) < 10
        if len(played) == 3:
            with contextlib.suppress(KeyboardInterrupt):
                send(number)
        return np.zeros(len(step.reward), np.int64)

    monkeypatch.setattr(export, "load_policy", lambda folder: (actor, {"env_id": "CartPole-v1"}))
    assert evaluate.main([f"--policy_dir={tmp_path}"]) == 128 + number
    assert len(played) == 3


@pytest.mark.parametrize("number", BOTH)
def test_processes_that_an_environment_forks_amid_a_run_end_by_signals(number):
    with terminable(), StopRequest() as stop:
        ready, told = os.pipe()
        copy = -1
        try:
            copy = os.fork()
            if not copy:
                os.write(told, b".")
                time.sleep(5)
        finally:  # whatever a signal raises
            if not copy:
                os._exit(0 if sys.exc_info()[0] is None else 3)
        os.read(ready, 1)
        os.kill(copy, number)
        status = os.waitpid(copy, 0)[1]
        assert not stop.requested
    assert os.waitstatus_to_exitcode(status) == (-number if number == signal.SIGTERM else 3)
