"""A source machine with a kernel and a systemd of its own: a QEMU guest that boots Debian from its raw disk.

    with QemuSource(data=SourceDisk(fs="xfs")) as source:
        source.address, source.key_path            # root, port 22, on a bridge that the test made
        source.ssh("systemctl is-system-running")
        source.backing_file(0)                     # the raw disk it booted from; 1 is the data disk, at /data

Its address is fixed for its own MAC address; on another NIC, as in a recovered copy, the same disk asks by DHCP.
Without hardware acceleration it answers within half a minute on two idle cores. `close` removes everything, also when
called by another process with the same directory and name.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.machines.backing import BackingStore, StoreKind, stopped
from tests.machines.guest_image import copy_image, put_files
from tests.machines.namespace_source import FILE_SYSTEMS, SourceDisk

from farshore_engine.machines.network import Network, network_lock
from farshore_engine.machines.probe import probe
from farshore_engine.machines.qemu import QemuMachines
from farshore_engine.machines.qemu_command import QemuSpec
from farshore_engine.machines.spec import DiskFile, MachineState, RunningMachine

MAC_PREFIX = "52:54:00:fa"
# Guests take their addresses from here on; namespace machines take those below.
FIRST_GUEST_ADDRESS, GUEST_ADDRESSES = 200, 50
BOOT_SECONDS = 600.0


class QemuSource:
    """A booted guest; see the module's docstring. Use it as a context manager, or `open` and `close`."""

    user = "root"

    def __init__(
        self,
        *,
        data: SourceDisk | None = None,
        extra_mib: int = 0,
        directory: Path | None = None,
        name: str = "",
        network: str = "site",
        store: StoreKind = "plain",
        memory_mib: int = 1024,
        cpus: int = 2,
    ) -> None:
        """Describe the guest.

        Args:
            data: a second disk, mounted at /data.
            extra_mib: size of a third disk, empty; it needs a second one.
            directory: where everything lives; a temporary one, removed on close, when None.
            store: `xfs` or `btrfs` to be able to clone backing files.
        """
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="farshore-guest-"))
        self.name = name or f"guest-{secrets.token_hex(3)}"
        self.network = network
        self.data = data
        self.extra_mib = extra_mib
        self.memory_mib = memory_mib
        self.cpus = cpus
        self.store = BackingStore(self.directory / f"{self.name}.disks", store)
        self.machines = QemuMachines(self.directory / "machines")
        self.key_path = self.directory / f"{self.name}.key"
        self.address = ""

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Make its disks, boot it, and wait until its sshd greets."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.store.create(4096 + (4 * self.data.size_mib if self.data else 0))
        self.address = self._choose_address()
        if not self.backing_file(0).exists():
            self._make_disks()
        probe(self.start(), timeout=BOOT_SECONDS)

    def start(self) -> RunningMachine:
        """Start QEMU on the disks that are there, without waiting for the guest."""
        return self.machines.start(self._spec())

    def close(self) -> None:
        """Remove the guest and everything that belongs to it; may be repeated."""
        stopped(lambda: self.machines.stop(self.name))
        self.store.remove()
        shutil.rmtree(self.store.directory, ignore_errors=True)
        for suffix in (".key", ".key.pub", ".host", ".host.pub", ".known_hosts"):
            (self.directory / f"{self.name}{suffix}").unlink(missing_ok=True)
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def gateway(self) -> str:
        """This host's address on the guest's network."""
        found = Network(str(self.machines.run_dir.resolve()), self.network).subnet()
        assert found is not None, f"{self.name} is not up"
        return str(found.ip)

    @property
    def mac(self) -> str:
        """The MAC address for which the guest's address is fixed."""
        low = hashlib.blake2b(f"{self.directory}/{self.name}".encode(), digest_size=2).hexdigest()
        return f"{MAC_PREFIX}:{low[:2]}:{low[2:]}"

    @property
    def console(self) -> str:
        """What the guest printed on its serial console."""
        found = self.machines.inspect(self.name)
        return found.console.read_text(errors="replace") if found and found.console.exists() else ""

    def is_running(self) -> bool:
        """Whether QEMU runs; it ends when the guest powers off."""
        found = self.machines.inspect(self.name)
        return found is not None and found.state is MachineState.RUNNING

    def backing_file(self, index: int) -> Path:
        """The raw file of a disk: 0 is the boot disk, 1 the data disk."""
        return self.store.path / f"disk{index}.raw"

    def clone_backing(self, index: int, destination: Path | None = None) -> Path:
        """Clone a disk as it is now, in an instant; by default into the store."""
        return self.store.clone(
            self.backing_file(index), destination or self.store.path / f"clone-{secrets.token_hex(4)}.raw"
        )

    def ssh(
        self, command: str, *, stdin: bytes = b"", timeout: float = 300, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the guest as root."""
        known = [
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            f"UserKnownHostsFile={self.directory / self.name}.known_hosts",
        ]
        options = ["-i", str(self.key_path), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", *known]
        line = ["ssh", *options, f"root@{self.address}", command]
        ran = subprocess.run(line, capture_output=True, timeout=timeout, input=stdin, check=False)
        done = subprocess.CompletedProcess(line, ran.returncode, ran.stdout.decode(), ran.stderr.decode())
        if check and done.returncode != 0:
            raise RuntimeError(f"ended with code {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def _spec(self) -> QemuSpec:
        disks = [DiskFile(self.backing_file(0), "boot")]
        if self.data:
            disks.append(DiskFile(self.backing_file(1), "data"))
        if self.extra_mib:
            disks.append(DiskFile(self.backing_file(2), "extra"))
        return QemuSpec(
            name=self.name,
            disks=tuple(disks),
            memory_mib=self.memory_mib,
            cpus=self.cpus,
            fixed_address=f"{self.address}/24",
            network=self.network,
            mac=self.mac,
            discard_flushes=True,
        )

    def _choose_address(self) -> str:
        """An address of the network that the same name always gets."""
        network = Network(str(self.machines.run_dir.resolve()), self.network)
        with network_lock():
            host = network.ensure()
        number = int(hashlib.blake2b(self.name.encode(), digest_size=2).hexdigest(), 16) % GUEST_ADDRESSES
        return str(host.network.network_address + FIRST_GUEST_ADDRESS + number)

    def _make_disks(self) -> None:
        for purpose in ("key", "host"):
            path = self.directory / f"{self.name}.{purpose}"
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(path)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        draft = copy_image(self.store.path / "disk0.new")
        host_key = self.directory / f"{self.name}.host"
        put_files(
            draft,
            {
                "/root/.ssh/authorized_keys": self.key_path.with_suffix(".key.pub").read_text(),
                "/etc/ssh/ssh_host_ed25519_key": host_key.read_text(),
            },
        )
        fstab = "LABEL=farshore-root / ext4 rw,relatime 0 0\n"
        if self.data:
            fstab += f"LABEL=data /data {self.data.fs} nofail 0 0\n"
        network = f"[Match]\nMACAddress={self.mac}\n[Network]\nAddress={self.address}/24\nLinkLocalAddressing=no\n"
        put_files(
            draft,
            {
                "/etc/hostname": f"{self.name}\n",
                "/etc/hosts": f"127.0.0.1 localhost\n{self.address} {self.name}\n",
                "/etc/machine-id": hashlib.blake2b(host_key.read_bytes(), digest_size=16).hexdigest() + "\n",
                "/etc/fstab": fstab,
                "/etc/systemd/network/10-fixed.network": network,
            },
            mode=0o644,
        )
        if self.data:
            with self.backing_file(1).open("wb") as file:
                file.truncate(self.data.size_mib << 20)
            assert self.data.fs is not None, "the data disk is mounted, so it needs a file system"
            make = [*FILE_SYSTEMS[self.data.fs], "-L", "data", str(self.backing_file(1))]
            subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        if self.extra_mib:
            with self.backing_file(2).open("wb") as file:
                file.truncate(self.extra_mib << 20)
        draft.rename(self.backing_file(0))
