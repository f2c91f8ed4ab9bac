"""The clients of one cloud: made from what a site says, by public options of the SDKs only, and asked through one door.

A cloud is kept for as long as its site is the same, so that tasks share tokens and connections.
"""

from __future__ import annotations

import os
import ssl
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import SansIOHTTPPolicy

from farshore_engine.azure.faults import NOT_FOUND, code_of, fault_of, redact_logs
from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.site import CloudSite
from farshore_engine.vault.tokenlogin import token_login

PUBLIC = "https://management.azure.com"
POLL_SECONDS = 5.0
"""Seconds between two looks at an operation, where Azure names none."""
LOOK = 0.5  # seconds after which it is seen whether the task was called off
TIMES = {"connection_timeout": 10.0, "read_timeout": 60.0, "retry_total": 3, "retry_backoff_max": 10}
ABSENT = ("ResourceNotFound", "NotFound", "ResourceGroupNotFound", "")
REFUSED = 400  # the first HTTP status of those that refuse
Tell = Callable[[], None]


def plain(value: Any) -> str:
    """Return a word of the SDKs as text: the value of one that they know, anything else as it came, "" for none."""
    return str(getattr(value, "value", value) or "")


def quiet() -> None:
    """Tell nobody that an operation goes on."""


class Cloud:
    """One subscription as a principal of a site sees it. Thread-safe.

    Args:
        site: where it is, and who asks.
    """

    def __init__(self, site: CloudSite) -> None:
        redact_logs()
        self.site = site
        self.stale = False  # its token was refused: who comes next begins with a new one
        self._bundle = _bundle(site.ca_bundle)
        self._remove = weakref.finalize(self, _unlink, self._bundle)
        self._made: list[Any] = []
        self._lock = threading.RLock()
        self._kept: dict[str, tuple[float, Any]] = {}

    @property
    def verify(self) -> bool | str:
        """What certificates are checked with, for clients of the same cloud."""
        return str(self._bundle) if self._bundle is not None else True

    @property
    def options(self) -> dict[str, Any]:
        """Options for clients of the same cloud's data: patience, and what certificates are checked with."""
        return {**TIMES, "connection_verify": self.verify}

    @cached_property
    def compute(self) -> Any:
        """Machines, disks, sizes, quotas."""
        from azure.mgmt.compute import ComputeManagementClient

        return self._client(ComputeManagementClient)

    @cached_property
    def network(self) -> Any:
        """Virtual networks and interfaces."""
        from azure.mgmt.network import NetworkManagementClient

        return self._client(NetworkManagementClient)

    @cached_property
    def resources(self) -> Any:
        """Resource groups and providers."""
        from azure.mgmt.resource.resources import ResourceManagementClient

        return self._client(ResourceManagementClient)

    @cached_property
    def storage(self) -> Any:
        """Storage accounts."""
        from azure.mgmt.storage import StorageManagementClient

        return self._client(StorageManagementClient)

    @cached_property
    def authorization(self) -> Any:
        """What the principal may do."""
        from azure.mgmt.authorization import AuthorizationManagementClient

        return self._client(AuthorizationManagementClient)

    def ask(self, what: str, request: Callable[[], Any]) -> Any:
        """Return the answer to a request; raises Fault, "cannot <what>: ..."."""
        try:
            return request()
        except AzureError as error:
            raise self._fault(what, error) from None
        except ValueError as error:  # the SDK's own checks of a malformed tenant or certificate
            raise StopFault(
                f"cannot {what}: {type(error).__name__} in the site's settings or credentials",
                "Check the site and tenantId, clientId, clientSecret or clientCertificate in its Secret",
                reason="BadSite",
            ) from None

    def all(self, what: str, request: Callable[[], Any]) -> list[Any]:
        """Return all items of a list, whatever pages it comes in; raises Fault."""
        return list(self.ask(what, lambda: list(request())))

    def find(self, what: str, request: Callable[[], Any]) -> Any:
        """Return the answer, None where what is asked for does not exist; raises Fault."""
        try:
            return request()
        except ResourceNotFoundError as error:
            if code_of(error) in ABSENT:
                return None
            raise self._fault(what, error) from None
        except AzureError as error:
            raise self._fault(what, error) from None

    def finish(self, what: str, begin: Callable[[], Any], tell: Tell = quiet) -> Any:
        """Begin an operation and return its result when it has ended; raises Fault.

        Args:
            tell: called again and again meanwhile; what it raises ends the waiting, not the operation.
        """
        poller = self.ask(what, begin)
        while not poller.done():
            tell()
            self.ask(what, lambda: poller.wait(LOOK))
        return self.ask(what, poller.result)

    def gone(self, what: str, begin: Callable[[], Any], tell: Tell = quiet) -> None:
        """Delete something, also if it is gone already; raises Fault."""
        try:
            self.finish(what, begin, tell)
        except Fault as fault:
            if fault.reason != NOT_FOUND:
                raise

    def kept(self, name: str, seconds: float, look: Callable[[], Any]) -> Any:
        """Return what a look found at most so many seconds ago; it looks again where that is longer ago."""
        with self._lock:
            at, known = self._kept.get(name, (float("-inf"), None))
        if time.monotonic() - at < seconds:
            return known
        known = look()
        with self._lock:
            self._kept[name] = (time.monotonic(), known)
        return known

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for one in self._made:
                one.close()
            self._made.clear()
            self._remove()

    def _client(self, kind: Any) -> Any:
        with self._lock:
            endpoint = self.site.endpoint or PUBLIC
            made = kind(
                self._credential,
                self.site.subscription,
                base_url=endpoint,
                credential_scopes=[f"{endpoint}/.default"],
                connection_verify=self.verify,
                polling_interval=POLL_SECONDS,
                per_retry_policies=[_Reading()],
                **TIMES,
            )
            self._made.append(made)
            return made

    @property
    def credential(self) -> Any:
        """What clients of the same cloud's data log in with: the site's own principal."""
        return self._credential

    @cached_property
    def _credential(self) -> Any:
        made = token_login(self.site.credential, self.site.authority, self.verify, TIMES)
        self._made.append(made)
        return made

    def _fault(self, what: str, error: AzureError) -> Fault:
        fault = fault_of(what, error)
        self.stale |= fault.reason in ("TokenExpired", "LoginRefused")
        return fault


