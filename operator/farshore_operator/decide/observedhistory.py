"""What is being read of a machine's journal in the vault."""

from __future__ import annotations

from dataclasses import dataclass

from farshore_engine.contract.tasks import JournalledRun, TaskPhase
from farshore_operator.api import Task


@dataclass(frozen=True)
class History:
    """What is being read of a machine.

    Attributes:
        task: the task that reads its journal, None if nothing is read.
    """

    task: Task | None = None

    @property
    def answered(self) -> bool:
        """Whether the journal was read."""
        return self.task is not None and self.task.status is not None and self.task.status.phase is TaskPhase.SUCCEEDED

    @property
    def runs(self) -> tuple[JournalledRun, ...]:
        """The machine's runs as the vault has them, oldest first."""
        result = self.task.status.result if self.task is not None and self.task.status is not None else None
        return result.runs if result is not None else ()

    @property
    def vault_epoch(self) -> int:
        """The epoch of the chain in the vault; 0 if there is none."""
        result = self.task.status.result if self.task is not None and self.task.status is not None else None
        return (result.vault_epoch or 0) if result is not None else 0
