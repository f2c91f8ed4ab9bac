"""A source machine in a fraction of a second: a namespace machine with file systems on loop disks.

    with NamespaceSource(disks=(SourceDisk(fs="xfs"), SourceDisk(mount="/logs")), store="xfs") as source:
        source.address, source.user, source.password, source.key_path     # how to reach it with SSH on port 22
        source.exec("df /data")                                           # as root, without SSH
        source.ssh("id")                                                  # with SSH, as `user`
        source.start_fio(rate="20m"); ...; source.stop_fio()
        copy = source.clone_backing(0)                                    # in an instant; truth for comparisons

It shares the kernel with the host; there is no systemd. `poweroff` works inside. Everything is removed on exit;
after a kill -9, `NamespaceSource(directory=..., name=...).close()` in another process does the same.
Sources with the same directory and network share a bridge; the host's address on it is `gateway`.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.machines.backing import BackingStore, StoreKind, stopped

from farshore_engine.machines import loop
from farshore_engine.machines.namespace import NamespaceMachines, NamespaceSpec
from farshore_engine.machines.network import Network
from farshore_engine.machines.spec import Account, DiskFile, Mount, Script

FILE_SYSTEMS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}
# The 6to4 anycast prefix, out of use since RFC 7526: looks public to every check, and nobody is there.
PUBLIC_PREFIX = "192.88.99."


@dataclass(frozen=True)
class SourceDisk:
    """A disk to make.

    Args:
        size_mib: MiB; xfs needs at least 300.
        fs: its file system, or None for a raw disk that is not mounted.
        mount: mount point; empty chooses `/data`, `/data1`, `/data2`, ...
        partitioned: one partition that fills the disk instead of a file system on the bare disk.
    """

    size_mib: int = 512
    fs: Literal["ext4", "xfs", "btrfs"] | None = "ext4"
    mount: str = ""
    partitioned: bool = False


class NamespaceSource:
    """A running source machine; see the module's docstring. Use it as a context manager, or `open` and `close`."""

    def __init__(
        self,
        disks: Sequence[SourceDisk] = (SourceDisk(),),
        *,
        directory: Path | None = None,
        name: str = "",
        hostname: str = "",
        network: str = "site",
        store: StoreKind = "plain",
        user: str = "root",
        public: bool = False,
        scripts: Sequence[Script] = (),
    ) -> None:
        """Describe the machine.

        Args:
            directory: where everything lives; a temporary one, removed on close, when None.
            store: `xfs` or `btrfs` to be able to clone backing files.
            user: the login; other than root it may use sudo with its password.
            public: give it a further address that looks public.
            scripts: what runs at each boot, as services do elsewhere.
        """
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="farshore-source-"))
        self.name = name or f"source-{secrets.token_hex(3)}"
        self.hostname = hostname or self.name
        self.network = network
        self.disks = tuple(disks)
        self.user = user
        self.public = public
        self.scripts = tuple(scripts)
        self.store = BackingStore(self.directory / f"{self.name}.disks", store)
        self.machines = NamespaceMachines(self.directory / "machines")
        self.key_path = self.directory / f"{self.name}.key"
        self.password = secrets.token_urlsafe(12)
        self.address = ""
        self.public_address = ""

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
        """Make the disks that are not there yet, and bring the machine up. Opening it after `power_off` boots it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.key_path.exists():
            self._make_key()
        self.store.create(1024 + 4 * sum(disk.size_mib for disk in self.disks))
        for index, disk in enumerate(self.disks):
            if not self.backing_file(index).exists():
                self._make_disk(self.backing_file(index), disk)
        if self.public and not self.public_address:
            self.public_address = _unused_public_address()
        self.address = self.machines.start(self._spec(), patience=300).address

    def power_off(self) -> None:
        """Shut it down in order; disks, accounts and what was installed stay."""
        stopped(lambda: self.machines.power_off(self.name, grace=120))

    def close(self) -> None:
        """Remove the machine and everything that belongs to it; may be repeated, and done by another process."""
        stopped(lambda: self.machines.stop(self.name, grace=1))
        self.store.remove()
        for path in (self.store.directory, self.key_path, self.key_path.with_suffix(".key.pub"), self._known_hosts):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def gateway(self) -> str:
        """The host's address on the machine's network: where the machine reaches a process server on this host."""
        found = Network(str(self.machines.run_dir.resolve()), self.network).subnet()
        assert found is not None, f"{self.name} is not up"
        return str(found.ip)

    @property
    def pid(self) -> int:
        """Its process 1, as the host sees it; `/proc/PID/root` is its root."""
        found = self.machines.inspect(self.name)
        assert found is not None and found.pid is not None, f"{self.name} is not up"
        return found.pid

    def mount_point(self, index: int) -> str:
        """Where the disk is mounted inside."""
        return self.disks[index].mount or ("/data" if index == 0 else f"/data{index}")

    def backing_file(self, index: int) -> Path:
        """The disk's raw file."""
        return self.store.path / f"disk{index}.raw"

    def loop_device(self, index: int) -> str:
        """The disk's device, `/dev/loopN`, the same name inside and outside."""
        return loop.devices_of(self.backing_file(index))[0]

    def clone_backing(self, index: int, destination: Path | None = None) -> Path:
        """Clone the disk as it is now, in an instant; by default into the store, where it goes away with it."""
        return self.store.clone(
            self.backing_file(index), destination or self.store.path / f"clone-{secrets.token_hex(4)}.raw"
        )

    def exec(
        self, command: str | Sequence[str], *, stdin: str = "", timeout: float = 240, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root, without SSH; a string goes to the shell."""
        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        done = self.machines.exec(self.name, words, stdin=stdin, timeout=timeout)
        return _checked(done) if check else done

    def ssh(self, command: str, *, timeout: float = 240, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command with SSH, as `user`, with the key."""
        line = [*self.ssh_options, f"{self.user}@{self.address}", command]
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        return _checked(done) if check else done

    @property
    def ssh_options(self) -> list[str]:
        """The SSH client's command line up to the destination."""
        known = ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self._known_hosts}"]
        return ["ssh", "-i", str(self.key_path), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", *known]

    def start_fio(self, disk: int = 0, *, rate: str = "", name: str = "load", **options: object) -> None:
        """Start a random write load on a disk's file system and return as soon as it has written.

        Args:
            rate: bytes per second with a suffix, `20m`; empty for as fast as it goes.
            options: further fio options (`rw`, `bs`, `size`, `direct`, ...), which replace the defaults.
        """
        chosen = {"rw": "randwrite", "bs": "16k", "size": "64m", "ioengine": "psync", "fallocate": "none"} | options
        rates = [f"--rate={rate}"] if rate else []
        words = [f"--{key}={value}" for key, value in chosen.items()] + rates
        report = ["--output-format=json", f"--output=/run/fio-{name}.json"]
        load = ["fio", f"--name={name}", f"--directory={self.mount_point(disk)}", "--time_based", "--runtime=3600"]
        line = " ".join([*load, *words, *report])
        self.exec(f"setsid {line} </dev/null >/run/fio-{name}.log 2>&1 & echo $! >/run/fio-{name}.pid")
        deadline = time.monotonic() + 120
        written = f'test "$(stat -c %b {self.mount_point(disk)}/{name}.0.0)" -gt 0'
        while self.exec(written, check=False).returncode != 0:
            running = self.exec(f"kill -0 $(cat /run/fio-{name}.pid)", check=False).returncode == 0
            if not running or time.monotonic() > deadline:
                raise RuntimeError(f"fio did not start: {self.exec(f'cat /run/fio-{name}.*').stdout}")
            time.sleep(0.05)

    def stop_fio(self, name: str = "load", *, timeout: float = 120) -> dict[str, Any]:
        """Stop the load; gives fio's job report (`["write"]["total_ios"]`, ...)."""
        self.exec(f"kill -INT $(cat /run/fio-{name}.pid)")
        deadline = time.monotonic() + timeout
        while self.exec(f"kill -0 $(cat /run/fio-{name}.pid) 2>/dev/null", check=False).returncode == 0:
            if time.monotonic() > deadline:
                raise RuntimeError(f"fio did not stop within {timeout} s")
            time.sleep(0.05)
        text = self.exec(f"cat /run/fio-{name}.json").stdout
        report: dict[str, Any] = json.loads(text[text.index("{") :])["jobs"][0]
        return report

    @property
    def _known_hosts(self) -> Path:
        return self.directory / f"{self.name}.known_hosts"

    def _spec(self) -> NamespaceSpec:
        public_key = self.key_path.with_suffix(".key.pub").read_text()
        login = Account(self.user, self.password, (public_key,), sudo=self.user != "root")
        mounted = [(index, disk) for index, disk in enumerate(self.disks) if disk.fs]
        return NamespaceSpec(
            name=self.name,
            hostname=self.hostname,
            network=self.network,
            disks=tuple(DiskFile(self.backing_file(index), f"disk{index}") for index in range(len(self.disks))),
            mounts=tuple(
                Mount(index, self.mount_point(index), disk.fs or "", int(disk.partitioned)) for index, disk in mounted
            ),
            accounts=(login,),
            scripts=self.scripts,
            masked=(str(self.directory),),
            extra_addresses=(self.public_address,) if self.public_address else (),
        )

    def _make_key(self) -> None:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(self.key_path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    def _make_disk(self, path: Path, disk: SourceDisk) -> None:
        with path.open("wb") as file:
            file.truncate(disk.size_mib << 20)
        if not disk.partitioned:
            if disk.fs:
                subprocess.run([*FILE_SYSTEMS[disk.fs], str(path)], check=True, stdout=subprocess.DEVNULL)
            return
        layout = ["mklabel", "gpt", "mkpart", "data", "1MiB", "100%"]
        subprocess.run(["parted", "--script", str(path), *layout], check=True, capture_output=True)
        if disk.fs:
            device = loop.attach(path)
            try:
                subprocess.run([*FILE_SYSTEMS[disk.fs], f"{device}p1"], check=True, stdout=subprocess.DEVNULL)
            finally:
                loop.detach(path)


def _checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    if done.returncode != 0:
        raise RuntimeError(f"ended with code {done.returncode}: {done.stdout}{done.stderr}")
    return done


def _unused_public_address() -> str:
    routes = json.loads(subprocess.check_output(["ip", "-json", "route", "show"], text=True))
    taken = {row["dst"] for row in routes}
    free = [PUBLIC_PREFIX + str(last) for last in range(1, 255) if PUBLIC_PREFIX + str(last) not in taken]
    return secrets.choice(free)
