"""Calls to a Hub's Resource Manager, with the profile's API versions, through the pipelines of azure-core.

Long operations are waited for to their end. Whoever is cut off meanwhile repeats the call: what it finds decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline.policies import (
    ProxyPolicy,
    RedirectPolicy,
    RequestIdPolicy,
    RetryPolicy,
    UserAgentPolicy,
)
from azure.core.polling import LROPoller
from azure.core.rest import HttpRequest
from azure.identity import CertificateCredential, ClientSecretCredential
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy
from azure.mgmt.core.polling.arm_polling import ARMPolling

from farshore_engine.azurestack import faults
from farshore_engine.azurestack.metadata import TIMES, USER_AGENT, Endpoints, discover, verify
from farshore_engine.azurestack.profile import version_of
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.site import CloudSite

RETRIES = {"retry_total": 4, "retry_backoff_factor": 0.8, "retry_backoff_max": 20}
POLL_EVERY = 5.0
"""Seconds between two looks at a long operation where the Hub does not say Retry-After."""
LONGEST = 1800.0
"""Seconds after which an operation is left alone; the step is tried again and finds it under way or ended."""
Json = dict[str, Any]
R = TypeVar("R")


class ResourceManager:
    """Resource Manager of one site, for one thread at a time.

    Args:
        poll_every: seconds between two looks at a long operation that does not say Retry-After.
        options: of azure-core's retry policy, instead of `RETRIES`.

    Methods raise WaitFault when the Hub is away, throttles or is busy with the resource, and StopFault when it refuses.
    """

    def __init__(
        self, site: CloudSite, *, poll_every: float = POLL_EVERY, longest: float = LONGEST, **options: Any
    ) -> None:
        """Nothing is asked yet."""
        self.site = site
        self.endpoint = site.endpoint.rstrip("/")
        self._poll_every = poll_every
        self._longest = longest
        self._options = {**RETRIES, **options}
        self._endpoints: Endpoints | None = None
        self._client: ARMPipelineClient[Any, Any] | None = None
        self._credential: ClientSecretCredential | CertificateCredential | None = None

    def __enter__(self) -> ResourceManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
        if self._credential is not None:
            self._credential.close()
        self._client = self._credential = None

    def find(self, path: str, **query: str) -> Json | None:
        """Return a resource, None where there is none of that id."""
        try:
            return self._json(self._answer("GET", path, query=query))
        except AzureError as error:
            if faults.is_missing(error):
                return None
            raise faults.translate(error, f"read {_short(path)}", self.endpoint) from error

    def all(self, path: str) -> Iterator[Json]:
        """Yield the elements of a list, page by page."""
        link = path
        while link:
            page = self._page(f"list {_short(path)}", link)
            yield from page.get("value") or []
            link = str(page.get("nextLink") or "")

    def _page(self, what: str, link: str) -> Json:
        return self._asked(what, lambda: self._json(self._answer("GET", link)))

    def put(self, path: str, body: Mapping[str, Any]) -> Json:
        """Make a resource or replace it, and wait until that is done; return it."""
        return self._change("PUT", path, body, f"make {_short(path)}")

    def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        """Change a resource and wait until that is done; return it."""
        return self._change("PATCH", path, body, f"change {_short(path)}")

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: str) -> Json:
        """Do an action and wait until it is done; return what it gives."""
        name, action = path.rsplit("/", 1)
        return self._change("POST", path, body, f"{action} {_short(name)}", query)

    def delete(self, path: str) -> None:
        """Delete a resource, unless it is gone, and wait until that is done."""
        self._change("DELETE", path, None, f"delete {_short(path)}")

    def _change(
        self, method: str, path: str, body: Mapping[str, Any] | None, what: str, query: Mapping[str, str] | None = None
    ) -> Json:
        def change() -> Json:
            response = self._answer(method, path, body, query, raw=True)
            return self._retaken(lambda: self._wait(response, what))

        try:
            return self._asked(what, change)
        except StopFault as fault:
            if method == "DELETE" and fault.reason == "HubNotFound" and self.find(path) is None:
                return {}
            raise

    def _wait(self, response: Any, what: str) -> Json:
        """Wait for what a request has begun, given the answer to it; return what is there at the end."""
        polling = ARMPolling(self._poll_every, lro_options={"final-state-via": "azure-async-operation"})
        poller = LROPoller(self._pipeline(), response, lambda given: self._json(given.http_response), polling)
        result = poller.result(self._longest)
        if not poller.done():
            raise WaitFault(
                f"cannot {what}: the Hub has worked on it for {self._longest:.0f} s and is not done",
                "It goes on there, and is looked at again",
                reason="HubSlow",
            )
        return result or {}

    def _asked(self, what: str, ask: Callable[[], R]) -> R:
        try:
            return ask()
        except AzureError as error:
            raise faults.translate(error, what, self.endpoint) from error

    def _answer(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        *,
        raw: bool = False,
    ) -> Any:
        """Make one request; raises AzureError."""
        return self._retaken(lambda: self._send(method, path, body, query, raw))

    def _retaken(self, ask: Callable[[], R]) -> R:
        """Ask once more, with a new token, where the old one is no longer taken."""
        try:
            return ask()
        except HttpResponseError as error:
            if not faults.is_rejected_token(error):
                raise
        self.close()
        return ask()

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str] | None, raw: bool
    ) -> Any:
        if path.startswith("https://"):  # a link to the next page has its version already
            request = HttpRequest(method, path)
        else:
            given = {"api-version": version_of(path), **(query or {})}
            request = HttpRequest(method, self.endpoint + quote(path), params=given, json=body)
        response = self._pipeline().send_request(request, _return_pipeline_response=True)
        answer = response.http_response
        if answer.status_code >= 400:
            answer.read()
            raise HttpResponseError(response=answer)
        return response if raw else answer

    def _json(self, response: Any) -> Json:
        found = response.json() if response.text() else {}
        return found if isinstance(found, dict) else {}

    def _pipeline(self) -> ARMPipelineClient[Any, Any]:
        if self._client is None:
            self._endpoints = self._endpoints or discover(self.site, **self._options)
            self._credential = _credential(self.site, self._endpoints)
            policies = [
                RequestIdPolicy(),
                UserAgentPolicy(USER_AGENT),
                ProxyPolicy(),
                RedirectPolicy(),
                RetryPolicy(**self._options),
                ARMChallengeAuthenticationPolicy(self._credential, self._endpoints.scope),
            ]
            self._client = ARMPipelineClient(
                self.endpoint, policies=policies, connection_verify=verify(self.site), **TIMES
            )
        return self._client


def _credential(site: CloudSite, endpoints: Endpoints) -> ClientSecretCredential | CertificateCredential:
    """Log in as the site's principal. A Hub's machines have no managed identity: it has no instance metadata service.

    Source: "Azure Stack Hub VM features".
    """
    given = site.credential
    if given is None:
        raise StopFault(
            f"site {site.name} names no principal, and a Hub gives its machines no identity",
            "Set spec.azureStackHub.credentialsSecretRef",
            reason="HubLogin",
        )
    tenant = endpoints.tenant or given.tenant_id
    options: dict[str, Any] = {"authority": endpoints.authority, "disable_instance_discovery": True, "retry_total": 2}
    options |= {"connection_verify": verify(site), **TIMES}
    try:
        if given.client_secret is not None:
            return ClientSecretCredential(tenant, given.client_id, given.client_secret.get_secret_value(), **options)
        pem = given.certificate.get_secret_value().encode() if given.certificate else b""
        return CertificateCredential(tenant, given.client_id, certificate_data=pem, **options)
    except ValueError as error:
        raise StopFault(
            f"the login of site {site.name} is malformed",
            "Check tenantId, clientId and clientSecret or clientCertificate in its Secret",
            reason="HubLogin",
        ) from error


def _short(path: str) -> str:
    """Name a resource as people do: type and name."""
    segments = path.strip("/").split("/")
    return "/".join(segments[-2:]) if "providers" in segments else segments[-1]
