"""Runs Azurite, the Azure Blob emulator, in a directory: the vault's storage for development, tests and the demo.

Azurite writes its index every few seconds, so it forgets recent uploads when it is killed; `stop` ends it cleanly. The
account and its key are the ones that every Azure emulator has; they protect nothing.
"""

from __future__ import annotations

import http.client
import time
from pathlib import Path

from farshore_cli.dev import tools
from farshore_cli.dev.cache import Progress, silent
from farshore_cli.dev.checkout import checkout
from farshore_cli.dev.processes import Lifeline, Process, Service, free_ports, load, save, start, tail
from farshore_engine.contract.faults import StopFault, WaitFault

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
READY_WITHIN = 180.0
"""Seconds after which a start is given up; on an idle machine it takes 1."""


class Azurite(Service):
    """A blob service that lives in one directory, on 127.0.0.1 and a port that it keeps.

    As a context manager it is started on entry and stopped on exit. It ends with this process, however that ends,
    unless `detached`: then it runs until `stop()`, of this or another process.

    Attributes:
        directory: where blobs, log and the record of the process are.
        log: file with what it said, of every start in this directory.
        account: name of the storage account.
        key: its access key, base64.
    """

    account = ACCOUNT
    key = KEY

    def __init__(self, directory: Path, *, detached: bool = False, progress: Progress = silent) -> None:
        self.directory = directory.absolute()
        self._records = self.directory / "process.json"
        self.log = self.directory / "azurite.log"
        self._lifeline = None if detached else Lifeline()
        self._progress = progress

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1, chosen when first asked for."""
        file = self.directory / "port"
        if not file.is_file():
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            file.write_text(str(free_ports(1)[0]))
        return int(file.read_text())

    @property
    def account_url(self) -> str:
        """URL of the account, as `RecoveryVault` names it."""
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        """What `BlobServiceClient.from_connection_string` takes."""
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={self.account_url};"

    @property
    def process(self) -> Process | None:
        """What was started and not stopped; it may have died meanwhile."""
        return next(iter(load(self._records)), None)

    @property
    def alive(self) -> bool:
        """Tell whether it runs."""
        return self.process is not None and self.process.alive

    def start(self) -> None:
        """Start it on the blobs that are there, unless it runs, and return when it answers.

        Raises StopFault with the end of the log if it ends, WaitFault if it does not answer in time.
        """
        process = self.process
        if process is None or not process.alive:
            self._progress("starting Azurite")
            process = self._launch()
            save([process], self._records)
        deadline = time.monotonic() + READY_WITHIN
        while not self._answers():
            if not process.alive:
                raise StopFault(
                    f"Azurite ended while starting; the end of {self.log}:\n{tail(self.log)}",
                    f"If another program took its port, remove {self.directory} and start again",
                    reason="AzuriteFailed",
                )
            if time.monotonic() > deadline:
                raise WaitFault(
                    f"Azurite does not answer after {READY_WITHIN:.0f} s; the end of {self.log}:\n{tail(self.log)}",
                    "Check that the machine is not overloaded, then start again",
                    reason="AzuriteSlow",
                )
            time.sleep(0.05)

    def stop(self) -> None:
        """End it cleanly: every acknowledged upload stays, for the next `start`."""
        if self.process is not None:
            self.process.stop(grace=90.0)  # killed, it would forget uploads
        self._records.unlink(missing_ok=True)
        if self._lifeline is not None:
            self._lifeline.close()

    def kill(self) -> None:
        """End it at once, as kill -9 does; it forgets the uploads of its last seconds."""
        if self.process is not None:
            self.process.kill()

    def _launch(self) -> Process:
        program = tools.azurite(self._progress)
        preload = [] if self._lifeline is None else ["--require", str(checkout() / "tests/azurite/end-with-stdin.js")]
        command = [
            str(program.node),
            *preload,
            str(program.script),
            "--blobHost=127.0.0.1",
            f"--blobPort={self.port}",
            f"--location={self.directory / 'blobs'}",
            "--disableTelemetry",
            # It knows only the API versions of its release; a newer client library asks for newer ones.
            "--skipApiVersionCheck",
            "--silent",
        ]
        stdin = None if self._lifeline is None else self._lifeline.end
        return start("azurite", command, self.log, stdin=stdin)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/")
            return (connection.getresponse().getheader("Server") or "").startswith("Azurite-Blob")
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
