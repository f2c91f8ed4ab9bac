"""Every action that a decision can ask for. What an action does, and that it can be repeated, is in `act/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from farshore_operator.api.hook import HTTPHook, JobHook
from farshore_operator.decide.decision import Action, Outcome


@dataclass(frozen=True)
class ObjectId:
    """An existing object: what an owner reference or a precondition needs."""

    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class PolicyRule:
    """One rule of an RBAC Role."""

    groups: tuple[str, ...]
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class GrantAccount(Action):
    """Let a ServiceAccount exist, with a Role of these rules bound to it, all owned by `owner`."""

    owner: ObjectId
    name: str
    rules: tuple[PolicyRule, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EnsureAuthority(Action):
    """Let the namespace have its certificate authority."""

    namespace: str


@dataclass(frozen=True)
class EnsureLease(Action):
    """Let the Lease exist that a process server renews."""

    owner: ObjectId


@dataclass(frozen=True)
class SignProcessServer(Action):
    """Sign a process server's certificate request for its address."""

    namespace: str
    request: str
    address: str


@dataclass(frozen=True)
class SignMachine(Action):
    """Sign a machine's certificate request for its machine id."""

    namespace: str
    request: str
    machine_id: str


@dataclass(frozen=True)
class SealToken(Action):
    """Issue a token of a ServiceAccount, sealed to a process server's public key."""

    namespace: str
    account: str
    public_key: str
    process_server: str


@dataclass(frozen=True)
class SetFinalizer(Action):
    """Hold an object back from deletion, or let it go."""

    target: ObjectId
    present: bool


@dataclass(frozen=True)
class CreateOwned(Action):
    """Create an object of ours under a deterministic name, unless it exists.

    `owner` None makes an object that outlives what caused it.
    """

    kind: str
    namespace: str
    name: str
    spec: Mapping[str, Any]
    owner: ObjectId | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DeleteOwned(Action):
    """Delete an object that the operator made: this one, not another of its name."""

    target: ObjectId


@dataclass(frozen=True)
class RunJob(Action):
    """Let the Job of a hook exist, owned by its run; `step` is the hook's step, `seconds` the Job's deadline."""

    owner: ObjectId
    step: str
    name: str
    job: JobHook
    environment: Mapping[str, str]
    seconds: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CallService(Action):
    """Call the web service of a hook for a while; `key` is the same in each call of the same hook of the same run."""

    owner: ObjectId
    step: str
    http: HTTPHook
    body: str
    key: str
    deadline: datetime


@dataclass(frozen=True)
class HookAnswered(Outcome):
    """What a hook's call or Job brought at once; `succeeded` None if it goes on."""

    step: str
    succeeded: bool | None
    message: str
    at: datetime
    remedy: str = ""


class JobState(StrEnum):
    """Where the Job of a hook is."""

    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True)
class JobFacts:
    """The Job of a hook, as it was found; `foreign` if it does not belong to the run."""

    state: JobState
    message: str
    foreign: bool = False


@dataclass(frozen=True)
class Certified(Outcome):
    """A certificate was signed: PEM with the CA's behind it, the CA's PEM, and when it ends."""

    certificate: str
    authority: str
    expires: datetime


@dataclass(frozen=True)
class AuthorityKnown(Outcome):
    """The CA's certificate, PEM."""

    authority: str


@dataclass(frozen=True)
class TokenSealed(Outcome):
    """A token was issued and sealed."""

    sealed: str
    public_key: str
    expires: datetime
