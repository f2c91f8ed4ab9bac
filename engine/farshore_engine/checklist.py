"""A checklist in the making: what each look found is one line, and a fault is the failure of its look only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.replication import Check, CheckResult


@dataclass
class Checklist:
    """Collects what was found, one line for each check."""

    lines: list[Check] = field(default_factory=list)

    def ask(self, name: str, look: Callable[[], str]) -> bool:
        """Add what a look says; a fault is an error, a warning where it only has to be waited for.

        Returns whether it passed.
        """
        return self._look(name, look, CheckResult.ERROR, CheckResult.WARNING)

    def need(self, name: str, look: Callable[[], str]) -> bool:
        """Add what a look says; a fault is an error, whatever it is. Returns whether it passed."""
        return self._look(name, look, CheckResult.ERROR, CheckResult.ERROR)

    def advise(self, name: str, look: Callable[[], str]) -> bool:
        """Add what a look says; a fault is a warning, whatever it is. Returns whether it passed."""
        return self._look(name, look, CheckResult.WARNING, CheckResult.WARNING)

    def skip(self, names: Sequence[str], because: str) -> None:
        """Add checks that an earlier failure makes pointless."""
        text = f"not checked: {because}"
        self.lines += [Check(name=name, result=CheckResult.SKIPPED, message=text) for name in names]

    def _look(self, name: str, look: Callable[[], str], stops: CheckResult, waits: CheckResult) -> bool:
        try:
            said = look()
        except Fault as fault:
            result = stops if isinstance(fault, StopFault) else waits
            self.lines.append(Check(name=name, result=result, message=fault.message, remedy=fault.remedy))
            return False
        self.lines.append(Check(name=name, result=CheckResult.PASSED, message=said))
        return True
