"""One poisoned file harms only itself: after a hang, a crash or a bomb in the child the next call works."""

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from data_pipeline.clip import Reason
from data_pipeline.isolation import IN_FLIGHT, ChildCrashed, ChildTimeout, Sandbox
from data_pipeline.media import MediaError, probe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[Sandbox]:
    with Sandbox(address_space_bytes=4 * 2**30, timeout_s=60, stall_timeout_s=60) as sandbox:
        yield sandbox


@pytest.fixture
def hasty_sandbox() -> Iterator[Sandbox]:
    with Sandbox(address_space_bytes=4 * 2**30, timeout_s=3.0, stall_timeout_s=1.0) as sandbox:
        sandbox.call(sleep_then, 0.0, "import this module once, before the clock matters")
        yield sandbox


def segfault() -> None:
    ctypes.string_at(0)


def allocate(n_bytes: int) -> int:
    return len(bytearray(n_bytes))


def leave(status: int) -> None:
    os._exit(status)


def sleep_then(seconds: float, value: str) -> str:
    time.sleep(seconds)
    return value


def count_into(path: Path, n_items: int) -> Iterator[int]:
    for item in range(n_items):
        path.write_text(str(item + 1))
        yield item


def items_then_sleep(n_items: int, seconds: float) -> Iterator[int]:
    yield from range(n_items)
    time.sleep(seconds)
    yield n_items


def items_then_fail(n_items: int) -> Iterator[int]:
    yield from range(n_items)
    raise MediaError(Reason.CORRUPT, "broken in the middle")


