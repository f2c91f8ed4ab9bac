"""JSON log lines on stderr, held back while a file system is frozen.

A line written to a journal that lies on a frozen file system would block the agent inside its own freeze, so
`held()` keeps lines in memory and writes them after the thaw.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

LOGGER_NAME = "farshore.agent"
HELD_LINES = 1000


class JsonLines(logging.Handler):
    """Writes each record as one JSON object; extra fields are given as `extra={"fields": {...}}`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = stream
        self._gate = threading.Lock()
        self._depth = 0
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or keep it while lines are held."""
        line = self.format(record)
        with self._gate:
            if self._depth:
                if len(self._lines) < HELD_LINES:
                    self._lines.append(line)
                return
            self._write([line])

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        entry.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0]:
            entry["exception"] = logging.Formatter().formatException(record.exc_info)
        return json.dumps(entry, default=str)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep lines in memory for the length of the block."""
        with self._gate:
            self._depth += 1
        try:
            yield
        finally:
            with self._gate:
                self._depth -= 1
                if not self._depth:
                    lines, self._lines = self._lines, []
                    self._write(lines)

    def _write(self, lines: list[str]) -> None:
        stream = self._stream or sys.stderr
        for line in lines:
            stream.write(line + "\n")
        stream.flush()


HANDLER = JsonLines()
log = logging.getLogger(LOGGER_NAME)


def set_up(level: int = logging.INFO) -> None:
    """Send the agent's records to stderr as JSON lines."""
    log.handlers = [HANDLER]
    log.propagate = False
    log.setLevel(level)
