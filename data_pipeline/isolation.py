"""Isolation: functions run in a child process with limits, so that one poisoned file harms only itself.

    Sandbox.call(function, ...)   -> its result, or the exception that it raised
    Sandbox.stream(generator, ..) -> its items as they are made, a few in flight at most

The child is a fresh interpreter that is started by the first call and kept, so that imports are paid
once. One that hangs, dies or runs out of memory is replaced before the next call. It has a limit on its
address space, leaves no core dump, and the kernel ends it when the parent dies, however the parent dies.

The parent sends (function, arguments) in pickled form, so both must be importable by name. The child
answers with messages (kind, value); in a stream the parent grants it one more item for each one taken.

The child may run on another interpreter, of an environment whose libraries do not go with ours. Then of
ours it sees this package and nothing else.
"""

import contextlib
import ctypes
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

IN_FLIGHT = 2
"""Items of a stream that may be made before the consumer has taken the first of them."""

_START_TIMEOUT_S = 120.0  # of a bare interpreter on a busy machine
_STOP_TIMEOUT_S = 2.0  # for a child to leave an abandoned stream; a new one costs less than a longer wait
_PR_SET_PDEATHSIG = 1

_RESULT, _ITEM, _END, _ERROR, _MORE, _STOP = "result", "item", "end", "error", "more", "stop"

_SERVE = "; from data_pipeline import isolation; isolation.serve({arguments})"
_BOOT = "import sys; sys.path[:] = {path!r}" + _SERVE
_BOOT_ELSEWHERE = (
    "import sys; from importlib import util; "
    "spec = util.spec_from_file_location('data_pipeline', {package!r}); "
    "package = sys.modules['data_pipeline'] = util.module_from_spec(spec); spec.loader.exec_module(package)"
) + _SERVE
_PACKAGE = str(Path(__file__).with_name("__init__.py"))


class ChildTimeout(Exception):
    """The function took longer than it may; its process was killed."""


class ChildCrashed(Exception):
    """The process died under the function; the text names the signal or the exit status."""


class Sandbox:
    """One child process. Not for use by two threads at a time.

    `timeout_s` limits what a caller waits for one call, `stall_timeout_s` what it waits for one item of a
    stream; a stream may be as long as it likes, and time that its consumer takes does not count.
    `address_space_bytes` None sets no limit, which CUDA needs. `python` is the interpreter (3.11 or later),
    ours by default. `on_start` is called in every new child before its first request, and may take
    `start_timeout_s`.
    """

    def __init__(
        self,
        *,
        address_space_bytes: int | None,
        timeout_s: float,
        stall_timeout_s: float,
        python: Path | None = None,
        on_start: Callable[[], object] | None = None,
        start_timeout_s: float = _START_TIMEOUT_S,
    ) -> None:
        self._address_space_bytes = address_space_bytes
        self._timeout_s = timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._python = python
        self._on_start = on_start
        self._start_timeout_s = start_timeout_s
        # PR_SET_PDEATHSIG fires when the *thread* that started the child ends: start it from one that stays.
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="sandbox-spawner")
        self._child: _Child | None = None
        self._open_stream: object | None = None

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the child now, unless one is alive. Raises what `call` raises, and what `on_start` raises."""
        self._started()

    def call(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """What the function returns; what it raises is raised here.

        Raises ChildTimeout, ChildCrashed, MemoryError (more than `address_space_bytes`).
        """
        child = self._request(function, args, kwargs, streaming=False)
        return child.receive(self._timeout_s, f"{_name(function)} took longer than")[1]

    def stream(self, function: Callable, *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        """The items of a generator function, made at most IN_FLIGHT ahead of their use.

        Raises what `call` raises. A consumer may stop at any item.
        """
        child = self._request(function, args, kwargs, streaming=True)
        mine = self._open_stream = object()
        try:
            while True:
                kind, value = child.receive(self._stall_timeout_s, f"{_name(function)} gave no item for")
                if kind == _END:
                    return
                yield value
                if self._open_stream is not mine:
                    raise RuntimeError(f"this stream of {_name(function)} was ended by a later call")
                child.send(_MORE)
        except GeneratorExit:
            if self._open_stream is mine:
                self._leave_stream(child)
            raise
        finally:
            if self._open_stream is mine:
                self._open_stream = None

    def close(self) -> None:
        """End the child. The next call starts another."""
        if self._child is not None:
            self._child.kill()
        self._child = None

    def _request(self, function: Callable, args: tuple, kwargs: dict, *, streaming: bool) -> "_Child":
        message = pickle.dumps((function, args, kwargs, streaming))
        if self._child is not None and self._open_stream is not None:
            self._leave_stream(self._child)
        child = self._started()
        child.send_bytes(message)
        return child

    def _started(self) -> "_Child":
        if self._child is None or not self._child.is_alive():
            self.close()
            child = self._spawner.submit(_Child, self._address_space_bytes, self._python).result()
            if self._on_start is not None:
                self._make_ready(child, self._on_start)
            self._child = child
        return self._child

    def _make_ready(self, child: "_Child", on_start: Callable[[], object]) -> None:
        try:
            child.send_bytes(pickle.dumps((on_start, (), {}, False)))
            child.receive(self._start_timeout_s, "the child was not ready within")
        except BaseException:
            child.kill()
            raise

    def _leave_stream(self, child: "_Child") -> None:
        """Leave a stream before its end: the child is told to stop, and killed where it does not listen."""
        self._open_stream = None
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        with contextlib.suppress(Exception):  # whatever it had left to say concerns nobody any more
            child.send(_STOP)
            while child.receive(deadline - time.monotonic(), "the stream did not stop within")[0] != _END:
                continue


class _Child:
    """A running child process, seen from the parent."""

    def __init__(self, address_space_bytes: int | None, python: Path | None) -> None:
        self._connection, theirs = Pipe()
        arguments = f"{theirs.fileno()}, {os.getpid()}, {address_space_bytes}"
        if python is None:
            command = [sys.executable, "-c", _BOOT.format(path=sys.path, arguments=arguments)]
        else:  # -I: neither the folder it is started in nor PYTHONPATH lends it libraries
            arguments += ", elsewhere=True"
            command = [str(python), "-I", "-c", _BOOT_ELSEWHERE.format(package=_PACKAGE, arguments=arguments)]
        with theirs:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        self.receive(_START_TIMEOUT_S, "the child interpreter did not start within")

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, word: str) -> None:
        self.send_bytes(pickle.dumps(word))

    def send_bytes(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except OSError:
            raise ChildCrashed(self._obituary()) from None

    def receive(self, timeout_s: float, complaint: str) -> tuple[str, Any]:
        """The next message; an _ERROR is raised. Past the timeout the child is killed."""
        try:
            if not self._connection.poll(max(timeout_s, 0.0)):
                self.kill()
                raise ChildTimeout(f"{complaint} {timeout_s:.1f} s")
            kind, value = self._connection.recv()
        except (EOFError, OSError):
            raise ChildCrashed(self._obituary()) from None
        if kind != _ERROR:
            return kind, value
        if isinstance(value, MemoryError):  # what it still holds is not known: the next call gets a fresh one
            self.kill()
        raise value

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _obituary(self) -> str:
        """How it died."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT_S)
        status = self._process.poll()
        self.kill()
        if status is None:
            return "the child process closed its pipe and was killed"
        if status < 0:
            return f"the child process was killed by {signal.Signals(-status).name}"
        return f"the child process ended with exit status {status}"


