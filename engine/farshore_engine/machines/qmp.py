"""The little of QEMU's machine protocol that is needed: ask for the state, press the power button, quit."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from farshore_engine.contract.faults import WaitFault


class QmpSession:
    """One session on a QMP socket, with its greeting done.

    Args:
        directory: where the socket is; reached through a handle of the directory, because the path of a socket may
            have no more than 107 bytes.
        name: the socket's file name.
        timeout: seconds for each answer.

    Raises:
        WaitFault: nobody answers (`QemuSilent`).
    """

    def __init__(self, directory: Path, name: str, timeout: float = 5) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._socket.connect(f"/proc/self/fd/{handle}/{name}")
            finally:
                os.close(handle)
            self._lines = self._socket.makefile("r", encoding="utf-8")
            self._lines.readline()
            self.execute("qmp_capabilities")
        except OSError as failed:
            self._socket.close()
            raise WaitFault(f"QEMU does not answer on {directory / name}: {failed}", reason="QemuSilent") from failed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def monitor(self, line: str) -> str:
        """Run a line of the human monitor, for what the protocol has no command for; gives what it says."""
        return str(self._ask("human-monitor-command", {"command-line": line})).strip()

    def execute(self, command: str) -> dict[str, Any]:
        """Run a command and give what it returns; events that arrive meanwhile are passed over."""
        result: dict[str, Any] = self._ask(command)
        return result

    def _ask(self, command: str, arguments: dict[str, str] | None = None) -> Any:
        question = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self._socket.sendall(json.dumps(question).encode() + b"\n")
        while True:
            line = self._lines.readline()
            if not line:
                raise WaitFault(f"QEMU closed the session during {command}", reason="QemuSilent")
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise WaitFault(f"QEMU refused {command}: {answer['error'].get('desc', '')}", reason="QemuRefused")
