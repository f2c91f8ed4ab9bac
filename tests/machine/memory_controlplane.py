"""A control plane in memory: what the operator would do for a process server, without Kubernetes.

It signs certificate requests with a CA of its own, keeps assignments and tasks, and remembers every report.
"""

from __future__ import annotations

import datetime
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from farshore_engine.contract.assignment import (
    BrokenAssignment,
    Desired,
    MachineAssignment,
    Policy,
    Source,
    VaultAccess,
)
from farshore_engine.contract.controlplane import Appliance, Snapshot
from farshore_engine.contract.replication import ApplianceReport, ReplicationReport
from farshore_engine.contract.tasks import TaskAssignment, TaskPhase, TaskReport

T = TypeVar("T")
PROCESS_SERVER = "ps-1"


@dataclass
class Authority:
    """A certificate authority, kept in a directory so that a restarted test process has the same one."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def at(cls, directory: Path) -> Authority:
        directory.mkdir(parents=True, exist_ok=True)
        key_file, certificate_file = directory / "ca.key", directory / "ca.pem"
        if not key_file.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Farshore test CA")])
            certificate = _builder(name, name, key.public_key(), True).sign(key, hashes.SHA256())
            form = serialization.PrivateFormat.PKCS8
            key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
            certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        loaded = serialization.load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        return cls(loaded, x509.load_pem_x509_certificate(certificate_file.read_bytes()))

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, request: str, common_name: str, names: list[x509.GeneralName]) -> str:
        """Sign a request; subject and names are ours, whatever it says."""
        key = x509.load_pem_x509_csr(request.encode()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return self.certify(key, common_name, names)

    def certify(self, key: ec.EllipticCurvePublicKey, common_name: str, names: list[x509.GeneralName]) -> str:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = _builder(subject, self.certificate.subject, key, False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def sign_machine(self, request: str, machine_id: str) -> str:
        return self.sign(request, machine_id, machine_names(machine_id))

    def sign_server(self, request: str) -> str:
        return self.sign(request, PROCESS_SERVER, [x509.DNSName("farshore-process-server")])


def machine_names(machine_id: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(f"farshore:machine:{machine_id}")]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, ca: bool
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=90))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )


class MemoryControlPlane:
    """See the module. Implements `contract.controlplane.ControlPlane`."""

    def __init__(self, authority: Authority, *, spool_bytes: int = 1 << 30, data_port: int = 0) -> None:
        self.authority = authority
        self._changed = threading.Condition()
        self._version = 1
        self._appliance = Appliance(PROCESS_SERVER, "site-1", data_port, spool_bytes, 0, authority.pem, None)
        self._machines: dict[str, MachineAssignment] = {}
        self._broken: dict[str, BrokenAssignment] = {}
        self._tasks: dict[str, TaskAssignment] = {}
        self._requests: dict[str, str] = {}
        self.reports: dict[str, list[ReplicationReport]] = {}
        self.task_reports: dict[str, list[TaskReport]] = {}
        self.appliance_report: ApplianceReport | None = None
        self.on_machine: Callable[[str, ReplicationReport], None] = lambda name, report: None

    # -- the port --------------------------------------------------------------------------------------------------

    def wait(self, after: int, timeout: float) -> Snapshot:
        with self._changed:
            self._changed.wait_for(lambda: self._version > after, timeout)
            return Snapshot(
                self._version,
                self._appliance,
                tuple(self._machines.values()),
                tuple(self._broken.values()),
                tuple(self._tasks.values()),
            )

    def report_machine(self, name: str, report: ReplicationReport) -> None:
        with self._changed:
            self.reports.setdefault(name, []).append(report)
            machine = self._machines.get(name)
            request = report.agent.certificate_request if report.agent else ""
            if machine is not None and request and self._requests.get(name) != request:
                self._requests[name] = request
                certificate = self.authority.sign_machine(request, machine.machine_id)
                self._machines[name] = machine.model_copy(update={"certificate": certificate})
            self._bump()
        self.on_machine(name, report)

    def report_task(self, name: str, report: TaskReport) -> None:
        with self._changed:
            self.task_reports.setdefault(name, []).append(report)
            if name in self._tasks:
                self._tasks[name] = self._tasks[name].model_copy(update={"report": report})
            self._bump()

    def report_appliance(self, report: ApplianceReport) -> None:
        with self._changed:
            self.appliance_report = report
            if self._requests.get("/") != report.certificate_request:
                self._requests["/"] = report.certificate_request
                certificate = self.authority.sign_server(report.certificate_request)
                self._appliance = replace(self._appliance, certificate=certificate)
                self._bump()
            self._changed.notify_all()

    # -- the test --------------------------------------------------------------------------------------------------

    def assign(self, assignment: MachineAssignment) -> None:
        with self._changed:
            earlier = self._machines.get(assignment.name)
            if earlier is not None and assignment.certificate is None:
                assignment = assignment.model_copy(update={"certificate": earlier.certificate})
            self._machines[assignment.name] = assignment
            self._bump()

    def change(self, name: str, **update: object) -> None:
        with self._changed:
            self._machines[name] = self._machines[name].model_copy(update=update)
            self._bump()

    def remove(self, name: str) -> None:
        with self._changed:
            self._machines.pop(name)
            self._bump()

    def set_broken(self, *broken: BrokenAssignment) -> None:
        with self._changed:
            self._broken = {b.name: b for b in broken}
            self._bump()

    def configure(self, **update: object) -> None:
        with self._changed:
            self._appliance = replace(self._appliance, **update)  # type: ignore[arg-type]
            self._bump()

    def run_task(self, task: TaskAssignment, timeout: float = 400) -> TaskReport:
        """Give a task and return its final report."""
        with self._changed:
            self._tasks[task.name] = task
            self._bump()
        return self.wait_for(lambda: self._final(task.name), timeout, lambda: str(self.task_reports.get(task.name)))

    def drop_task(self, name: str) -> None:
        with self._changed:
            self._tasks.pop(name)
            self._bump()

    def _final(self, name: str) -> TaskReport | None:
        reports = self.task_reports.get(name, [])
        done = reports and reports[-1].phase in (TaskPhase.SUCCEEDED, TaskPhase.FAILED)
        return reports[-1] if done else None

    def last(self, name: str) -> ReplicationReport | None:
        with self._changed:
            reports = self.reports.get(name, [])
            return reports[-1] if reports else None

    def wait_for(
        self, found: Callable[[], T | None], timeout: float = 240, explain: Callable[[], str] = lambda: ""
    ) -> T:
        """Return what `found` returns once it is not None or False."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                value = found()
                if value:
                    return value
                if time.monotonic() > deadline:
                    raise AssertionError(f"not seen in {timeout} s: {explain()}")
                self._changed.wait(0.2)

    def wait_report(
        self, name: str, wanted: Callable[[ReplicationReport], bool], timeout: float = 240
    ) -> ReplicationReport:
        """Return the newest report of a machine once it is as wanted."""

        def found() -> ReplicationReport | None:
            report = self.last(name)
            return report if report is not None and wanted(report) else None

        return self.wait_for(found, timeout, lambda: str(self.last(name)))

    def _bump(self) -> None:
        self._version += 1
        self._changed.notify_all()


def assignment(name: str, vault: VaultAccess, policy: Policy, **changes: object) -> MachineAssignment:
    """Return an assignment of machine `demo.<name>`."""
    base = MachineAssignment(
        name=name,
        machine_id=f"demo.{name}",
        epoch=1,
        desired=Desired.REPLICATE,
        source=Source(address="127.0.0.1"),
        policy=policy,
        vault=vault,
    )
    return base.model_copy(update=changes)


def random_name() -> str:
    return f"vm{secrets.token_hex(3)}"
