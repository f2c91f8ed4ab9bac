"""Calls the web service of a hook, and again while it may still answer. Neither headers nor answers are told or logged.

A call of this effect lasts at most some seconds, because it holds a worker; the decision asks for it again until the
hook's timeout. The service is told by `Idempotency-Key` that it is the same call.
"""

from __future__ import annotations

import base64
import binascii
from datetime import timedelta
from urllib.parse import urlsplit

import urllib3
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential, wait_random

from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_operator.act.effects import Effects
from farshore_operator.decide.actions import CallService, HookAnswered
from farshore_operator.decide.decision import Outcome
from farshore_operator.decide.naming import HOOK_SECRET_TYPE
from farshore_operator.kube.resources import SECRET

HOLDS = timedelta(seconds=15)
"""How long one effect repeats its call."""
AGAIN = (408, 425, 429)
HEADERS = {"Content-Type": "application/json", "User-Agent": "farshore-operator"}


def perform(effects: Effects, action: CallService) -> tuple[Outcome, ...]:
    """Call the service until it answers, for some seconds; say what came of it."""
    left = max(timedelta(seconds=1), action.deadline - effects.now())
    repeat = Retrying(
        stop=stop_after_delay(min(HOLDS, left).total_seconds()),
        wait=wait_exponential(multiplier=0.3, max=5.0) + wait_random(0, 0.3),
        retry=retry_if_exception_type(WaitFault),
        reraise=True,
    )
    try:
        headers = _headers(effects, action)
        status = repeat(_call, action, headers, left)
    except Fault as fault:
        over = False if isinstance(fault, StopFault) else None
        return (HookAnswered(action.step, over, fault.message, effects.now(), fault.remedy),)
    return (HookAnswered(action.step, True, f"{_doing(action)} answered {status}", effects.now()),)


def _doing(action: CallService) -> str:
    """Name the call; what follows the path of its URL may be a secret."""
    try:
        parts = urlsplit(action.http.url)
    except ValueError:
        return f"{action.http.method} to a URL that cannot be read"
    return f"{action.http.method} {parts.scheme}://{parts.hostname}{parts.path}"


def _call(action: CallService, headers: dict[str, str], left: timedelta) -> int:
    http = action.http
    doing = _doing(action)
    seconds = min(http.attempt_timeout, left).total_seconds()
    try:
        with urllib3.PoolManager(timeout=urllib3.Timeout(total=seconds)) as pool:
            # A redirect would carry the headers to a place that nobody declared.
            answer = pool.request(
                http.method.value, http.url, body=action.body.encode(), headers=headers, retries=False, redirect=False
            )
            status = int(answer.status)
    except urllib3.exceptions.HTTPError as error:
        raise WaitFault(f"{doing} was not answered: {type(error).__name__}. It is tried again") from error
    if 200 <= status < 300:
        return status
    if status in AGAIN or status >= 500:
        raise WaitFault(f"{doing} answered {status}; it is tried again")
    raise StopFault(f"{doing} answered {status}", "Correct the hook or the service, and start again")


def _headers(effects: Effects, action: CallService) -> dict[str, str]:
    headers = {**HEADERS, "Idempotency-Key": action.key}
    reference = action.http.headers_secret_ref
    if reference is None:
        return headers
    namespace, name = action.owner.namespace, reference.name
    found = effects.client.get(SECRET, namespace, name)
    if found is None:
        raise WaitFault(f"Secret {namespace}/{name} with the headers does not exist", "Make it")
    if found.get("type") != HOOK_SECRET_TYPE:
        raise StopFault(
            f"Secret {namespace}/{name} is not of type {HOOK_SECRET_TYPE}, and is not sent away",
            f"Make it anew: kubectl create secret generic {name} --type={HOOK_SECRET_TYPE} --from-literal=HEADER=VALUE",
        )
    for key, text in (found.get("data") or {}).items():
        try:
            value = base64.b64decode(text).decode("latin-1").strip()
        except (ValueError, binascii.Error) as error:
            raise StopFault(f"key {key} of Secret {namespace}/{name} cannot be a header", "Correct it") from error
        if "\n" in value or "\r" in value:
            raise StopFault(
                f"key {key} of Secret {namespace}/{name} has several lines, which no header has", "Correct it"
            )
        headers[key] = value
    return headers
