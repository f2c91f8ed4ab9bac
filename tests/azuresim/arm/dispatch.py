"""From a request to its answer: faults, token, version, rights, registration, group, models, handler, operation."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from tests.azuresim.arm import strict
from tests.azuresim.arm.call import Asked, Call, Later
from tests.azuresim.arm.errors import ArmError, SimulatorBug
from tests.azuresim.arm.faults import Fault, Kind
from tests.azuresim.arm.identity import Principal, expired
from tests.azuresim.arm.operations import Operation, now
from tests.azuresim.arm.registry import Route
from tests.azuresim.arm.store import missing

if TYPE_CHECKING:
    from tests.azuresim.sim import AzureSim

REGISTER_FIRST = ("PUT", "PATCH", "POST", "DELETE")


class Dropped(Exception):
    """The connection is to be closed without an answer."""


@dataclass
class Answer:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


def answer(sim: AzureSim, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> Answer:
    """Serve one call to Resource Manager. Raises Dropped."""
    parts = urlsplit(target)
    # the SDKs leave an empty segment where a resource has no parent
    path, query = re.sub("/{2,}", "/", unquote(parts.path)), dict(parse_qsl(parts.query, keep_blank_values=True))
    asked = Asked(method, path, query, headers, raw)
    fault = sim.faults.strike("arm", method, path)
    if fault is not None and fault.kind is Kind.LOSE_REQUEST:
        sim.record("arm", asked, None, 0)
        raise Dropped
    who: Principal | None = None
    try:
        route = sim.arm.find(method, path)[0] if path.lower() not in sim.operations.by_path else None
        if route is None or not route.anonymous:
            who = _who(sim, headers, fault)
        _refuse_if_planned(fault)
        given = _serve(sim, asked, who, fault)
    except ArmError as error:
        given = Answer(error.status, error.body, dict(error.headers))
    except SimulatorBug as bug:
        sim.bugs.append(f"{method} {path}: {bug}")
        given = Answer(500, {"error": {"code": "SimulatorBug", "message": str(bug)}})
    sim.record("arm", asked, who, given.status)
    if fault is not None and fault.kind is Kind.LOSE_RESPONSE:
        raise Dropped
    return given


def _who(sim: AzureSim, headers: Mapping[str, str], fault: Fault | None) -> Principal:
    base = sim.authority_url
    if fault is not None and fault.kind is Kind.EXPIRED:
        if fault.revoke:
            sim.tokens.revoke_all()
        raise expired(f'Bearer authorization_uri="{base}/{sim.tenant}", error="invalid_token", error_description=')
    if fault is not None and fault.kind is Kind.CLAIMS:
        # source: learn.microsoft.com/entra/identity-platform/app-resilience-continuous-access-evaluation
        claims = base64.b64encode(b'{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}').decode()
        raise ArmError(
            401, "InvalidAuthenticationToken", "Continuous access evaluation resulted in challenge.",
            headers={"WWW-Authenticate": f'Bearer authorization_uri="{base}/{sim.tenant}", error="insufficient_claims",'
                     f' claims="{claims}"'},
        )  # fmt: skip
    return sim.tokens.check(headers.get("Authorization", ""), base)


def _refuse_if_planned(fault: Fault | None) -> None:
    if fault is not None and fault.kind is Kind.REFUSE and fault.error is not None:
        raise fault.error


def _serve(sim: AzureSim, asked: Asked, who: Principal | None, fault: Fault | None) -> Answer:
    method, path, query = asked.method, asked.path, asked.query
    if method == "GET" and (found := sim.operations.by_path.get(path.lower())):
        return _operation(sim, *found, query.get("monitor") == "true")
    route, args = sim.arm.find(method, path)
    version = query.get("api-version", "")
    sim.arm.check_version(route, version)
    _may(sim, route, path, args, who)
    body = _body(route, asked.raw)
    call = Call(sim, route, method, path, args, query, asked.headers, version, who or Principal("", ""), body)
    sim.operations.look_at_resource(call.resource_id)
    if method == "GET":
        _unseen(sim, path)
    done = route.handler(call)
    if fault is not None and fault.kind is Kind.STALE:
        sim.unseen[path.lower()] = fault.polls
    if isinstance(done, Later):
        return _accepted(sim, call, done, fault)
    if fault is not None and fault.kind in (Kind.FAIL_AT_END, Kind.CANCELED) and fault.error is not None:
        raise fault.error
    content = done.body if method != "GET" else _page(sim, call, _seen(sim, done.body))
    if route.items is not None and isinstance(content, dict):
        given = {**content, "value": [strict.write(route.items, one) for one in content["value"]]}
        return Answer(done.status, given, dict(done.headers))
    return Answer(done.status, strict.write(done.model or route.reply, content), dict(done.headers))


def _may(sim: AzureSim, route: Route, path: str, args: Mapping[str, str], who: Principal | None) -> None:
    if who is None:
        return
    subscription = args.get("subscription", "")
    if subscription and subscription.lower() != sim.subscription.lower():
        raise ArmError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
    if not sim.roles.allowed(who, route.action, path):
        # source: learn.microsoft.com/azure/role-based-access-control/troubleshooting, "AuthorizationFailed"
        raise ArmError(
            403, "AuthorizationFailed",
            f"The client '{who.client_id}' with object id '{who.object_id}' does not have authorization to perform "
            f"action '{route.action}' over scope '{path}' or the scope is invalid. If access was recently granted, "
            f"please "
            "refresh your credentials.",
        )  # fmt: skip
    if "group" in args and sim.store.get(f"/subscriptions/{subscription}/resourceGroups/{args['group']}") is None:
        created = route.method in ("PUT", "HEAD") and route.kind.lower().endswith("/resourcegroups")
        if not created:
            raise missing(f"/subscriptions/{subscription}/resourceGroups/{args['group']}")
    if route.method in REGISTER_FIRST and not sim.registered(route.namespace):
        # source: learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-register-resource-provider
        message = (
            f"The subscription is not registered to use namespace '{route.namespace}'. See https://aka.ms/rps-not-found"
            " for how to register subscriptions."
        )
        raise ArmError(
            409, "MissingSubscriptionRegistration",
            message, details=[
                {"code": "MissingSubscriptionRegistration", "target": route.namespace, "message": message}
            ],
        )  # fmt: skip


def _body(route: Route, raw: bytes) -> Any:
    """Source of the code: Azure docs, azure-resource-manager/troubleshooting/common-deployment-errors."""
    if not raw.strip():
        if route.body is not None and not route.body_optional:
            raise ArmError(400, "InvalidRequestContent", "The request content was invalid: a request body is required.")
        return None
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise ArmError(
            400, "InvalidRequestContent", f"The request content was invalid and could not be deserialized: '{error}'."
        ) from error
    return strict.read(route.body, content)


def _unseen(sim: AzureSim, path: str) -> None:
    left = sim.unseen.get(path.lower(), 0)
    if left > 0:
        sim.unseen[path.lower()] = left - 1
        raise missing(path)


def _seen(sim: AzureSim, body: Any) -> Any:
    """A list without what is not seen yet."""
    if not (isinstance(body, dict) and isinstance(body.get("value"), list)):
        return body
    shown = []
    for one in body["value"]:
        key = str(one.get("id", "")).lower() if isinstance(one, dict) else ""
        if sim.unseen.get(key, 0) > 0:
            sim.unseen[key] -= 1
        else:
            shown.append(one)
    return {**body, "value": shown}


def _page(sim: AzureSim, call: Call, body: Any) -> Any:
    """Cut a list into pages of `sim.page_size`, linked by nextLink (source: ARM RPC, resource-api-reference.md)."""
    if not (isinstance(body, dict) and isinstance(body.get("value"), list)):
        return body
    begin = int(call.query.get("$skiptoken", "0") or 0)
    rest = body["value"][begin:]
    if len(rest) <= sim.page_size:
        return {**body, "value": rest}
    query = {**call.query, "$skiptoken": str(begin + sim.page_size)}
    link = f"{sim.endpoint}{quote(call.path)}?{urlencode(query)}"
    return {**body, "value": rest[: sim.page_size], "nextLink": link}


def _accepted(sim: AzureSim, call: Call, later: Later, fault: Fault | None) -> Answer:
    identity = sim.operations.new_id(later.operation)
    base = f"/subscriptions/{sim.subscription}/providers/{call.route.namespace}/locations/{sim.region}"
    status = f"{base}/operations/{{operation}}" if later.status_path is None else later.status_path
    result = f"{base}/operationResults/{{operation}}" if later.result_path is None else later.result_path
    operation = Operation(
        identity, later, status.format(operation=identity), result.format(operation=identity), call.api_version,
        sim.operations.pace.polls, now(), method=call.method, path=call.path,
    )  # fmt: skip
    if fault is not None and fault.kind in (Kind.FAIL_AT_END, Kind.CANCELED):
        operation.planned, operation.canceled = fault.error, fault.kind is Kind.CANCELED
    sim.operations.begin(operation)
    given = strict.write(call.route.reply, later.body) if later.status != 202 or later.body is not None else None
    return Answer(later.status, given, _links(sim, operation))


def _links(sim: AzureSim, operation: Operation) -> dict[str, str]:
    headers = {"Retry-After": str(sim.operations.pace.retry_after)}
    version = f"?api-version={operation.api_version}"
    for header, url in (("Azure-AsyncOperation", operation.status_path), ("Location", operation.result_path)):
        path, _, extra = url.partition("?")
        if path:
            headers[header] = f"{sim.endpoint}{quote(path)}{version}{'&' + extra if extra else ''}"
    return headers


def _operation(sim: AzureSim, operation: Operation, is_status: bool, monitor: bool) -> Answer:
    sim.operations.look(operation)
    if is_status and not monitor:
        headers = {} if operation.ended else {"Retry-After": str(sim.operations.pace.retry_after)}
        return Answer(200, operation.body(), headers)
    if not operation.ended:
        return Answer(202, None, _links(sim, operation))
    if operation.error is not None:
        raise operation.error
    content = strict.write(operation.later.result_model, operation.result)
    return Answer(operation.later.result_status or (204 if content is None else 200), content)
