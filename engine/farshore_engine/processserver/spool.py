"""One machine's spool: packs on disk that the vault does not have yet, and the journal that says what they mean.

    <state>/spool/<machineId>/journal-<8 digits>   one for each generation
    <state>/spool/<machineId>/<pack>               a sealed pack, gone once it is uploaded

A pack is written and synced before the journal speaks of it, and the journal is synced before anybody is told, so
everything that was acknowledged is found again after a crash at any byte. When a spool does not verify, it is emptied
and gets a new id: agents then learn that what it had acknowledged is gone.
"""

from __future__ import annotations

import dataclasses
import functools
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from farshore_engine.processserver.budget import Room
from farshore_engine.processserver.closedpoint import ClosedPoint
from farshore_engine.processserver.generation import (
    AgentSession,
    Frame,
    Generation,
    SpooledPack,
    frame_of,
    frame_record,
    json_record,
    opened_record,
    pack_record,
)
from farshore_engine.processserver.journal import (
    Journal,
    Kind,
    SyncFailed,
    records,
    sync_directory,
    sync_file,
)
from farshore_engine.processserver.written import PREFIX, SpoolDamaged, Written, read_generation
from farshore_engine.vault.names import PackId
from farshore_engine.vault.newfile import create_file
from farshore_engine.vault.pack import SealedPack

S = TypeVar("S", bound="Spool")
P = ParamSpec("P")
R = TypeVar("R")
_UNTRUSTED: set[Path] = set()  # spools whose disk failed to keep something, so that what is read back may be a lie


