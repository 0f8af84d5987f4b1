"""`hallo3 app`: the web page of one model, on this machine alone unless it is asked for more."""

import argparse
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from cluster.animate import add_sampling, device_of, loader, sampling_of
from cluster.arguments import positive

PROBLEM, WRONG_INPUT = 1, 2
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`app` and its options."""
    text = "the same as animate, in a browser"
    command = commands.add_parser("app", help=text, description=text)
    command.add_argument(
        "--checkpoint", metavar="C", help="a run, its export, or Hallo3's weights", required=True, type=Path
    )
    command.add_argument("--host", default="127.0.0.1", help="0.0.0.0: whoever reaches this machine")
    command.add_argument("--port", default=7860, type=positive)
    add_sampling(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; the exit status."""
    if not options.checkpoint.exists():
        return _fail(f"{options.checkpoint}: no such file or folder", WRONG_INPUT)
    problem = _not_free(options.host, options.port)
    if problem:
        return _fail(problem, WRONG_INPUT)
    try:
        from evaluation.animator import WRONG_INPUTS
        from evaluation.app import serving
    except ModuleNotFoundError as error:
        return _fail(f"the page needs {error.name}; pip install 'hallo3[train,eval,app]'", PROBLEM)
    try:
        animator = loader(options)(device=device_of(options))
    except WRONG_INPUTS as error:
        return _fail(error, WRONG_INPUT)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signer = animator.credentials.signer if animator.credentials else None
    begins_with = sampling_of(options), options.seed
    try:
        with serving(animator, *begins_with, options.host, options.port, signer) as page:
            if options.host not in LOOPBACK:
                print("hallo3: whoever reaches this machine can use the page", file=sys.stderr)
            print(f"{page.address} (Ctrl-C ends it)", flush=True)
            threading.Event().wait()
    except OSError:
        return _fail(_not_free(options.host, options.port) or "the page cannot be served", WRONG_INPUT)
    except KeyboardInterrupt:
        if page.still_works:
            os._exit(0)  # the interpreter does not end well beside a thread that is inside torch
    return 0


def _not_free(host: str, port: int) -> str | None:
    """Why no page can be served there; known before a model is loaded, which takes minutes."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address[0], port))
    except (OSError, OverflowError) as error:
        words = getattr(error, "strerror", None) or error
        return f"--host {host} --port {port}: {words}; give another one"
    return None


def _fail(error: Exception | str, status: int) -> int:
    print(f"hallo3: {error}", file=sys.stderr)
    return status
