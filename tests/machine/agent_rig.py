"""Real disks, certificates and a running agent for the tests of the agent.

Disks are loop devices whose backing files lie on an xfs of their own, so that a clone inside the freeze takes no time.
"""

from __future__ import annotations

import datetime
import logging
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.machine.reference_peer import ReferencePeer, mismatches
from tests.machines.backing import BackingStore

from farshore_engine.agent.agent import Agent, Variants
from farshore_engine.agent.config import AgentConfig, DiskChoice, Server
from farshore_engine.agent.disks import find_disks
from farshore_engine.agent.logs import set_up
from farshore_engine.machines import loop
from farshore_engine.wire.messages import PointEnd

MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "vfat": ["mkfs.vfat"]}


def run(*command: str, **options: object) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout.strip()  # type: ignore[call-overload, no-any-return]


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def make_identity(directory: Path, machine: str = "machine-1") -> Path:
    """Write ca.pem, server.{pem,key} and agent.{pem,key}."""
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())

    def certificate(subject: str, key: ec.EllipticCurvePrivateKey, san: str | None, ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("Farshore test CA"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if san:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(san)]), critical=False)
        return builder.sign(ca_key, hashes.SHA256())

    def write(name: str, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        (directory / f"{name}.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (directory / f"{name}.key").write_bytes(pem)

    write("ca", certificate("Farshore test CA", ca_key, None, True), ca_key)
    for name, subject, san in (("server", "ps", "farshore-process-server"), ("agent", machine, None)):
        key = ec.generate_private_key(ec.SECP256R1())
        write(name, certificate(subject, key, san, False), key)
    return directory


@dataclass
class RealDisk:
    """A loop device on a clonable backing file, with a mounted file system unless `kind` is empty."""

    backing: Path
    device: str
    kind: str
    mount: Path | None = None

    @property
    def id(self) -> str:
        """The name that an agent gives it now."""
        return next(d.id for d in find_disks(only=(self.device,)) if d.path == self.device)


class Rig:
    """Makes disks and removes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = BackingStore(directory, "xfs")
        self.disks: list[RealDisk] = []
        self._stack = ExitStack()

    def open(self) -> Rig:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._stack.callback(self.store.remove)
        self.store.create(8192)
        return self

    def close(self) -> None:
        self._stack.close()

    def disk(self, kind: str = "ext4", size_mib: int = 320, options: str = "") -> RealDisk:
        """Make a disk; `kind` "" leaves it raw."""
        index = len(self.disks)
        backing = self.store.path / f"disk{index}.img"
        with backing.open("wb") as image:
            image.truncate(size_mib << 20)
        device = loop.attach(backing)
        self._stack.callback(loop.detach, backing)
        disk = RealDisk(backing, device, kind)
        self.disks.append(disk)
        if kind:
            run(*MAKE[kind], device)
            self.mount(disk, options)
        return disk

    def mount(self, disk: RealDisk, options: str = "") -> None:
        disk.mount = self.directory / f"mnt{self.disks.index(disk)}"
        disk.mount.mkdir(exist_ok=True)
        run("mount", *(["-o", options] if options else []), disk.device, str(disk.mount))
        self._stack.callback(self._unmount, disk.mount)

    @staticmethod
    def _unmount(point: Path) -> None:
        subprocess.run(["fsfreeze", "-u", str(point)], check=False, capture_output=True)
        for _ in range(600):
            if subprocess.run(["umount", str(point)], check=False, capture_output=True).returncode == 0:
                return
            if not os.path.ismount(point):
                return
            time.sleep(0.1)
        raise RuntimeError(f"{point} cannot be unmounted")

    @contextmanager
    def fio(self, disk: RealDisk, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """Write to the file system in many ways until the block ends."""
        assert disk.mount is not None
        size = "--size=12m"
        command = [
            "nice",
            "fio",
            f"--directory={disk.mount}",
            "--thread",
            "--time_based",
            "--runtime=300",
            "--output=/dev/null",
        ]
        command += ["--name=direct", "--rw=randwrite", "--bs=4k", size, "--direct=1", "--ioengine=libaio"]
        command += ["--iodepth=4", "--rate_iops=200"]
        command += ["--name=buffered", "--rw=randwrite", "--bsrange=4k-64k", size, "--fsync=20", "--rate=4m"]
        command += ["--name=mapped", "--rw=randwrite", "--bs=4k", size, "--ioengine=mmap", "--rate_iops=100"]
        process = subprocess.Popen([*command, *options], start_new_session=True)
        churn = subprocess.Popen(
            [
                "bash",
                "-c",
                f"i=0; while :; do dd if=/dev/urandom of={disk.mount}/c$((i%10)) bs=64k count=$((1+i%16)) status=none "
                f"conv=fsync; rm -f {disk.mount}/c$(((i*7)%10)); i=$((i+1)); sleep 0.1; done",
            ],
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            for child in (process, churn):
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


@dataclass
class RunningAgent:
    """An agent in a thread of this process, its peer, and a clone of each disk for each point."""

    rig: Rig
    peer: ReferencePeer
    config: AgentConfig
    agent: Agent
    thread: threading.Thread
    ids: dict[str, RealDisk]
    errors: list[BaseException] = field(default_factory=list)
    verdicts: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def judge(self, end: PointEnd) -> None:
        """Compare the replicas with the clones that were made inside the freeze."""
        wrong = []
        for name, disk in self.ids.items():
            clone = self.rig.store.path / f"{end.id}.{disk.backing.name}"
            bad = mismatches(self.peer.replica(name), clone)
            wrong += [(name, block) for block in bad]
        self.verdicts[end.id] = wrong

    def stop(self) -> None:
        self.agent.stop()
        self.thread.join(120)
        assert not self.thread.is_alive(), "the agent does not stop"


def configuration(directory: Path, ports: list[int], disks: list[RealDisk], /, **changes: object) -> AgentConfig:
    identity = directory / "identity"
    values: dict[str, object] = {
        "machine_id": "machine-1",
        "servers": tuple(Server("127.0.0.1", port) for port in ports),
        "ca": identity / "ca.pem",
        "certificate": identity / "agent.pem",
        "key": identity / "agent.key",
        "state_dir": directory / "state",
        "runtime_dir": directory / "run",
        "disks": DiskChoice(include=tuple(d.device for d in disks)),
        "recovery_dir": directory / "recovery.d",
    }
    return AgentConfig(**{**values, **changes})  # type: ignore[arg-type]


@contextmanager
def running_agent(
    rig: Rig, variants: Variants | None = None, peer: ReferencePeer | None = None, **changes: object
) -> Iterator[RunningAgent]:
    """Run an agent for all disks of the rig against a peer whose points are judged."""
    given = variants or Variants()
    mine = peer is None
    if peer is None:
        peer = make_peer(rig)
    config = configuration(rig.directory, [peer.port], rig.disks, **changes)

    def on_frozen(point: str) -> None:
        if given.on_frozen is not None:
            given.on_frozen(point)
        for disk in rig.disks:
            rig.store.clone(disk.backing, rig.store.path / f"{point}.{disk.backing.name}")

    variants = Variants(given.reader, given.tracker, given.clear_before_read, on_frozen)
    agent = Agent(config, variants)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            agent.run()
        except BaseException as error:  # noqa: BLE001 - reported by the test
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    running = RunningAgent(rig, peer, config, agent, thread, {d.id: d for d in rig.disks}, errors)
    peer.on_point = running.judge
    set_up(logging.DEBUG)
    thread.start()
    try:
        yield running
    finally:
        running.stop()
        if mine:
            peer.close()
        assert not errors, errors
        assert not peer.errors, peer.errors


def make_peer(rig: Rig) -> ReferencePeer:
    identity = rig.directory / "identity"
    if not identity.exists():
        make_identity(identity)
    directory = rig.directory / f"peer-{secrets.token_hex(3)}"
    directory.mkdir()
    return ReferencePeer(directory, identity)
