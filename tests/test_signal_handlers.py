"""Who is told of a signal, and that whoever was told before is told afterwards."""

import os
import signal
import threading

import pytest

from ngrl.signals import StopRequest, Terminated, exit_code, terminable

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
