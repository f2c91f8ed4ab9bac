"""Opens a machine's replication: claim the chain, open the spool, and see whether what it holds fits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import structlog

from farshore_engine.contract.assignment import MachineAssignment, VaultAccess
from farshore_engine.contract.faults import StopFault
from farshore_engine.processserver.intake import Intake
from farshore_engine.processserver.replica import Replica, Shared
from farshore_engine.processserver.spool import Spool
from farshore_engine.vault.chain import ChainWriter, read_slot
from farshore_engine.vault.durability import StoreLost, missing_packs
from farshore_engine.vault.immutability import LockKeeper, LockRule, open_locks
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.newest import newest_damage
from farshore_engine.vault.records import FenceBody
from farshore_engine.vault.stores import open_machine
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import PointWriter

log = structlog.get_logger(__name__)

UPLOAD_DEPTH = 1 << 30  # packs wait in the spool, not in the uploader


def open_replica(
    assignment: MachineAssignment,
    spool_directory: Path,
    shared: Shared,
    restart: frozenset[str] = frozenset(),
    *,
    doubt: bool = False,
) -> Replica:
    """Open the vault with the assignment's epoch, and the spool as it was left.

    Args:
        assignment: the machine.
        spool_directory: its own directory.
        shared: what all machines share.
        restart: disks whose map in the vault is damaged: they are copied in full again. The spool remembers them.
        doubt: whether the store has lost what it had acknowledged, so that what the spool handed over may be gone.

    Raises:
        StoreLost: it has, as is seen now: open again with `doubt`.
        Fenced: the head of the chain has a higher epoch, or this epoch under another writer.
        Fault: the vault cannot be opened (away, wrong key, damaged).
    """
    vault = open_machine(assignment.vault, assignment.machine_id, create=True)
    try:
        chain = vault.claim(
            writer=shared.name, epoch=assignment.epoch, reason="replication begins", clock=shared.now,
            base=assignment.base_point,
        )  # fmt: skip
        return _open_spool(assignment, (vault, chain), spool_directory, shared, (restart, doubt))
    except BaseException:
        vault.close()
        raise


def _open_spool(
    assignment: MachineAssignment,
    opened: tuple[MachineVault, ChainWriter],
    directory: Path,
    shared: Shared,
    how: tuple[frozenset[str], bool],
) -> Replica:
    (vault, chain), (restart, doubt) = opened, how
    room = shared.budget.share(assignment.machine_id)
    spool = Spool(directory, room, vault_name(vault))
    uploader = PackUploader(
        vault.access.store,
        vault.access.names,
        threads=shared.upload_threads,
        depth=UPLOAD_DEPTH,
        uploaded=lambda pack: shared.note_uploaded(assignment.machine_id, spool.uploaded(pack)),
    )
    intake = Intake(spool, uploader, shared.encoders_of(assignment.machine_id), room, shared.monotonic)
    try:
        base = older_base(vault, assignment)
        locks = _locks(assignment.vault, vault, chain, shared, base)
        writer = PointWriter(vault, chain, intake, locks=locks, base=base)
        damage = newest_damage(vault, base)
        spoiled = damage.disks - spool.restarted
        if spoiled:
            log.warning("the newest point is damaged: these disks are copied anew", disks=sorted(spoiled))
        lost = frozenset().union(
            *(packs for disk, packs in damage.packs.items() if disk not in spool.restarted | restart)
        )
        # A point that the spool holds complete would be put on top of what is missing, and miss it too.
        fit_to_chain(spool, writer, restart | spoiled, doubt=doubt or base is not None or bool(lost))
        writer.distrust(lost)
        # A disk of zeros only has no map, and is held all the same.
        held = {disk.id for disk in writer.last.manifest.disks} if writer.last else set()
        for disk in spool.restarted:
            writer.restart(disk)
        held = (held - spool.restarted) | {disk for generation in spool.generations for disk in generation.disks}
        intake.start(writer)
        _prove(vault, writer, spool)
    except BaseException:
        intake.stop()
        uploader.close()
        spool.close()
        room.close()
        raise
    replica = Replica(assignment, shared, vault, writer, spool, uploader, intake, held, room)
    if lost:
        replica.compare_again(f"the vault lost {len(lost)} packs of its newest point")
    return replica


def older_base(vault: MachineVault, assignment: MachineAssignment) -> StoredPoint | None:
    """Return the older point on which the chain is to go on from here, None for its newest.

    The newest point is gone on from when it is the wanted one, and when it lies on that one itself, which the fence
    before it tells, or its epoch where that fence is pruned. Whatever lies below, the agent compares by digest.
    """
    wanted, newest = assignment.base_point, vault.newest()
    if not wanted or newest is None or newest.manifest.name == wanted:
        return None
    fence = read_slot(vault.access, newest.record.header.claim).record
    if fence is not None and isinstance(fence.body, FenceBody):
        follows = fence.body.base == wanted
    else:
        follows = newest.record.header.epoch >= assignment.epoch
    if follows:
        return None
    try:
        base = vault.find(wanted)
    except StopFault as fault:
        if fault.reason != "NoSuchRecoveryPoint":
            raise
        log.warning("the point to go on from is gone: the newest is taken", wanted=wanted, newest=newest.manifest.name)
        return None
    log.info("the chain goes on from an older point", base=wanted, newest=newest.manifest.name)
    return base


def _locks(
    access: VaultAccess, vault: MachineVault, chain: ChainWriter, shared: Shared, base: StoredPoint | None
) -> LockKeeper | None:
    """Return what holds points against deletion, None for a vault without immutability."""
    if access.immutable_for is None:
        return None
    rule = LockRule(access.immutable_for, access.immutable_locked)
    return open_locks(vault, rule, chain.claim, shared.now, base)


def _prove(vault: MachineVault, writer: PointWriter, spool: Spool) -> None:
    """See that the packs that an earlier process uploaded for the next point are still there."""
    waiting = {pack.id for pack in spool.waiting()}
    earlier = {pack for pack in writer.in_flight if pack.claim != writer.chain.claim and pack not in waiting}
    lost = missing_packs(vault.access.store, vault.access.names, earlier)
    if lost:
        raise StoreLost(vault.access.names.machine, f"{len(lost)} packs, among them {min(lost)}")


def fit_to_chain(
    spool: Spool, writer: PointWriter, restart: frozenset[str] = frozenset(), *, doubt: bool = False
) -> None:
    """Let go of what the spool holds if it does not build on the chain's newest point, or if that is in doubt."""
    last = writer.last
    slot = last.slot if last is not None else 0
    closed = spool.committing
    if closed is not None and closed.point is not None and closed.base is not None and last is not None:
        was_put = last.slot > closed.base and last.manifest.time == closed.point.instant
        if was_put:
            log.info("the point was committed before the stop", point=last.manifest.name)
            spool.committed(slot)
    base = spool.generations[0].base
    if spool.lost:
        log.warning("the spool was lost", machine=writer.chain.writer, reason=spool.lost)
    if restart or doubt or base not in (None, slot):
        log.warning("the spool does not fit the chain and is emptied", base=base, head=slot, doubt=doubt)
        spool.discard()
        base = None
    if restart:
        spool.restart(restart)
    if base is None:
        spool.rebase(slot)


def vault_name(vault: MachineVault) -> str:
    """Return what tells this machine's data key from any other, and nothing else of it."""
    return hashlib.sha256(b"farshore spool of " + vault.digest_key).hexdigest()[:32]
