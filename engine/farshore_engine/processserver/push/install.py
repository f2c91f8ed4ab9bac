"""Puts the agent into a machine, replaces it, and removes it; every step may be repeated.

The bundle is uploaded and unpacked beside the running one and appears by a rename, so a push that is killed anywhere
leaves the machine with the old agent or the new one, and the next push finishes the work. The agent's key travels over
standard input, so that no copy of it lies in an upload directory.
"""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import time
from collections.abc import Callable
from typing import Any

import asyncssh

from farshore_engine.bundle.build import Bundle
from farshore_engine.bundle.layout import INSTALL_ROOT, python_command
from farshore_engine.bundle.service import load_script as load_shared_script
from farshore_engine.bundle.service import service_text
from farshore_engine.contract.assignment import Source
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.processserver.installer import AgentIdentity, InstallOutcome
from farshore_engine.processserver.push.facts import load_script, parse_facts
from farshore_engine.processserver.push.ssh import Completed, Connection, connect

CONFIG_DIRECTORY = "/etc/farshore/agent"
STATE_DIRECTORY = "/var/lib/farshore"
FACTS_SECONDS = 60.0
UPLOAD_SECONDS = 900.0
UNPACK_SECONDS = 300.0
DAMAGED, DOES_NOT_RUN, DOES_NOT_STAY, BUSY = 65, 66, 70, 75  # exit codes of the scripts
SHARED = ("service.sh",)  # with the manual install
# The agent reads these again at each connection, so they change without a restart, which would cost a comparison of the
# disks: the list of servers, and the certificate files.
READ_AGAIN = ("servers",)


async def install(
    source: Source, identity: AgentIdentity, bundle: Bundle, progress: Callable[[str], None]
) -> InstallOutcome:
    """Install, upgrade or reconfigure the agent; see `Installer.install`."""
    progress(f"logging in to {source.address}")
    async with connect(source) as connection:
        seen = await connection.script(load_script("facts.sh"), timeout=FACTS_SECONDS)
        facts = parse_facts(seen.stdout)
        manager = facts.service or "none"
        names = {"ROOT": INSTALL_ROOT, "ID": bundle.id}
        prepared = await _require(connection, "prepare.sh", {**names, "OWNER": connection.user}, "making room")
        if prepared.stdout.strip() != "present":
            await _upload(connection, bundle, progress)
            progress("unpacking the agent")
            await _unpack(connection, bundle)
        progress("writing the agent's configuration")
        restart = await _configure(connection, source, identity, f"{INSTALL_ROOT}/{bundle.id}")
        progress("starting the agent")
        started = await _start(connection, manager, bundle, restart=restart)
        await _require(connection, "prune.sh", names, "removing old versions")
        progress("the agent runs" if started == "started" else "the agent is current and runs")
        return InstallOutcome(version=bundle.id, host_key=connection.host_key)


async def uninstall(source: Source) -> None:
    """Remove the agent and everything that belongs to it; see `Installer.uninstall`."""
    async with connect(source) as connection:
        result = await _require(connection, "uninstall.sh", {"ROOT": INSTALL_ROOT}, "removing the agent", timeout=180)
        left = result.stdout.split("\n")[:-1]
        if left:
            raise WaitFault(
                f"{connection.address}: the agent is not removed completely; still there: {', '.join(left[:5])}",
                "It is tried again; look for a process that holds it, or an immutable file (lsattr), if this repeats",
                reason="UninstallIncomplete",
            )


async def _upload(connection: Connection, bundle: Bundle, progress: Callable[[str], None]) -> None:
    progress(f"sending the agent ({bundle.archive_bytes >> 20} MiB)")
    target = f"{INSTALL_ROOT}/.upload-{bundle.id}/bundle.tar.gz"
    quarters = iter((25, 50, 75))
    following = next(quarters)

    def report(_: bytes, __: bytes, done: int, total: int) -> None:
        nonlocal following
        if total and done * 100 // total >= following:
            progress(f"sending the agent: {done * 100 // total} %")
            following = next(quarters, 1000)

    try:
        async with asyncio.timeout(UPLOAD_SECONDS), connection.sftp() as sftp:
            await sftp.put(str(bundle.path), target, progress_handler=report)
    except TimeoutError as error:
        raise WaitFault(
            f"{connection.address}: the agent could not be sent within {UPLOAD_SECONDS:.0f} s",
            "Check the bandwidth between this process server and the machine",
            reason="UploadTimeout",
        ) from error
    except asyncssh.SFTPError as error:
        raise StopFault(
            f"{connection.address}: the agent could not be sent: {error.reason}",
            f"Check the free space on {INSTALL_ROOT}, and "
            f"that SFTP of the user is not confined (ChrootDirectory in sshd_config)",
            reason="UploadFailed",
        ) from error
    except (asyncssh.Error, OSError) as error:
        raise WaitFault(
            f"{connection.address}: the connection broke while the agent was sent: {error}", reason="ConnectionLost"
        ) from error


