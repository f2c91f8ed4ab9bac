"""A thin typed wrapper around the Kubernetes client: the few verbs that Farshore uses, with faults of its own.

Objects travel as JSON here (`Json`) and become models one layer up. All calls are thread-safe.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException

from farshore_operator.kube.faults import AlreadyExists, NotFound, refused, unreachable
from farshore_operator.kube.resources import SERVICE_ACCOUNT, Resource

Json = dict[str, Any]

TIMEOUT = (5.0, 20.0)
"""Seconds to connect and to answer."""

PAGE = 500

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


@dataclass(frozen=True)
class Token:
    """A ServiceAccount token and when it ends."""

    value: str
    expires: datetime

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Token(expires={self.expires:%Y-%m-%dT%H:%M:%SZ})"


@dataclass(frozen=True)
class Answer:
    """The API server's answer: its JSON, and its clock by the Date header (whole seconds), None without one."""

    body: Json
    clock: datetime | None


class Client:
    """The verbs of the Kubernetes API that Farshore uses.

    Args:
        api: the connection, made by `kube.connection`.
        manager: the field manager of everything that is applied.
    """

    def __init__(self, api: ApiClient, manager: str) -> None:
        self._api = api
        self.manager = manager

    def under(self, manager: str) -> Client:
        """Return a client of the same connection with another field manager."""
        return Client(self._api, manager)

    @property
    def server(self) -> str:
        """The API server's address."""
        return str(self._api.configuration.host)

    def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """Return an object, None if it does not exist."""
        try:
            return self._call(
                "GET", resource.path(namespace, name), f"reading {_label(resource, namespace, name)}"
            ).body
        except NotFound:
            return None

    def list_all(self, resource: Resource, namespace: str | None, *, labels: str = "", fields: str = "") -> list[Json]:
        """Return all objects of a namespace, or of the cluster (None), that match the selectors."""
        return [item for page in self._pages(resource, namespace, labels, fields) for item in page.get("items", [])]

    def list_with_version(self, resource: Resource, namespace: str | None) -> tuple[list[Json], str]:
        """Return all objects, and the resource version from which a watch continues: that of the list itself.

        An empty list has one too. A version that is asked for afterwards would hide what was made in between.
        """
        pages = list(self._pages(resource, namespace, "", ""))
        return [item for page in pages for item in page.get("items", [])], str(pages[-1]["metadata"]["resourceVersion"])

    def watch(
        self, resource: Resource, namespace: str, version: str, *, fields: str = "", seconds: int = 25
    ) -> Iterator[tuple[str, Json]]:
        """Yield (type, object) of each change after `version`, for at most `seconds`.

        Raises:
            WaitFault: the stream broke, or `version` is too old (type ERROR is raised as such): list again.
        """
        query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        if fields:
            query["fieldSelector"] = fields
        doing = f"watching {resource.plural}"
        response = self._send(
            "GET", f"{resource.path(namespace)}?{urlencode(query)}", doing, None, "", (5.0, seconds + 5.0)
        )
        try:
            buffer = b""
            for chunk in response.stream(65536):
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    if line:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            status = event["object"]
                            raise refused(doing, int(status.get("code", 500)), json.dumps(status).encode(), {})
                        yield event["type"], event["object"]
        except urllib3.exceptions.ReadTimeoutError:
            return  # a quiet stream; the caller opens the next one
        except urllib3.exceptions.HTTPError as error:
            raise unreachable(doing, error) from error
        finally:
            response.close()

    def create(self, resource: Resource, namespace: str, body: Json) -> Json:
        """Create an object. Raises AlreadyExists if the name is taken."""
        name = body["metadata"].get("name", "")
        full = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        path = f"{resource.path(namespace)}?fieldManager={self.manager}"
        return self._call("POST", path, f"creating {_label(resource, namespace, name)}", full).body

    def ensure(self, resource: Resource, namespace: str, body: Json) -> Json:
        """Create an object, or return the one that has its name."""
        try:
            return self.create(resource, namespace, body)
        except AlreadyExists:
            found = self.get(resource, namespace, body["metadata"]["name"])
            if found is None:
                raise
            return found

    def apply(self, resource: Resource, namespace: str, body: Json, subresource: str = "") -> Json:
        """Apply the fields in `body` server-side as this client's manager, taking them over from others.

        With `metadata.uid` in the body an object that is gone is not made again; with `resourceVersion` one that
        changed meanwhile raises Conflict.
        """
        name = body["metadata"]["name"]
        full = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        path = f"{resource.path(namespace, name, subresource)}?fieldManager={self.manager}&force=true"
        doing = f"writing {subresource or 'object'} of {_label(resource, namespace, name)}"
        return self._call("PATCH", path, doing, full, APPLY).body

    def dry_run(self, resource: Resource, namespace: str, body: Json, manager: str) -> Json:
        """Return the object as it would be if a field manager applied it; nothing is stored."""
        name = body["metadata"]["name"]
        query = {"fieldManager": manager, "force": "true", "dryRun": "All", "fieldValidation": "Strict"}
        full = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        path = f"{resource.path(namespace, name)}?{urlencode(query)}"
        return self._call("PATCH", path, f"a dry run of {_label(resource, namespace, name)}", full, APPLY).body

    def merge(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        """Merge-patch an object's metadata or spec (annotations a command sets, finalizers)."""
        path = f"{resource.path(namespace, name)}?fieldManager={self.manager}"
        return self._call("PATCH", path, f"patching {_label(resource, namespace, name)}", body, MERGE).body

    def delete(self, resource: Resource, namespace: str, name: str, *, uid: str = "") -> bool:
        """Delete an object (with `uid`: only that one), background propagation; False if it was not there."""
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self._call(
                "DELETE", resource.path(namespace, name), f"deleting {_label(resource, namespace, name)}", options
            )
        except NotFound:
            return False
        return True

    def request_token(
        self, namespace: str, account: str, seconds: int, *, bound_secret: tuple[str, str] | None = None
    ) -> Token:
        """Ask for a token of a ServiceAccount, bound to a Secret (name, uid) if given: deleting that revokes it."""
        spec: Json = {"expirationSeconds": seconds}
        if bound_secret:
            name, uid = bound_secret
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": uid}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = SERVICE_ACCOUNT.path(namespace, account, "token")
        status = self._call("POST", path, f"asking for a token of {namespace}/{account}", body).body["status"]
        return Token(status["token"], datetime.fromisoformat(status["expirationTimestamp"]))

    def whoami(self) -> tuple[str, tuple[str, ...]]:
        """Return user name and groups of whoever speaks, as the API server sees them."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        info = self._call("POST", path, "asking who this is", body).body["status"]["userInfo"]
        return str(info["username"]), tuple(info.get("groups") or ())

    def clock_skew(self) -> float:
        """Return how many seconds this host's clock is ahead of the API server's; about half a second exact."""
        before = time.time()
        answer = self._call("GET", "/version", "asking for the API server's clock")
        if answer.clock is None:
            return 0.0
        middle = (before + time.time()) / 2
        # The header has whole seconds: its instant is, on average, half a second later.
        return middle - (answer.clock.timestamp() + 0.5)

    def _pages(self, resource: Resource, namespace: str | None, labels: str, fields: str) -> Iterator[Json]:
        query = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        while True:
            doing = f"listing {resource.plural} in {namespace or 'all namespaces'}"
            body = self._call("GET", f"{resource.path(namespace)}?{urlencode(query)}", doing).body
            yield body
            query["continue"] = str(body["metadata"].get("continue") or "")
            if not query["continue"]:
                return

    def _call(self, method: str, path: str, doing: str, body: Json | None = None, content: str = "") -> Answer:
        response = self._send(method, path, doing, body, content, TIMEOUT)
        try:
            data = response.data
        except urllib3.exceptions.HTTPError as error:
            raise unreachable(doing, error) from error
        date = response.headers.get("Date")
        clock = parsedate_to_datetime(date).astimezone(UTC) if date else None
        return Answer(json.loads(data) if data else {}, clock)

    def _send(
        self, method: str, path: str, doing: str, body: Json | None, content: str, timeout: tuple[float, float]
    ) -> urllib3.BaseHTTPResponse:
        headers = urllib3.HTTPHeaderDict({"Accept": "application/json"})
        for name, value in urllib3.HTTPHeaderDict(self._api.default_headers).iteritems():
            if name.lower().startswith("impersonate-"):
                headers.add(name, value)
        if body is not None:
            headers["Content-Type"] = content or "application/json"
        for setting in self._api.configuration.auth_settings().values():
            if setting["value"]:
                headers["Authorization"] = setting["value"]
        url = self._api.configuration.host + path
        try:
            response = self._api.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=timeout
            ).response
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            raise unreachable(doing, error) from error
        if response.status >= 400:
            raise refused(doing, response.status, response.data, response.headers)
        answer: urllib3.BaseHTTPResponse = response
        return answer


def _label(resource: Resource, namespace: str, name: str) -> str:
    return f"{resource.kind} {namespace}/{name}" if name else f"a {resource.kind} in {namespace}"
