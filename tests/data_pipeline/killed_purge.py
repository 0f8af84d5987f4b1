"""Run a command line, and die by SIGKILL right before its N-th change to a file system.

python -m tests.data_pipeline.killed_purge N dataset purge ...
"""

import os
import signal
import sys

CHANGES = ("os.rename", "os.remove", "os.rmdir")


def main() -> int:
    left, root = int(sys.argv[1]), sys.argv[4]

    def hook(event: str, given: tuple) -> None:
        nonlocal left
        if event in CHANGES and (root in str(given[0]) or given[-1] not in (-1, None)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    from cluster.cli import main as hallo3

    sys.addaudithook(hook)
    return hallo3(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