async def _unpack(connection: Connection, bundle: Bundle) -> None:
    variables = {"ROOT": INSTALL_ROOT, "ID": bundle.id, "SHA256": bundle.sha256}
    result = await _run(connection, "unpack.sh", variables, timeout=UNPACK_SECONDS)
    if result.status == DAMAGED:
        raise WaitFault(
            f"{connection.address}: the agent arrived damaged or could not be unpacked: {result.said()}",
            f"It is sent again; check the disk of {INSTALL_ROOT} if this repeats",
            reason="BundleDamaged",
        )
    if result.status == DOES_NOT_RUN:
        raise StopFault(
            f"{connection.address}: the agent does not run there: {result.said()}",
            f"Check that {INSTALL_ROOT} is not mounted noexec, for SELinux denials (ausearch -m avc)",
            reason="BundleDoesNotRun",
        )
    _check(connection, result, "unpacking the agent")


async def _configure(connection: Connection, source: Source, identity: AgentIdentity, root: str) -> bool:
    """Write the configuration; returns whether the agent must be restarted for it."""
    config = agent_config(source, identity, root)
    files = {
        "config.json": json.dumps(config, separators=(",", ":")),
        "ca.pem": identity.ca,
        "certificate.pem": identity.certificate,
        "key.pem": identity.key,
    }
    result = await _require(
        connection, "configure.sh", {"ROOT": INSTALL_ROOT}, "writing the configuration", stdin=_tar(files)
    )
    was, *changed = result.stdout.splitlines()
    return "config.json" in changed and _essential(was.removeprefix("was ")) != _essential(files["config.json"])


async def _start(connection: Connection, manager: str, bundle: Bundle, *, restart: bool) -> str:
    variables = {
        "ROOT": INSTALL_ROOT,
        "ID": bundle.id,
        "MANAGER": manager,
        "SERVICE": service_text(manager, f"{INSTALL_ROOT}/{bundle.id}"),
        "RESTART": "yes" if restart else "no",
    }
    result = await _run(connection, "service.sh", variables, timeout=180)
    if result.status == DOES_NOT_STAY:
        raise StopFault(
            f"{connection.address}: the agent was started and does not stay up: {result.said()}",
            "Read its log in the machine (journalctl -u farshore-agent, or /var/log/farshore-agent.log)",
            reason="AgentDoesNotStart",
        )
    _check(connection, result, "starting the agent")
    return result.stdout.strip()


def agent_config(source: Source, identity: AgentIdentity, root: str) -> dict[str, Any]:
    """Return the content of config.json for the bundle at `root`; no secret is in it."""
    disks: dict[str, Any] = {"include": list(source.include_disks), "exclude": list(source.exclude_disks)}
    if identity.disk_names:
        disks["names"] = dict(identity.disk_names)
    return {
        "machineId": identity.machine_id,
        "servers": [{"host": server.host, "port": server.port} for server in identity.servers],
        "ca": f"{CONFIG_DIRECTORY}/ca.pem",
        "certificate": f"{CONFIG_DIRECTORY}/certificate.pem",
        "key": f"{CONFIG_DIRECTORY}/key.pem",
        "stateDir": STATE_DIRECTORY,
        "disks": disks,
        "interpreter": list(python_command(root)),
    }


def _essential(text: str) -> dict[str, Any] | None:
    """The configuration without what the agent reads again by itself; None if there was none."""
    try:
        config = json.loads(text)
    except ValueError:
        return None
    return {k: v for k, v in config.items() if k not in READ_AGAIN} if isinstance(config, dict) else None


def _tar(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(mode="w", fileobj=buffer, format=tarfile.USTAR_FORMAT) as tar:
        for name, text in files.items():
            data = text.encode()
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


async def _require(
    connection: Connection,
    script: str,
    variables: dict[str, str],
    doing: str,
    *,
    stdin: bytes = b"",
    timeout: float = 120,
) -> Completed:
    result = await _run(connection, script, variables, stdin=stdin, timeout=timeout)
    _check(connection, result, doing)
    return result


async def _run(
    connection: Connection, script: str, variables: dict[str, str], *, stdin: bytes = b"", timeout: float
) -> Completed:
    """Run a script that changes the machine, alone."""
    text = load_shared_script("lock.sh") + (load_shared_script(script) if script in SHARED else load_script(script))
    result = await connection.script(text, variables, stdin=stdin, timeout=timeout)
    if result.status == BUSY:
        raise WaitFault(
            f"{connection.address}: another push is at work there: {result.said()}",
            "It is tried again; remove the lock by hand if no push is at work",
            reason="PushBusy",
        )
    return result


def _check(connection: Connection, result: Completed, doing: str) -> None:
    if result.status == 0:
        return
    said = result.said()
    full = "No space left" in said or "Disk quota" in said
    raise StopFault(
        f"{connection.address}: {doing} failed (exit code {result.status}): {said}",
        "Free space in the machine; `farshore doctor` says where and how much" if full else "See what it says there",
        reason="NoSpace" if full else "InstallFailed",
    )


__all__ = ["agent_config", "install", "uninstall"]
