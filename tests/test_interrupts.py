from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from vitreous import interrupts
from vitreous.interrupts import Terminated, ended_by_signals, stop_when_ready, stopped_by_signals


@pytest.mark.parametrize("number, kind", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_is_noted_and_interrupts_nothing(number: signal.Signals, kind: type[BaseException]) -> None:
    before = signal.getsignal(number)
    with stop_when_ready() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked and stop.signal == number
        assert type(stop.interrupt("saved")) is kind and str(stop.interrupt("saved")) == "saved"
    assert signal.getsignal(number) == before


def test_a_second_signal_ends_the_work_at_once_but_its_echo_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with stop_when_ready() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # torchrun passes on what its processes got, too
        now[0] += interrupts.AT_ONCE + 0.1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGTERM


def test_inside_what_is_stopped_by_signals_they_wait_for_the_step() -> None:
    with stopped_by_signals():
        with stop_when_ready() as stop:
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)


def test_in_another_thread_nothing_is_ever_asked() -> None:
    found: list[bool] = []

    def work() -> None:
        with stop_when_ready() as stop, stopped_by_signals():
            found.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


def test_signals_end_at_once_what_waits_outside_of_python_and_are_handled_again_afterwards() -> None:
    with stopped_by_signals():
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with ended_by_signals():
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == [signal.SIG_DFL] * 2
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)


def test_a_terminal_that_goes_away_stops_nothing() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with stop_when_ready() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.asked
    assert signal.getsignal(signal.SIGHUP) == before