def arrays(n_items: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    for item in range(n_items):
        yield np.full(shape, item, np.uint8)


class Unpicklable(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def fail_unpicklably() -> None:
    raise Unpicklable("this ", "cannot travel")


def limits() -> tuple[int, int]:
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0], resource.getrlimit(resource.RLIMIT_CORE)[0]


def test_a_result_comes_back(shared_sandbox: Sandbox) -> None:
    assert shared_sandbox.call(math.hypot, 3.0, 4.0) == 5.0


def test_the_same_child_serves_every_call(shared_sandbox: Sandbox) -> None:
    assert shared_sandbox.call(os.getpid) == shared_sandbox.call(os.getpid) != os.getpid()


def test_limits_are_set_in_the_child_only(shared_sandbox: Sandbox) -> None:
    assert shared_sandbox.call(limits) == (4 * 2**30, 0)
    assert limits()[0] != 4 * 2**30


def test_an_exception_comes_back_as_itself(shared_sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        shared_sandbox.call(probe, tmp_path / "absent.mp4")
    assert caught.value.reason is Reason.MISSING
    assert "absent.mp4" in str(caught.value)
    assert any("in probe" in note for note in caught.value.__notes__)


def test_an_exception_that_cannot_travel_comes_back_as_its_text(shared_sandbox: Sandbox) -> None:
    with pytest.raises(RuntimeError, match="Unpicklable: this cannot travel"):
        shared_sandbox.call(fail_unpicklably)


def test_a_result_that_cannot_travel_is_an_error_and_no_hang(shared_sandbox: Sandbox) -> None:
    with pytest.raises(TypeError, match="pickle"):
        shared_sandbox.call(threading.Lock)
    assert shared_sandbox.call(abs, -1) == 1


def test_a_segmentation_fault_is_named_and_the_next_call_works(shared_sandbox: Sandbox) -> None:
    with pytest.raises(ChildCrashed, match="SIGSEGV"):
        shared_sandbox.call(segfault)
    assert shared_sandbox.call(abs, -2) == 2


def test_an_exit_of_the_child_is_named_and_the_next_call_works(shared_sandbox: Sandbox) -> None:
    with pytest.raises(ChildCrashed, match="exit status 7"):
        shared_sandbox.call(leave, 7)
    assert shared_sandbox.call(abs, -3) == 3


def test_too_much_memory_is_a_memory_error_with_the_limit(shared_sandbox: Sandbox) -> None:
    with pytest.raises(MemoryError, match=r"4\.0 GiB of address space"):
        shared_sandbox.call(allocate, 5 * 2**30)
    assert shared_sandbox.call(allocate, 2**20) == 2**20


def test_a_child_that_was_killed_while_idle_is_replaced_in_silence(shared_sandbox: Sandbox) -> None:
    pid = shared_sandbox.call(os.getpid)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # until it is gone, without taking note of it
    assert shared_sandbox.call(os.getpid) != pid


def test_a_hanging_call_is_killed_and_the_next_one_works(hasty_sandbox: Sandbox) -> None:
    pid = hasty_sandbox.call(os.getpid)
    with pytest.raises(ChildTimeout, match=r"sleep_then took longer than 3\.0 s"):
        hasty_sandbox.call(sleep_then, 60.0, "late")
    assert not psutil.pid_exists(pid)
    assert hasty_sandbox.call(sleep_then, 0.0, "in time") == "in time"


def test_a_call_may_take_longer_than_the_stall_limit_of_streams(hasty_sandbox: Sandbox) -> None:
    assert hasty_sandbox.call(sleep_then, 1.2, "done") == "done"


def test_a_stream_that_stalls_is_killed_after_its_last_item(hasty_sandbox: Sandbox) -> None:
    stream = hasty_sandbox.stream(items_then_sleep, 3, 60.0)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ChildTimeout, match="gave no item for"):
        next(stream)
    assert hasty_sandbox.call(abs, -4) == 4


def test_time_that_the_consumer_takes_does_not_count_against_a_stream(hasty_sandbox: Sandbox) -> None:
    taken = []
    for item in hasty_sandbox.stream(items_then_sleep, 2, 0.0):
        time.sleep(1.1)
        taken.append(item)
    assert taken == [0, 1, 2]


def test_items_of_a_stream_come_in_order_and_whole(shared_sandbox: Sandbox) -> None:
    shape = (512, 512, 3)
    items = list(shared_sandbox.stream(arrays, 20, shape))
    assert [item.shape for item in items] == [shape] * 20
    assert [int(item.min()) for item in items] == [int(item.max()) for item in items] == list(range(20))


def test_an_error_in_a_stream_comes_after_its_items(shared_sandbox: Sandbox) -> None:
    stream = shared_sandbox.stream(items_then_fail, 5)
    assert [next(stream) for _ in range(5)] == list(range(5))
    with pytest.raises(MediaError, match="broken in the middle"):
        next(stream)


def test_the_child_does_not_run_ahead_of_its_consumer(shared_sandbox: Sandbox, tmp_path: Path) -> None:
    made = tmp_path / "made"
    stream = shared_sandbox.stream(count_into, made, 1000)
    for n_taken in range(1, 6):
        next(stream)
        time.sleep(0.1)
        assert int(made.read_text()) <= n_taken + IN_FLIGHT
    stream.close()


def test_an_abandoned_stream_does_not_reach_into_the_next_call(
    shared_sandbox: Sandbox, tmp_path: Path
) -> None:
    pid = shared_sandbox.call(os.getpid)
    for item in shared_sandbox.stream(count_into, tmp_path / "made", 1000):
        if item == 3:
            break
    abandoned = shared_sandbox.stream(count_into, tmp_path / "made", 1000)
    next(abandoned)
    assert list(shared_sandbox.stream(items_then_sleep, 2, 0.0)) == [0, 1, 2]
    assert shared_sandbox.call(os.getpid) == pid
    with pytest.raises(RuntimeError, match="ended by a later call"):
        next(abandoned)


def test_a_stream_abandoned_while_its_maker_hangs_costs_a_child_and_nothing_else(
    shared_sandbox: Sandbox,
) -> None:
    stream = shared_sandbox.stream(items_then_sleep, 1, 60.0)
    next(stream)
    stream.close()
    assert shared_sandbox.call(abs, -5) == 5


def test_a_sandbox_outlives_the_thread_that_first_used_it() -> None:
    with Sandbox(address_space_bytes=4 * 2**30, timeout_s=60, stall_timeout_s=60) as sandbox:
        pids: list[int] = []
        thread = threading.Thread(target=lambda: pids.append(sandbox.call(os.getpid)))
        thread.start()
        thread.join()
        time.sleep(0.2)
        assert sandbox.call(os.getpid) == pids[0]


def test_a_parent_killed_with_sigkill_takes_a_busy_child_with_it() -> None:
    script = (
        "import os, time, sys\n"
        "from data_pipeline.isolation import Sandbox\n"
        "sandbox = Sandbox(address_space_bytes=4 * 2**30, timeout_s=600, stall_timeout_s=600)\n"
        "print(sandbox.call(os.getpid), flush=True)\n"
        "sandbox.call(time.sleep, 600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.2)
        parent.send_signal(signal.SIGKILL)
    child.wait(timeout=5)
    assert not child.is_running()


def test_close_ends_the_child_and_a_later_call_starts_another() -> None:
    sandbox = Sandbox(address_space_bytes=4 * 2**30, timeout_s=60, stall_timeout_s=60)
    pid = sandbox.call(os.getpid)
    sandbox.close()
    assert not psutil.pid_exists(pid)
    assert sandbox.call(os.getpid) != pid
    sandbox.close()
