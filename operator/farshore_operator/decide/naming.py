"""The names of everything that the operator makes, so that a repeated decision finds what an earlier one made."""

from __future__ import annotations

import hashlib

NAME_LENGTH = 253
LABEL_LENGTH = 63
MACHINE_NAME_LENGTH = 63

SITE_LABEL = "farshore.dev/site"
MACHINE_LABEL = "farshore.dev/protected-vm"
RUN_LABEL = "farshore.dev/run"
HOOK_LABEL = "farshore.dev/hook"
HOOK_ACCOUNT_LABEL = "farshore.dev/hooks"
HOOK_SECRET_TYPE = "farshore.dev/hook-headers"
KEY_TYPE = "farshore.dev/registration-key"
EXPIRES_ANNOTATION = "farshore.dev/expires"
KEY_ANNOTATION = "farshore.dev/registration-key"
DOCTOR_ANNOTATION = "farshore.dev/doctor-requested"
REFUSED_ANNOTATION = "farshore.dev/storage-refused"
"""What Azure said to the last `farshore vault create` of a vault, where that failed."""
TAKEN_UP_ANNOTATION = "farshore.dev/taken-up"
FORCE_DELETE_ANNOTATION = "farshore.dev/force-delete"
SCHEDULED_ANNOTATION = "farshore.dev/scheduled-at"


def bounded(name: str, length: int = NAME_LENGTH) -> str:
    """Return `name`, or when it is too long its beginning with a digest of the whole."""
    if len(name) <= length:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: length - 9].rstrip('-.')}-{digest}"


def registrar(site: str) -> str:
    """Return the ServiceAccount in whose name registration keys of a site are issued."""
    return bounded(f"farshore-registrar-{site}")


def appliance(server: str) -> str:
    """Return the ServiceAccount of a process server."""
    return bounded(f"farshore-ps-{server}")


def machine_id(namespace: str, name: str) -> str:
    """Return the identity of a machine in the vault."""
    return f"{namespace}.{name}"


def enrolment_secret(vm: str) -> str:
    """Return the Secret with the one-time tokens of manual installs of a machine: a key for each token."""
    return bounded(f"farshore-enrolment-{vm}")


def task(run: str, machine: str, step: str) -> str:
    """Return the name of a run's task."""
    return bounded(f"{run}-{machine}-{step.lower()}")


def label(value: str) -> str:
    """Return `value` as a label's value can hold it."""
    return bounded(value, LABEL_LENGTH)
