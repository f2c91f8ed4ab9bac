"""What was begun elsewhere and goes on there: recorded, so that a restart finds it and does not begin it twice."""

from __future__ import annotations

from datetime import datetime

from farshore_engine.contract.model import Status


class Operation(Status):
    """A call to Site Recovery that was begun and goes on there, so that it is found again after a restart."""

    call: str
    """What was begun, such as EnableProtection."""
    subject: str = ""
    """What it is about, such as the name of a policy."""
    job: str = ""
    """Name of the job in the vault."""
    begun_at: datetime
    """When it was begun."""