def _durable(change: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let a change of the spool give the spool up when the disk does not keep it."""

    @functools.wraps(change)
    def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return change(self, *args, **kwargs)
        except SyncFailed:
            self.distrust()
            raise

    return guarded


class Spool:
    """The spool of one machine. Thread-safe; every change is durable when its method returns."""

    def __init__(self, directory: Path, budget: Room, vault: str = "") -> None:
        """Open what is in `directory`, or start empty on an unknown base (`rebase` must follow).

        `vault` names the vault's machine that the packs are for: what was spooled for another one is given up, since
        neither its keys nor the packs that it has already would be found there.
        """
        self._directory = directory
        self._vault = vault
        self._budget = budget
        self._lock = threading.RLock()
        self._written: list[Written] = []
        self._held = 0  # bytes of packs that the budget counts for this spool
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.lost = ""  # why an earlier spool was given up at open, for logs
        try:
            if directory in _UNTRUSTED:
                raise SpoolDamaged("the disk did not keep what was written to it")
            self._restore()
        except SpoolDamaged as error:
            self.lost = str(error)
            self._empty()
            _UNTRUSTED.discard(directory)
        if not self._written:
            self._start(0, secrets.token_hex(8), None)

    @property
    def id(self) -> str:
        """Name of this spool; another one knows nothing of what this one acknowledged."""
        return self.current.spool

    @property
    def current(self) -> Generation:
        """The generation that receives frames."""
        return self._written[-1].generation

    @property
    def committing(self) -> Generation | None:
        """The complete generation whose point is not in the vault yet, if any."""
        return self._written[0].generation if len(self._written) > 1 else None

    @property
    def generations(self) -> tuple[Generation, ...]:
        """Oldest first."""
        with self._lock:
            return tuple(w.generation for w in self._written)

    @_durable
    def begin_session(self, session: AgentSession) -> None:
        """Note whose frames come from now on."""
        with self._lock:
            self._written[-1].record([json_record(Kind.SESSION, dataclasses.asdict(session))])

    @property
    def restarted(self) -> frozenset[str]:
        """Disks that begin with nothing, until a point that holds them anew is committed."""
        return frozenset(disk for generation in self.generations for disk in generation.restarted)

    @_durable
    def restart(self, disks: frozenset[str]) -> None:
        """Note that nothing of these disks is held: what the point below holds of them must not show through."""
        with self._lock:
            self._written[-1].record([json_record(Kind.RESTARTED, {"disks": sorted(disks)})])

    @_durable
    def rebase(self, slot: int) -> None:
        """Note on which point's slot the oldest generation lies."""
        with self._lock:
            self._written[0].record([json_record(Kind.BASE, {"base": slot})])

    @_durable
    def store(self, packs: Sequence[SealedPack], frames: Sequence[Frame]) -> None:
        """Keep sealed packs and, behind them, the frames that refer to packs kept so far, as one group."""
        for pack in packs:
            self._write_pack(pack)
            with self._lock:
                self._account(len(pack.data))
        if packs:
            sync_directory(self._directory)
        told = [pack_record(Kind.SEALED, SpooledPack(p.id, len(p.data))) for p in packs]
        told += [frame_record(frame) for frame in frames]
        with self._lock:
            self._written[-1].record(told)

    @_durable
    def close_generation(self, point: ClosedPoint) -> None:
        """Note that the current generation is complete and begin the next one."""
        with self._lock:
            if len(self._written) > 1:
                raise RuntimeError("a point is being committed already")
            written = self._written[-1]
            written.record([json_record(Kind.POINT, point.to_json())])
            done = written.generation
            self._start(done.number + 1, done.spool, done.session)

    @_durable
    def committed(self, slot: int) -> None:
        """Forget the complete generation: its point is in `slot`."""
        with self._lock:
            self._written[-1].record([json_record(Kind.BASE, {"base": slot})])
            done = self._written.pop(0)
            for pack in done.generation.waiting.values():
                self._release_file(pack)
            done.journal.close()
            done.journal.path.unlink()
            sync_directory(self._directory)

    def waiting(self) -> list[SpooledPack]:
        """Return the packs that are not in the vault yet, oldest generation first."""
        with self._lock:
            return [pack for w in self._written for pack in w.generation.waiting.values()]

    @property
    def has_waiting(self) -> bool:
        """Whether some pack is not in the vault yet; cheap."""
        with self._lock:
            return any(w.generation.waiting for w in self._written)

    def frames(self) -> Iterator[Frame]:
        """Yield what was stored and is in no committed point, in order; for the start, before anything is stored."""
        for written in tuple(self._written):
            for record, _ in records(written.journal.path):
                if record.kind is Kind.FRAME:
                    yield frame_of(record.payload)

    def path_of(self, pack: PackId) -> Path:
        """Return where a pack that waits lies; the file is durable, and its bytes are never written again."""
        return self._path(pack)

    @_durable
    def uploaded(self, pack: PackId) -> int:
        """Note that the vault has a pack, and let it go; returns its size in bytes."""
        with self._lock:
            for written in self._written:
                state = written.generation.waiting.get(pack)
                if state is not None:
                    written.record([pack_record(Kind.UPLOADED, state)])
                    self._release_file(state)
                    return state.size
            return 0

    def distrust(self) -> None:
        """Make sure that nobody, not even a later process, believes what the journals say; they may not be on disk."""
        _UNTRUSTED.add(self._directory)
        with self._lock:
            for written in self._written:
                written.journal.close()
                with suppress(OSError):
                    written.journal.path.unlink()

    @_durable
    def discard(self) -> None:
        """Give up everything pending (it belongs to a chain that went on without it) under a new id."""
        with self._lock:
            number = self.current.number + 1
            self._empty()
            self._start(number, secrets.token_hex(8), None)

    def close(self) -> None:
        """Close the journals; the spool can be opened again."""
        with self._lock:
            for written in self._written:
                written.journal.close()
            self._account(-self._held)
            self._written = []

    def _start(self, number: int, spool: str, session: AgentSession | None) -> None:
        first = opened_record(spool, self._vault, session)
        journal = Journal.create(self._directory / f"{PREFIX}{number:08d}", first)
        generation = Generation(number)
        generation.apply(first)
        self._written.append(Written(generation, journal))

    def _restore(self) -> None:
        paths = sorted(self._directory.glob(f"{PREFIX}*"))
        for path in paths:
            generation, end = read_generation(path)
            if generation is None:
                if path != paths[-1]:
                    raise SpoolDamaged(f"{path.name} does not say which spool it belongs to")
                path.unlink()  # the crash came while it was made; nothing was put into it
                break
            self._written.append(Written(generation, Journal.reopen(path, end)))
            if generation.vault != self._vault:
                raise SpoolDamaged("it was filled for another vault")
        self._finish_rotation()
        self._check_packs()

    def _finish_rotation(self) -> None:
        """Complete a change of generation that a crash cut in two."""
        if not self._written:
            return
        last = self._written[-1].generation
        if last.point is not None:
            self._start(last.number + 1, last.spool, last.session)
        elif len(self._written) == 2 and last.base is not None:
            old = self._written.pop(0)  # its point is committed: only the removal was cut off
            old.journal.close()
            old.journal.path.unlink()
        if len(self._written) > 2 or any(w.generation.point is None for w in self._written[:-1]):
            raise SpoolDamaged("the journals do not follow one another")

    def _check_packs(self) -> None:
        wanted = {}
        for pack in self.waiting():
            path = self._path(pack.id)
            if not path.exists() or path.stat().st_size != pack.size:
                raise SpoolDamaged(f"pack {pack.id} is missing or cut short")
            wanted[path.name] = pack.size
        for path in self._directory.iterdir():
            if not path.name.startswith(PREFIX) and path.name not in wanted:
                path.unlink()  # written, but the journal never came to speak of it
        self._account(sum(wanted.values()))

    def _write_pack(self, pack: SealedPack) -> None:
        path = self._path(pack.id)
        path.unlink(missing_ok=True)  # never write into an earlier file: a vault beside us may have taken it over
        create_file(path, pack.data, sync_file)

    def _empty(self) -> None:
        for written in self._written:
            written.journal.close()
        self._account(-self._held)
        self._written = []
        for path in self._directory.iterdir():
            path.unlink()
        sync_directory(self._directory)

    def _release_file(self, pack: SpooledPack) -> None:
        self._path(pack.id).unlink(missing_ok=True)
        self._account(-pack.size)

    def _account(self, count: int) -> None:
        self._held += count
        self._budget.add(count)

    def _path(self, pack: PackId) -> Path:
        return self._directory / str(pack)