class _Reading(SansIOHTTPPolicy[Any, Any]):
    """Reads what a refusal says to its end: the SDKs forget an answer after which they ask again, half read where the
    call began an operation, and its connection would stay open for as long as the garbage collector lets it."""

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:
        if response.http_response.status_code >= REFUSED:
            response.http_response.read()


def _bundle(pem: str) -> Path | None:
    """Make a file with the CAs of this host and the site's, None where there is none of its own."""
    if not pem:
        return None
    public = ssl.get_default_verify_paths().cafile
    known = Path(public).read_text() if public and Path(public).is_file() else ""
    descriptor, name = tempfile.mkstemp(prefix="farshore-ca-", suffix=".pem")
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{known}\n{pem}\n")
    return Path(name)


def _unlink(path: Path | None) -> None:
    if path is not None:
        path.unlink(missing_ok=True)


_CLOUDS: dict[CloudSite, Cloud] = {}
_LOCK = threading.Lock()
MOST = 16  # clouds that are kept


def cloud_of(site: CloudSite | None) -> Cloud:
    """Return the cloud of a site: the same one for the same site, until its token was refused.

    Raises:
        StopFault: there is no site.
    """
    if site is None:
        raise StopFault("the task names no site", "This is a bug of the operator", reason="BadTask")
    with _LOCK:
        known = _CLOUDS.get(site)
        if known is None or known.stale:
            if len(_CLOUDS) >= MOST:
                _CLOUDS.pop(next(iter(_CLOUDS)))
            known = _CLOUDS[site] = Cloud(site)
        return known


def close_clouds() -> None:
    """Close and forget all clouds."""
    with _LOCK:
        for cloud in _CLOUDS.values():
            cloud.close()
        _CLOUDS.clear()
