"""Decides how each disk is brought up to date when an agent connects. Pure: this is where silent loss is prevented."""

from __future__ import annotations

from dataclasses import dataclass

from farshore_engine.wire.messages import Baseline, DiskInfo, DiskSync, SyncMode


@dataclass(frozen=True)
class Held:
    """What the process server has of a machine.

    `session` and `durable`: the agent session that fed the spool last, and the last of its frames that is durable;
    `head`: name of the newest point, "" if none; `disks`: those of which the vault or the spool has any block.
    `lost`: what the vault lost of blocks that it should have, "" if nothing is known to be lost.
    """

    spool: str
    session: str
    durable: int
    head: str
    disks: frozenset[str]
    lost: str = ""


@dataclass(frozen=True)
class Plan:
    """The content of Welcome, and why a resync is needed ("" if none is)."""

    disks: tuple[DiskSync, ...]
    keep_pending: bool
    resume_after: int
    resync_reason: str


def plan_sync(disks: tuple[DiskInfo, ...], baseline: Baseline, held: Held) -> Plan:
    """Return how to bring the disks up to date with the least work that is correct.

    The same session and spool: only what was not acknowledged. The same session since the newest point: everything
    since that point, if nobody else has sent anything since (a clone of the machine with its certificate). Anything
    else is a gap: digests are compared. A disk of which nothing is held is copied in full.
    """
    same_session = bool(held.session) and baseline.session == held.session
    same_spool = same_session and baseline.spool == held.spool and baseline.acked <= held.durable
    same_point = bool(baseline.point) and baseline.point == held.head and held.session in ("", baseline.session)
    tracked = same_spool or same_point
    modes = []
    for disk in disks:
        if disk.id not in held.disks:
            modes.append(DiskSync(disk.id, SyncMode.FULL))
        else:
            modes.append(DiskSync(disk.id, SyncMode.DELTA if tracked and not held.lost else SyncMode.RESYNC))
    resync = any(mode.mode is SyncMode.RESYNC for mode in modes)
    return Plan(
        disks=tuple(modes),
        keep_pending=same_spool,
        resume_after=held.durable if same_spool else 0,
        resync_reason=_why(baseline, held) if resync else "",
    )


def _why(baseline: Baseline, held: Held) -> str:
    if held.lost:
        return f"{held.lost}: what they held is sent again"
    if baseline.session != held.session and held.session:
        return "the agent was restarted, so what was written meanwhile was not tracked"
    if baseline.session == held.session and baseline.spool != held.spool:
        return "the spool that had acknowledged the latest changes was lost"
    if baseline.acked > held.durable:
        return "the spool does not have everything that it had acknowledged"
    if baseline.point and baseline.point != held.head:
        return f"the vault's newest point is not {baseline.point}, the newest that the agent knows"
    return "this process server has not seen the agent before"
