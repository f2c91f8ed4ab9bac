"""`farshore vault serve`: the disks of a recovery point over NBD, so that a machine boots from them at once.

With `--overlay` the machine can write, and the rest of the point streams into the overlay behind it; then that file
alone is the disk, and this command is not needed any more when the machine is started again.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farshore_cli.commands.vault import Machine, Output, app, open_place
from farshore_cli.commands.vault_check import chosen_point
from farshore_cli.commands.vault_export import ImageFormat, plan
from farshore_cli.formats import Format
from farshore_cli.vaultplace import Place, vault_command
from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from farshore_engine.nbd.serving import PointServer
    from farshore_engine.nbd.streaming import Streamed
    from farshore_engine.vault.machine import StoredPoint


@app.command("serve")
@vault_command
def serve(
    place: Place,
    vm: Machine,
    point: Annotated[str, typer.Argument(help="Name of the point, an RFC 3339 time, Latest or LatestAppConsistent.")],
    disk: Annotated[list[str] | None, typer.Option("--disk", help="Only this disk, by name or id; repeatable.")] = None,
    socket: Annotated[
        Path | None, typer.Option("--socket", help="Unix socket to listen on. Default: <machine>.sock here.")
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", help="HOST:PORT of this host's loopback to listen on, instead of a socket.")
    ] = "",
    overlay: Annotated[
        str,
        typer.Option(
            "--overlay",
            help="Let clients write: to this file. Several disks: a directory, or a name with {disk} in it. "
            "One that was begun is continued.",
        ),
    ] = "",
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Bring the rest of the point into the overlay meanwhile.")
    ] = True,
    output: Output = Format.TABLE,
) -> None:
    """Serve the disks of a recovery point over NBD until it is interrupted; every block is verified."""
    from farshore_engine.nbd.server import TcpAddress
    from farshore_engine.nbd.serving import PointServer, ServeOptions

    if socket is not None and listen:
        raise StopFault("both --socket and --listen are given", "Give one of them", reason="BadOptions")
    _log_to_stderr()
    opened = open_place(place)
    machine = opened.named(vm)
    where = TcpAddress.parse(listen) if listen else (socket or Path(f"{machine}.sock")).absolute()
    vault = opened.open(machine)
    try:
        chosen = chosen_point(vault, point)
        jobs = plan(chosen, tuple(disk or ()), overlay or "{disk}", ImageFormat.RAW)
        options = ServeOptions(
            disks=tuple(job.disk.id for job in jobs),
            overlays={job.disk.id: job.file for job in jobs} if overlay else {},
            streaming=stream,
            report=_teller(),
        )
        with _until_told() as ended, PointServer(vault, chosen.manifest.name, where, options) as served:
            _show(served, chosen, options.disks, output)
            ended.wait()
    finally:
        vault.close()


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and SIGINT set, so that everything is undone in order."""
    ended = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: ended.set()) for number in numbers]
    try:
        yield ended
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _show(served: PointServer, point: StoredPoint, disks: tuple[str, ...], output: Format) -> None:
    names = {disk.id: disk.name for disk in point.manifest.disks}
    if output is Format.JSON:
        exports = [{"id": disk, "name": names[disk], "uri": served.uri(disk)} for disk in disks]
        print(json.dumps({"point": point.manifest.name, "disks": exports}, indent=2), flush=True)
        return
    print(f"serving {point.manifest.name}; interrupt to end", flush=True)
    for disk in disks:
        print(f"  {names[disk] or disk}  {served.uri(disk)}", flush=True)


def _teller() -> Callable[[str, Streamed], None]:
    """Return what says on stderr how far the streaming of each disk is, in steps of a tenth."""
    from farshore_cli.pointtable import size_text

    told: dict[str, int] = {}

    def tell(disk: str, streamed: Streamed) -> None:
        tenth = 10 * streamed.done // max(1, streamed.total)
        if told.get(disk) != tenth:
            told[disk] = tenth
            done, total = size_text(streamed.done), size_text(streamed.total)
            what = "; the overlay alone is the disk now" if streamed.complete else ""
            print(f"disk {disk}: {done} of {total} are in the overlay{what}", file=sys.stderr, flush=True)

    return tell


def _log_to_stderr() -> None:
    import structlog

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
