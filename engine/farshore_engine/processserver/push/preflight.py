"""Runs the preflight checklist against a machine, from the outside in, and changes nothing.

Each check has its own reason and remedy; when one makes later ones pointless, those are reported as skipped, so that
the list is always complete and always in the same order.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from farshore_engine.contract.assignment import InstallMode, Source
from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.processserver.installer import DataPort, PreflightOutcome
from farshore_engine.processserver.push import checklist
from farshore_engine.processserver.push.checklist import Needs
from farshore_engine.processserver.push.facts import load_script, parse_facts
from farshore_engine.processserver.push.login import fingerprint
from farshore_engine.processserver.push.ssh import Connection, LoginRefused, Unreachable, connect
from farshore_engine.processserver.push.verdicts import error, passed, skipped, warning

ORDER = (
    "PublicAddress", "Reachability", "HostKey", "SSHLogin", "RootOrSudo", "SFTPSubsystem", "OperatingSystem",
    "KernelFeatures", "Tools", "FreeSpace", "Memory", "Disks", "HostNameMapping", "Clock", "RouteToDataPort",
    "ServiceManager", "EarlierInstall",
)  # fmt: skip
CONNECT_REASONS = frozenset(("ConnectionRefused", "NameNotResolved", "ConnectTimeout", "Unreachable"))
FACTS_SECONDS = 60.0
# Without the server's TCP channels: whatever of these the machine has tries the connection. Variables: HOST, PORT.
ROUTE_SCRIPT = """\
if command -v python3 >/dev/null 2>&1; then
    python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)' "$HOST" "$PORT"
elif command -v bash >/dev/null 2>&1 && command -v timeout >/dev/null 2>&1; then
    timeout 6 bash -c 'exec 3<>"/dev/tcp/$1/$2"' - "$HOST" "$PORT"
elif command -v nc >/dev/null 2>&1; then
    nc -w 5 "$HOST" "$PORT" </dev/null
else
    echo 'none of python3, bash and nc is there' >&2
    exit 99
