"""Recovery beside its limits and peers: the rate of a hydration, the first block over NBD, a boot from a point."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.rows import Row
from tests.bench.vault_rates import measured
from tests.machine.test_boot_from_point import Ground

from farshore_engine.hydrate.raw import hydrate
from farshore_engine.machines.spec import RunningMachine
from farshore_engine.nbd.serving import PointServer
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.reader import PointReader

BLOCK = 65536
BOOT_PATIENCE = 600.0


def hydration_rows(vault: MachineVault, directory: Path, restic_seconds: float | None = None) -> list[Row]:
    """Hydrate the newest point's first disk to a fresh file, made durable, three times; the best counts.

    Args:
        vault: of a machine with a point, such as `first_copy` leaves.
        directory: where the image goes for the time of it.
        restic_seconds: what restic needed to restore the same disk in this run, without making it durable.
    """
    reader, size = _newest(vault)
    image = directory / "hydrated.raw"
    found = []
    for _ in range(3):
        found.append(measured("hydrate", size, lambda: hydrate(reader, reader.disks[0].id, image)))
        for path in directory.glob("hydrated.raw*"):
            path.unlink()
    best = max(found, key=lambda one: one.rate)
    peers = {} if restic_seconds is None else {"restic restore": size / 2**20 / restic_seconds}
    met = best.rate >= 2 * peers["restic restore"] if peers else None
    return [
        Row("hydration to a raw file, durable", best.rate, "MiB/s", "at least 2x restic restore", met, peers),
        Row("hydration, processor time", best.cost, "CPU s/GiB"),
    ]


def first_block_rows(open_vault: Callable[[], MachineVault], directory: Path) -> list[Row]:
    """Measure from nothing but the store and the key to the first block in a client's hands, in this process."""
    place, times = directory / "first.sock", []
    for _ in range(5):
        begun = time.perf_counter()
        vault = open_vault()
        try:
            point = vault.newest()
            assert point is not None, "the bench made a point"
            with PointServer(vault, point.manifest.name, place):
                _first_block(place)
                times.append(time.perf_counter() - begun)
        finally:
            vault.close()
    value = sorted(times)[len(times) // 2]
    return [
        Row("NBD: first block after opening the vault, median of 5", value * 1000, "ms", "within 1 s", value <= 1.0)
    ]


def boot_rows(directory: Path, rounds: int = 2) -> list[Row]:
    """Boot a guest from a local disk and from a point that streams in, in turns, until its sshd greets; the best count.

    `directory` is empty; everything in it is the bench's.
    """
    place = directory / "guest"
    place.mkdir(exist_ok=True)
    ground = Ground(place)
    try:
        reader, _ = _newest(ground.vault)
        found: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(rounds):
            hydrate(reader, "vda", ground.overlay)
            found[False].append(_boot(ground, nbd=False))
            _remove(ground)
            with ground.serving():
                found[True].append(_boot(ground, nbd=True))
            _remove(ground)
    finally:
        ground.runtime.stop("guest.drill")
        ground.vault.close()
    local, served = min(found[False]), min(found[True])
    ratio = served / local
    return [
        Row("boot from a local disk until sshd answers", local, "s"),
        Row("boot over NBD while the disk streams in", served, "s", "", None, {"local disk": local}),
        Row("boot over NBD beside a local disk", ratio, "x", "at most 1.2x", ratio <= 1.2),
    ]


def _remove(ground: Ground) -> None:
    for path in ground.directory.glob("disk-0.raw*"):
        path.unlink()


def _boot(ground: Ground, *, nbd: bool) -> float:
    begun = time.perf_counter()
    running: RunningMachine = ground.runtime.start(ground.spec(nbd=nbd))
    ground.runtime.probe(running, timeout=BOOT_PATIENCE)
    seconds = time.perf_counter() - begun
    ground.runtime.stop("guest.drill")
    return seconds


def _newest(vault: MachineVault) -> tuple[PointReader, int]:
    point = vault.newest()
    assert point is not None, "the bench made a point"
    reader = PointReader(vault, point)
    return reader, reader.disks[0].size_bytes


def _first_block(place: Path) -> None:
    """Read one block as a client does."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        _take(client, 18)
        client.sendall(struct.pack(">I8sIIIH", 3, b"IHAVEOPT", 7, 6, 0, 0))
        reply = 0
        while reply != 1:  # until the option is acknowledged
            _, _, reply, length = struct.unpack(">QIII", _take(client, 20))
            _take(client, length)
        client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, BLOCK))
        _, error, _ = struct.unpack(">IIQ", _take(client, 16))
        assert error == 0, "the server could not read the block"
        _take(client, BLOCK)


def _take(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = client.recv(count - len(data))
        assert part, "the server hung up"
        data += part
    return data


def main() -> None:
    """Show what can be shown without the other parts of the bench: `python -m tests.bench.recovery`."""
    import tempfile

    from rich.console import Console
    from tests.bench.rows import show

    with tempfile.TemporaryDirectory() as name:
        show(boot_rows(Path(name), rounds=1), Console())


if __name__ == "__main__":
    main()
