"""How a check of preflight ends."""

from __future__ import annotations

from farshore_engine.contract.replication import Check, CheckResult


def passed(name: str, message: str) -> Check:
    """Return a check that passed."""
    return Check(name=name, result=CheckResult.PASSED, message=message)


def warning(name: str, message: str, remedy: str) -> Check:
    """Return a check that does not block."""
    return Check(name=name, result=CheckResult.WARNING, message=message, remedy=remedy)


def error(name: str, message: str, remedy: str) -> Check:
    """Return a check that blocks."""
    return Check(name=name, result=CheckResult.ERROR, message=message, remedy=remedy)


def skipped(name: str, because: str) -> Check:
    """Return a check that an earlier error makes pointless."""
    return Check(name=name, result=CheckResult.SKIPPED, message=f"not checked: {because}")