fi
"""


@dataclass
class _Findings:
    checks: dict[str, Check]

    def add(self, *checks: Check) -> None:
        for check in checks:
            self.checks[check.name] = check

    def complete(self, because: str) -> tuple[Check, ...]:
        return tuple(self.checks.get(name) or skipped(name, because) for name in ORDER)


async def run_preflight(
    source: Source, data_port: DataPort | None, needs: Needs, now: Callable[[], float] = time.time
) -> PreflightOutcome:
    """Run all checks and return them in the order of `ORDER`; never raises a fault.

    Args:
        data_port: where the agent will dial; None skips that check.
        now: the clock that the machine's is compared with, in seconds since the epoch.
    """
    found = _Findings({})
    if source.install is InstallMode.MANUAL and source.credentials is None:
        return PreflightOutcome(found.complete("the agent is installed by hand (install: Manual)"))
    because = await _check_reachability(source, found)
    if because:
        return PreflightOutcome(found.complete(because))
    host_key = source.host_key or ""
    try:
        async with connect(source) as connection:
            host_key = connection.host_key
            found.add(_host_key(source, host_key), passed("SSHLogin", f"user {connection.user} logs in"))
            await _check_inside(connection, data_port, needs, found, now)
    except LoginRefused as fault:
        host_key = fault.host_key
        found.add(_host_key(source, host_key), error("SSHLogin", fault.message, fault.remedy))
        return PreflightOutcome(found.complete("the login failed"), host_key)
    except Fault as fault:
        _blame(fault, found)
        return PreflightOutcome(found.complete(fault.message), host_key)
    return PreflightOutcome(found.complete("an earlier check failed"), host_key)


async def _check_reachability(source: Source, found: _Findings) -> str:
    """Resolve and connect; returns why the rest is pointless, or an empty string."""
    loop = asyncio.get_running_loop()
    name = "Reachability"
    try:
        answers = await loop.getaddrinfo(source.address, source.port, type=socket.SOCK_STREAM)
    except OSError:
        message = f"the name {source.address} cannot be resolved"
        found.add(error(name, message, "Use the machine's private IP address in spec.source.address"))
        return message
    addresses = sorted({str(answer[4][0]) for answer in answers})
    found.add(checklist.public_address(addresses))
    started = time.monotonic()
    try:
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_connection(source.address, source.port)
    except (OSError, TimeoutError) as failure:
        kind = "refused the connection" if isinstance(failure, ConnectionRefusedError) else "does not answer"
        message = f"{source.address} port {source.port} {kind}"
        open_it = f"open port {source.port} in the firewalls between this process server and the machine"
        if kind.startswith("refused"):
            remedy = f"Start sshd in the machine, on port {source.port}, and check the address"
        else:
            remedy = f"Check spec.source.address, start the machine, and {open_it}"
        found.add(error(name, message, remedy))
        return message
    writer.close()
    milliseconds = (time.monotonic() - started) * 1000
    found.add(passed(name, f"{source.address} port {source.port} answers ({milliseconds:.0f} ms)"))
    return ""


def _host_key(source: Source, host_key: str) -> Check:
    known = "the pinned one" if source.host_key else "seen for the first time, so it is pinned now"
    return passed("HostKey", f"{fingerprint(host_key)}: {known}")


def _blame(fault: Fault, found: _Findings) -> None:
    """Put a failure of the connection beside the check that it belongs to."""
    if fault.reason == "HostKeyChanged":
        name = "HostKey"
    elif "SSHLogin" not in found.checks:
        name = "Reachability" if isinstance(fault, Unreachable) and fault.reason in CONNECT_REASONS else "SSHLogin"
    else:
        name = next(n for n in ORDER if n not in found.checks)
    found.add(error(name, fault.message, fault.remedy))


async def _check_inside(
    connection: Connection, data_port: DataPort | None, needs: Needs, found: _Findings, now: Callable[[], float]
) -> None:
    root = True
    try:
        elevation = await connection.elevate()
        found.add(passed("RootOrSudo", elevation.how))
    except StopFault as fault:
        root = False
        found.add(error("RootOrSudo", fault.message, fault.remedy))
    try:
        async with connection.sftp() as sftp:
            await sftp.realpath(".")
            found.add(passed("SFTPSubsystem", "files can be sent over SFTP"))
    except StopFault as fault:
        found.add(error("SFTPSubsystem", fault.message, fault.remedy))
    before = now()
    result = await connection.script(load_script("facts.sh"), root=root, timeout=FACTS_SECONDS)
    after = now()
    facts = parse_facts(result.stdout)
    system = checklist.operating_system(facts)
    found.add(system)
    if system.result is CheckResult.ERROR:
        return
    found.add(
        checklist.kernel_features(facts, needs),
        checklist.tools(facts),
        checklist.free_space(facts, needs),
        checklist.memory(facts),
        checklist.disks(facts, connection.source) if root else skipped("Disks", "it needs root"),
        checklist.host_name(facts),
        checklist.clock(facts, before, after) if facts.clock else skipped("Clock", "the machine did not say its time"),
        checklist.service_manager(facts),
        checklist.earlier_install(facts, needs),
    )
    found.add(await _check_route(connection, data_port, root=root))


async def _check_route(connection: Connection, data_port: DataPort | None, *, root: bool) -> Check:
    name = "RouteToDataPort"
    if data_port is None:
        return skipped(name, "no data port was given")
    where = f"{data_port.host}:{data_port.port}"
    reached = await connection.reaches(data_port.host, data_port.port)
    if reached is None:
        variables = {"HOST": data_port.host, "PORT": str(data_port.port)}
        result = await connection.script(ROUTE_SCRIPT, variables, root=root, timeout=20)
        if result.status == 99:
            return warning(
                name,
                f"whether the machine reaches {where} cannot be told: its sshd forwards no connections, and it has "
                "none of python3, bash and nc",
                "Install one of them, or allow TCP forwarding, to have it checked",
            )
        reached = result.status == 0
    if reached:
        return passed(name, f"the machine reaches the data port at {where}")
    return error(
        name,
        f"the machine does not reach the data port of this process server at {where}",
        f"Open TCP port {data_port.port} from the machine to {data_port.host}: security group, firewalls, route",
    )


__all__ = ["ORDER", "run_preflight"]
