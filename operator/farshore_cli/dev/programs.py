"""The command line of each program of the control plane, so that every flag stands with its reason in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from farshore_cli.dev.credentials import Credentials

ETCD, APISERVER, CONTROLLER_MANAGER = "etcd", "kube-apiserver", "kube-controller-manager"
PROGRAMS = (ETCD, APISERVER, CONTROLLER_MANAGER)
"""In the order in which they start."""

# These act on nodes, load balancers and volumes of a cloud, which there are none of here.
_IDLE_CONTROLLERS = (
    "cloud-node-lifecycle-controller",
    "horizontal-pod-autoscaler-controller",
    "node-ipam-controller",
    "node-lifecycle-controller",
    "node-route-controller",
    "persistentvolume-attach-detach-controller",
    "service-lb-controller",
    "taint-eviction-controller",
)


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1, kept for the life of the directory."""

    apiserver: int
    controller_manager: int
    etcd: int
    etcd_peer: int

    def of(self, program: str) -> int:
        """Give the port on which a program answers."""
        return {ETCD: self.etcd, APISERVER: self.apiserver, CONTROLLER_MANAGER: self.controller_manager}[program]


def arguments(program: str, directory: Path, credentials: Credentials, ports: Ports) -> list[str]:
    """Give the arguments of one of PROGRAMS, which keeps its data under `directory`."""
    flags = {ETCD: _etcd, APISERVER: _apiserver, CONTROLLER_MANAGER: _controller_manager}[program]
    return [f"--{name}={value}" for name, value in flags(directory, credentials, ports).items()]


def _etcd(directory: Path, credentials: Credentials, ports: Ports) -> dict[str, object]:
    client, peer = f"https://127.0.0.1:{ports.etcd}", f"https://127.0.0.1:{ports.etcd_peer}"
    pair = credentials.etcd
    return {
        "name": "dev",
        "data-dir": directory / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"dev={peer}",
        "client-cert-auth": "true",
        "trusted-ca-file": credentials.etcd_ca,
        "cert-file": pair.cert,
        "key-file": pair.key,
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": credentials.etcd_ca,
        "peer-cert-file": pair.cert,
        "peer-key-file": pair.key,
        # Safe against kill -9, not against loss of power: nobody keeps anything here.
        "unsafe-no-fsync": "true",
        # Alone, it elects itself after one time-out: the default costs a second or two of every start.
        "heartbeat-interval": 50,
        "election-timeout": 250,
        "logger": "zap",
        "log-level": "warn",
    }


def _apiserver(_directory: Path, credentials: Credentials, ports: Ports) -> dict[str, object]:
    return {
        "etcd-servers": f"https://127.0.0.1:{ports.etcd}",
        "etcd-cafile": credentials.etcd_ca,
        "etcd-certfile": credentials.etcd.cert,
        "etcd-keyfile": credentials.etcd.key,
        "secure-port": ports.apiserver,
        "bind-address": "127.0.0.1",
        # Else it looks for a default route, which a test network may not have.
        "advertise-address": "127.0.0.1",
        # The endpoints of Service default/kubernetes may not be loopback addresses, and nobody uses them.
        "endpoint-reconciler-type": "none",
        "client-ca-file": credentials.ca,
        "tls-cert-file": credentials.server.cert,
        "tls-private-key-file": credentials.server.key,
        "authorization-mode": "RBAC",
        "allow-privileged": "true",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": credentials.tokens.cert,
        "service-account-signing-key-file": credentials.tokens.key,
        "service-cluster-ip-range": "10.96.0.0/16",
        "profiling": "false",
    }


def _controller_manager(_directory: Path, credentials: Credentials, ports: Ports) -> dict[str, object]:
    return {
        "kubeconfig": credentials.controller_manager,
        "secure-port": ports.controller_manager,
        "bind-address": "127.0.0.1",
        "tls-cert-file": credentials.server.cert,
        "tls-private-key-file": credentials.server.key,
        "root-ca-file": credentials.ca,
        "service-account-private-key-file": credentials.tokens.key,
        # Each controller acts with its own minimal role, as in a real cluster.
        "use-service-account-credentials": "true",
        # There is only one, and a killed one must not be waited for.
        "leader-elect": "false",
        # Clean-up of a test's namespace should not crawl.
        "kube-api-qps": 200,
        "kube-api-burst": 400,
        "controllers": ",".join(["*", *(f"-{name}" for name in _IDLE_CONTROLLERS)]),
        "profiling": "false",
    }
