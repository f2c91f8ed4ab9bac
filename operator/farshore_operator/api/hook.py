"""What a plan does between its groups: run a job, call a web service, or wait for a person."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_operator.api.cel import Rule, exactly_one
from farshore_operator.api.resource import Model, Reference, map_by
from farshore_operator.api.values import Duration, Name, Text


class JobHook(Model):
    """Runs a Kubernetes Job in the plan's namespace, and waits until it is complete."""

    image: Annotated[str, Field(min_length=1, max_length=1024)]
    """Container image."""
    command: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    """Command and arguments. Default: the image's."""
    service_account_name: Name | None = None
    """ServiceAccount of the Job. Default: the namespace's default."""


class HTTPMethod(StrEnum):
    """The methods that a hook may use."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"


class HTTPHook(Model):
    """Calls a web service, which must answer with a status from 200 to 299."""

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
    """Secret whose entries are sent as headers, for authorization. Default: none."""


class ApprovalHook(Model):
    """Waits until a person approves (farshore approve RUN HOOK)."""

    message: Text
    """What the person should check."""


class OnFailure(StrEnum):
    """What a failed hook means to the run."""

    STOP = "Stop"
    CONTINUE = "Continue"


class Hook(Model):
    """One thing to do: exactly one of job, http and approval."""

    rules = (
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
    timeout: Duration = timedelta(minutes=10)
    """How long it may take; an approval waits without limit. Default: 10m."""
    on_failure: OnFailure = OnFailure.STOP
    """What a failure means to the run: Stop or Continue. Default: Stop."""


Hooks = Annotated[tuple[Hook, ...], Field(max_length=16, json_schema_extra=map_by("name"))]
