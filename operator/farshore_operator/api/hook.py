"""What a plan does between its groups: run a job, call a web service, or wait for a person."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_operator.api.cel import Rule, compare, exactly_one
from farshore_operator.api.resource import AS_SET, Model, Reference, map_by
from farshore_operator.api.values import Duration, Name, Text, Word


class JobHook(Model):
    """Runs a Kubernetes Job in the plan's namespace, and waits until it is complete.

    Its environment says what it is for: FARSHORE_RUN, FARSHORE_PLAN, FARSHORE_KIND (Failover, Failback, TestFailover),
    FARSHORE_GROUP, FARSHORE_WHEN (before or after), FARSHORE_HOOK, FARSHORE_MACHINES (names, separated by spaces).
    """

    image: Annotated[str, Field(min_length=1, max_length=1024)]
    """Container image."""
    command: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    """Command and arguments. Default: the image's."""
    service_account_name: Name | None = None
    """ServiceAccount of the Job, which must carry the label farshore.dev/hooks: "true", so that who may edit a plan
    does not act as any account of the namespace. Default: the namespace's default, without its token."""
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    """How often a pod that failed is started again. Default: 0."""


class HTTPMethod(StrEnum):
    """The methods that a hook may use."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"


class HTTPHook(Model):
    """Calls a web service, which must answer with a status from 200 to 299.

    A call that gets no answer, or 408, 425, 429 or 5xx, is repeated with growing pauses until the hook's timeout; any
    other answer fails the hook at once. The service may see a call twice: the header Idempotency-Key is the same in
    all.
    """

    rules = (
        Rule(
            "self.url.startsWith('https://') || self.url.startsWith('http://')",
            "http.url must begin with https:// or http://",
            path=".url",
        ),
    )

    url: Annotated[str, Field(max_length=2048)]
    """URL to call."""
    method: HTTPMethod = HTTPMethod.POST
    """GET, POST or PUT. Default: POST."""
    body: Text | None = None
    """Body of the request. Default: run, plan, group and members as JSON."""
    headers_secret_ref: Reference | None = None
    """Secret whose entries are sent as headers, for authorization. It must be of type farshore.dev/hook-headers, so
    that who may edit a plan does not send other Secrets away. Default: none."""
    attempt_timeout: Duration = timedelta(seconds=10)
    """How long one call may take, at most 1m. Default: 10s."""


class ApprovalHook(Model):
    """Waits until people approve (farshore approve RUN HOOK); one rejection fails the hook."""

    message: Text
    """What the person should check."""
    users: Annotated[tuple[Word, ...], Field(max_length=64, json_schema_extra=AS_SET)] = ()
    """User names of those who may approve. Default: whoever is in groups."""
    groups: Annotated[tuple[Word, ...], Field(max_length=64, json_schema_extra=AS_SET)] = ()
    """Groups whose members may approve. Default: whoever is in users; with neither, everybody who may create
    Approvals."""
    count: Annotated[int, Field(ge=1, le=10)] = 1
    """How many people must approve. Default: 1."""


class OnFailure(StrEnum):
    """What a failed hook means to the run."""

    STOP = "Stop"
    CONTINUE = "Continue"
    ROLL_BACK = "RollBack"


class Hook(Model):
    """One thing to do: exactly one of job, http and approval."""

    rules = (
        Rule(
            "!has(self.http) || !has(self.http.attemptTimeout) || " + compare("self.http.attemptTimeout", "<=", "'1m'"),
            "http.attemptTimeout is at most 1m; the hook's timeout says for how long the call is repeated",
        ),
        Rule(
            exactly_one("job", "http", "approval"),
            "a hook does exactly one thing: set one of job, http or approval, and write further ones as further hooks",
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of the hook, unique in its list, shown in the run's steps."""
    job: JobHook | None = None
    """Runs a Kubernetes Job."""
    http: HTTPHook | None = None
    """Calls a web service."""
    approval: ApprovalHook | None = None
    """Waits for a person."""
    timeout: Duration | None = None
    """How long it may take. Default: 10m for job and http; an approval waits without limit."""
    on_failure: OnFailure = OnFailure.STOP
    """What a failure means to the run: Stop (it fails, and waits for a person), Continue, or RollBack (it fails and is
    undone, as by abort; a drill is cleaned up). Default: Stop."""
    in_drills: bool = False
    """Whether a drill runs it too. Default: false, because hooks act on what is outside of a drill."""


Hooks = Annotated[tuple[Hook, ...], Field(max_length=16, json_schema_extra=map_by("name"))]
