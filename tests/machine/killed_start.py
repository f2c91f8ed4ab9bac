"""Starts the machine of a test and dies by SIGKILL just before its nth command on the host.

    python killed_start.py N MODULE:FUNCTION ARGUMENT   # FUNCTION(ARGUMENT) is what is killed

Ends with code 0 when the function needed fewer commands.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from typing import Any

left = int(sys.argv[1])
start_process = subprocess.Popen.__init__


def counted(self: subprocess.Popen[Any], *arguments: Any, **options: Any) -> None:
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    start_process(self, *arguments, **options)


if __name__ == "__main__":
    module, _, function = sys.argv[2].partition(":")
    call = getattr(importlib.import_module(module), function)
    subprocess.Popen.__init__ = counted  # type: ignore[method-assign]
    call(sys.argv[3])
