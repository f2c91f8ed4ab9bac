"""The application on the demo's machine: a ledger in SQLite (WAL mode, every commit synced) with a line protocol.

It runs inside the source machine and, started by its recovery script, inside every recovered copy; it needs only the
standard library. Each transaction carries its number, its time and a checksum over a random payload, so that a
recovered copy can be judged: is the database intact, which transaction was the last, is any row damaged?

Commands, one line each, answered with one line of JSON: `last` (the newest transaction), `check` (what this process
found when it started, before it wrote anything, and a full check of the database as it is now); `follow` is answered
with a line for each transaction from now on, as soon as its commit has returned: that is its acknowledgement.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import socketserver
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

SCHEMA = "CREATE TABLE IF NOT EXISTS ledger (id INTEGER PRIMARY KEY, at REAL NOT NULL, payload BLOB, sum BLOB NOT NULL)"


def connect(database: Path) -> sqlite3.Connection:
    """Open the database as a careful application does: WAL, and a commit returns when it is on the disk."""
    connection = sqlite3.connect(database, timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(SCHEMA)
    return connection


def checksum(number: int, at: float, payload: bytes) -> bytes:
    """Return what a row's `sum` must be."""
    return hashlib.sha256(f"{number} {at!r} ".encode() + payload).digest()


def newest(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return number and time of the last transaction; zero if there is none."""
    row = connection.execute("SELECT id, at FROM ledger ORDER BY id DESC LIMIT 1").fetchone()
    return {"last": row[0], "at": row[1]} if row else {"last": 0, "at": 0.0}


def verify(connection: sqlite3.Connection) -> dict[str, Any]:
    """Check every page and row: integrity verdict of SQLite, rows, gaps in the numbering, rows with a wrong sum."""
    integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
    count, last, wrong = 0, 0, 0
    for number, at, payload, total in connection.execute("SELECT id, at, payload, sum FROM ledger ORDER BY id"):
        count, last = count + 1, number
        wrong += total != checksum(number, at, payload)
    return {"integrity": integrity, "rows": count, "missing": last - count, "wrong": wrong, **newest(connection)}


class Acknowledgements:
    """Hands each committed transaction to everybody who follows."""

    def __init__(self) -> None:
        self._followers: list[queue.SimpleQueue[bytes]] = []

    def follow(self) -> queue.SimpleQueue[bytes]:
        """Return a queue that gets a line for each transaction from now on."""
        follower: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._followers.append(follower)
        return follower

    def leave(self, follower: queue.SimpleQueue[bytes]) -> None:
        """Get no more."""
        self._followers.remove(follower)

    def tell(self, number: int, at: float) -> None:
        """Acknowledge a transaction that was begun at `at`."""
        line = json.dumps({"last": number, "at": at, "done": time.time()}).encode() + b"\n"
        for follower in tuple(self._followers):
            follower.put(line)


def append_forever(database: Path, pause: float, payload_bytes: int, acknowledged: Acknowledgements) -> None:
    """Commit one transaction after another."""
    connection = connect(database)
    number = newest(connection)["last"]
    while True:
        number, at, payload = number + 1, time.time(), os.urandom(payload_bytes)
        with connection:
            connection.execute(
                "INSERT INTO ledger VALUES (?, ?, ?, ?)", (number, at, payload, checksum(number, at, payload))
            )
        acknowledged.tell(number, at)
        time.sleep(pause)


def serve(database: Path, port: int) -> None:
    """Report on the database until the process ends; then keep appending to it in a thread of its own."""
    connection = connect(database)
    found = verify(connection)
    connection.close()
    acknowledged = Acknowledgements()
    threading.Thread(target=append_forever, args=(database, 0.02, 4096, acknowledged), daemon=True).start()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            command = self.rfile.readline().strip()
            if command == b"follow":
                self.follow()
                return
            with connect(database) as own:
                answer = newest(own) if command == b"last" else {"found": found, "now": verify(own)}
            self.wfile.write(json.dumps(answer).encode() + b"\n")

        def follow(self) -> None:
            follower = acknowledged.follow()
            try:
                while True:
                    self.wfile.write(follower.get())
            except OSError:
                acknowledged.leave(follower)

    socketserver.ThreadingTCPServer.daemon_threads = True
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("0.0.0.0", port), Handler) as server:
        server.serve_forever()


def main() -> None:
    """Run the ledger."""
    parser = argparse.ArgumentParser(description="a small ledger that never stops writing")
    parser.add_argument("database", type=Path)
    parser.add_argument("--port", type=int, default=5555)
    arguments = parser.parse_args()
    serve(arguments.database, arguments.port)


if __name__ == "__main__":
    main()
