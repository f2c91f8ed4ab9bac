"""Makes connections to the Kubernetes API: from inside a pod, a kubeconfig, or an address with a token."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration

from farshore_engine.contract.faults import StopFault

CONNECTIONS = 32


def from_environment() -> ApiClient:
    """Connect as the pod's ServiceAccount, or else by the kubeconfig that kubectl would use.

    Raises:
        StopFault: there is neither.
    """
    configuration = _configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError, yaml.YAMLError) as error:
            raise StopFault(
                f"there is no way to reach a cluster: {' '.join(str(error).split())}",
                "Set KUBECONFIG to a kubeconfig that kubectl can use, or run inside a pod",
                reason="NoKubeconfig",
            ) from error
        return _impersonating(ApiClient(configuration))
    return ApiClient(configuration)


def _impersonating(api: ApiClient) -> ApiClient:
    """Let the connection act as the kubeconfig's `as` and `as-groups` say, which the Python client ignores.

    kubectl heeds them, and so does who acts as a break-glass group.
    """
    headers = urllib3.HTTPHeaderDict(api.default_headers)
    user = _active_user()
    if user.get("as"):
        headers.add("Impersonate-User", str(user["as"]))
        for group in user.get("as-groups") or ():
            headers.add("Impersonate-Group", str(group))
    api.default_headers = headers  # type: ignore[assignment]  # it takes any mapping, and groups come several times
    return api


def _active_user() -> dict[str, Any]:
    _, active = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
    name = active["context"].get("user")
    for file in os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep):
        path = Path(file).expanduser()
        content = yaml.safe_load(path.read_text()) if path.is_file() else None
        for one in (content or {}).get("users") or ():
            if one.get("name") == name:
                return one.get("user") or {}
    return {}


def with_token(server: str, authority: str, token: str) -> ApiClient:
    """Connect to `server` (URL), trusting the CA certificates in `authority` (PEM), with a bearer token."""
    configuration = _configuration()
    configuration.host = server
    configuration.ca_cert_data = authority
    configuration.api_key["BearerToken"] = f"Bearer {token}"
    return ApiClient(configuration)


def current_namespace() -> str:
    """Return the namespace of the kubeconfig's current context, or of the pod; `default` if neither says."""
    mounted = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    if mounted.is_file():
        return mounted.read_text().strip()
    try:
        _, active = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError, yaml.YAMLError):
        return "default"
    return str(active["context"].get("namespace") or "default")


def authority_of(api: ApiClient) -> str:
    """Return the CA certificates (PEM) that `api` trusts; empty if it uses the system's."""
    data = api.configuration.ca_cert_data
    if data:
        return data.decode() if isinstance(data, bytes) else str(data)
    file = api.configuration.ssl_ca_cert
    return Path(file).read_text() if file else ""


def _configuration() -> Configuration:
    configuration = Configuration()
    # A call is repeated by the work queue or the appliance's loop, which know what is still wanted.
    configuration.retries = urllib3.Retry(total=0, redirect=0)
    configuration.connection_pool_maxsize = CONNECTIONS
    return configuration
