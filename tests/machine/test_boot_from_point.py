"""A machine boots from a recovery point at once: over NBD, while the rest streams into its own disk behind it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.machine.traces import traces
from tests.machines.guest_image import copy_image, put_files
from tests.machines.image_vault import put_images

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.machine import BootMode, MachineDescription, MachineDisk
from farshore_engine.hydrate.verify import verify
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.machines.spec import DiskFile, MachineSpec, RunningMachine
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.reader import PointReader

REPOSITORY = Path(__file__).parents[2]
KEK = bytes(range(32))
MACHINE = "team-a.guest"
MIB = 1 << 20
BOOT_SECONDS = 600.0  # of patience: without hardware acceleration, on a busy host


class Ground:
    """A guest's point in a vault, a login for it, and where it is recovered to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = directory / "key"
        for name in ("key", "host"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        image = copy_image(directory / "source.raw")
        put_files(
            image,
            {
                "/root/.ssh/authorized_keys": (directory / "key.pub").read_text(),
                "/etc/ssh/ssh_host_ed25519_key": (directory / "host").read_text(),
                "/root/note": "written before the disaster\n",
            },
        )
        named = {"/etc/hostname": "guest\n", "/etc/machine-id": "0123456789abcdef0123456789abcdef\n"}
        put_files(image, named, mode=0o644)  # the guest's network daemon reads them
        (directory / "kek").write_bytes(KEK)
        (directory / "vault").mkdir()
        self.vault = MachineVault.open(DirectoryStore(directory / "vault"), KEK, MACHINE, create=True)
        self.description = MachineDescription(
            hostname="guest",
            cpus=2,
            memory_bytes=1 << 30,
            boot_mode=BootMode.BIOS,
            disks=(MachineDisk(id="vda", name="vda", size_bytes=image.stat().st_size, bootable=True),),
        )
        self.point = put_images(self.vault, {"vda": image}, self.description)
        image.unlink()
        self.socket, self.overlay = directory / "nbd.sock", directory / "disk-0.raw"
        self.runtime = MachineRuntime(directory / "run")

    def spec(self, *, nbd: bool) -> MachineSpec:
        disk = DiskFile(self.overlay, "vda", "vda", nbd_socket=self.socket if nbd else None)
        return MachineSpec("guest.drill", "drill-1", (disk,), self.description)

    @contextmanager
    def serving(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """Run `farshore vault serve`, and wait until it listens."""
        words = [sys.executable, "-m", "farshore_cli.main", "vault", "serve", MACHINE, "Latest"]
        words += ["--directory", str(self.directory / "vault"), "--key-file", str(self.directory / "kek")]
        words += ["--socket", str(self.socket), "--overlay", str(self.overlay), *options]
        with (self.directory / "serve.log").open("a") as log:
            server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, cwd=REPOSITORY)
        try:
            assert server.stdout is not None
            assert server.stdout.readline().startswith("serving"), (self.directory / "serve.log").read_text()
            yield server
        finally:
            server.terminate()
            server.communicate(timeout=60)

    def inside(self, running: RunningMachine, command: str, timeout: float = 180) -> str:
        options = [
            "-i",
            str(self.key),
            "-p",
            str(running.port),
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "BatchMode=yes",
        ]
        options += ["-o", "LogLevel=ERROR", "-o", f"UserKnownHostsFile={self.directory / 'known'}"]
        line = ["ssh", *options, "root@127.0.0.1", command]
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("nbd"))
    try:
        yield ground
    finally:
        ground.runtime.stop("guest.drill")
        ground.vault.close()
    assert traces(ground.directory / "run", ["guest.drill"], ["default"]) == []


def streamed(ground: Ground, within: float) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if "the overlay alone is the disk" in (ground.directory / "serve.log").read_text():
            return True
        time.sleep(0.5)
    return False


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_guest_boots_while_its_disk_streams_in_and_then_stands_alone(ground: Ground) -> None:
    reader = PointReader(ground.vault, ground.vault.find(ground.point.name))
    with ground.serving("--no-stream") as server:
        assert ground.vault.find(ground.point.name).pins
        running = ground.runtime.start(ground.spec(nbd=True))
        assert ground.runtime.start(ground.spec(nbd=True)).pid == running.pid
        assert ground.runtime.probe(running, timeout=BOOT_SECONDS).banner.startswith("SSH-2.0-OpenSSH")
        assert ground.inside(running, "cat /root/note") == "written before the disaster\n"
        ground.inside(running, "echo acknowledged > /root/early && sync")
        held = ground.overlay.stat().st_blocks * 512
        assert held < ground.point.disk_bytes // 2, "it boots from a fraction of the disk"
        server.kill()  # the machine waits for its disk, and never notices
        server.wait()
    with ground.serving() as server:
        assert ground.inside(running, "cat /root/early; dmesg -l err,crit | grep -i vda; true") == "acknowledged\n"
        ground.inside(running, "echo written after the disaster > /root/late && sync")
        assert streamed(ground, 300), (ground.directory / "serve.log").read_text()
        removal = ground.runtime.power_off("guest.drill", grace=240)
        assert removal.orderly
        server.terminate()
        assert server.wait(60) == 0
    assert not ground.socket.exists()
    assert not ground.vault.find(ground.point.name).pins
    changed = sum(count for _, count in verify(reader, "vda", ground.overlay))
    assert 0 < changed < 2000, "everything but what the machine wrote is the point's"

    alone = ground.runtime.start(ground.spec(nbd=False))
    ground.runtime.probe(alone, timeout=BOOT_SECONDS)
    assert ground.inside(alone, "cat /root/note /root/early /root/late").splitlines() == [
        "written before the disaster",
        "acknowledged",
        "written after the disaster",
    ]
    ground.runtime.stop("guest.drill")


def test_a_disk_that_cannot_be_booted_must_be_hydrated(tmp_path: Path) -> None:
    disk = tmp_path / "o.raw"
    disk.write_bytes(bytes(MIB))
    spec = MachineSpec(
        "plain", "drill", (DiskFile(disk, "vda", nbd_socket=tmp_path / "s"),), MachineDescription(hostname="plain")
    )
    with pytest.raises(StopFault) as caught:
        MachineRuntime(tmp_path / "run").start(spec)
    assert caught.value.reason == "NotBootable"