def serve(
    descriptor: int, parent_pid: int, address_space_bytes: int | None, *, elsewhere: bool = False
) -> None:
    """The child's life: one request after another, until the parent closes the pipe.

    `elsewhere`: it has libraries that the parent may not have, and their exceptions go as text."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before it could be watched
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if address_space_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes, address_space_bytes))
    with Connection(descriptor) as connection:
        connection.send((_RESULT, None))
        while True:
            try:
                message = connection.recv_bytes()
            except EOFError:
                return
            answer = _answer(connection, message, elsewhere)
            if answer is not None:
                connection.send_bytes(answer)


def _answer(connection: Connection, message: bytes, elsewhere: bool) -> bytes | None:
    """The last message about one request, pickled; None to a word about a stream that is over."""
    try:
        request = pickle.loads(message)  # noqa: S301 - from our own parent
        if isinstance(request, str):
            return None
        function, args, kwargs, streaming = request
        if streaming:
            _stream(connection, function(*args, **kwargs))
            return pickle.dumps((_END, None))
        return pickle.dumps((_RESULT, function(*args, **kwargs)))
    except MemoryError:
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        given = (
            "this machine has"
            if limit == resource.RLIM_INFINITY
            else f"{limit / 2**30:.1f} GiB of address space"
        )
        return pickle.dumps((_ERROR, MemoryError(f"needs more than {given}")))
    except Exception as failure:  # noqa: BLE001 - whatever it is, it is the parent's
        return pickle.dumps((_ERROR, _portable(failure, elsewhere)))


def _stream(connection: Connection, items: Generator) -> None:
    """Send items while the parent grants them, until it says stop."""
    granted = IN_FLIGHT
    with contextlib.closing(items):
        for item in items:
            connection.send((_ITEM, item))
            granted -= 1
            while granted == 0 or connection.poll():
                if connection.recv() == _STOP:
                    return
                granted += 1


def _portable(failure: Exception, elsewhere: bool) -> Exception:
    """The exception with the child's traceback as a note, or its text where the parent could not read it."""
    failure.add_note("In the child process:\n" + traceback.format_exc())
    as_text = RuntimeError(f"{type(failure).__name__}: {failure}")
    if elsewhere and type(failure).__module__.partition(".")[0] not in ("builtins", "data_pipeline"):
        return as_text
    try:
        pickle.loads(pickle.dumps(failure))  # noqa: S301 - what this line made
    except Exception:  # noqa: BLE001 - an exception's own pickling code may raise anything
        return as_text
    return failure


def _name(function: Callable) -> str:
    return getattr(function, "__qualname__", repr(function))
