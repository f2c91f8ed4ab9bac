"""ProcessServer: an appliance that receives, compresses, encrypts and uploads, or recovers machines."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_engine.contract.replication import ApplianceReport
from farshore_operator.api.bandwidth import Bandwidth
from farshore_operator.api.cel import Rule, checked, immutable
from farshore_operator.api.resource import (
    Column,
    Definition,
    Model,
    Reference,
    Resource,
    ResourceStatus,
    message_column,
    ready_column,
)
from farshore_operator.api.values import Quantity, Word

REFRESH_ANNOTATION = "farshore.dev/refresh"
"""Its value is a refresh request, echoed in `status.appliance.refreshed` once carried out."""


class Spool(Model):
    """The disk cache of the appliance, which holds what is not yet in the vault."""

    rules = (
        Rule(
            "!has(self.path) || self.path.startsWith('/')",
            "spool.path must be an absolute path on the appliance, such as /var/lib/farshore/spool",
            path=".path",
        ),
    )

    path: Annotated[str, Field(max_length=1024)] | None = None
    """Absolute path on the appliance. Default: `spool` in its state directory."""
    size: Quantity = 20 * 1024**3
    """Bytes that the spool may use, such as 20Gi; replication slows down when it is full. Default: 20Gi."""


class ProcessServerSpec(Model):
    """What the appliance should do."""

    site_ref: Annotated[
        Reference,
        Field(
            json_schema_extra=checked(
                immutable(
                    "spec.siteRef",
                    "a registration is valid for one site. Delete this ProcessServer and register the appliance "
                    "again with "
                    "a key of the other site",
                )
            )
        ),
    ]
    """Site that the appliance belongs to. It cannot be changed."""
    data_port: Annotated[
        int,
        Field(
            json_schema_extra=checked(
                Rule(
                    "self >= 1024 && self <= 65535 || self == 443",
                    "spec.dataPort must be 443 or from 1024 to 65535: choose another one, or leave it out for 9443",
                )
            )
        ),
    ] = 9443
    """TCP port that receives replication data from the machines. Default: 9443."""
    spool: Spool = Spool()
    """The disk cache. Default: 20Gi in the state directory."""
    bandwidth: Bandwidth | None = None
    """Limit of what the appliance uploads, over all its machines. Default: none."""


class RegistrationPhase(StrEnum):
    """How far the registration is."""

    PENDING = "Pending"  # the appliance has not sent its requests yet
    REGISTERED = "Registered"  # it has its token and its certificate
    REFUSED = "Refused"  # the Registered condition says why


class Registration(Model):
    """What the operator gives to the appliance."""

    phase: RegistrationPhase
    """Pending, Registered or Refused."""
    refused_contact: datetime | None = None
    """Refused: lastContact of the appliance's report that was refused; a newer report is not judged yet."""
    service_account: Word | None = None
    """ServiceAccount of the appliance."""
    sealed_token: Annotated[str, Field(max_length=16384)] | None = None
    """Token of that ServiceAccount, encrypted to the appliance's public key."""
    public_key: Word | None = None
    """The public key that the token is sealed to."""
    token_expires: datetime | None = None
    """When the sealed token expires. The appliance renews its token itself; one that was away for longer finds a new
    one here."""
    ca: Annotated[str, Field(max_length=16384)] | None = None
    """Certificate of the CA, in PEM."""
    certificate: Annotated[str, Field(max_length=16384)] | None = None
    """Certificate of the data port, in PEM."""
    certificate_expires: datetime | None = None
    """When that certificate expires; the appliance asks for a new one at two thirds of its life."""
    registered_at: datetime | None = None
    """When the appliance was registered."""


class ProcessServerStatus(ResourceStatus):
    """What is known of the appliance."""

    registration: Registration | None = None
    """What the operator gives to the appliance."""
    appliance: ApplianceReport | None = None
    """What the appliance says of itself; it alone writes this."""
    last_heartbeat: datetime | None = None
    """When the appliance last renewed its Lease, as the operator saw it."""
    assigned_machines: int | None = None
    """Number of machines that are assigned to it."""


class ProcessServer(Resource):
    """An appliance of a site: it installs agents, receives, compresses, encrypts and uploads data, and recovers
    machines."""

    definition = Definition(
        "ProcessServer",
        "processservers",
        ("ps",),
        (
            Column("Site", ".spec.siteRef.name", description="Site that it belongs to."),
            ready_column(),
            Column(
                "Registered",
                ".status.registration.phase",
                description="Pending, Registered or Refused.",
            ),
            Column("Last contact", ".status.appliance.lastContact", "date", description="Since it last reported."),
            Column("Machines", ".status.assignedMachines", "integer", description="Machines assigned to it."),
            Column("Address", ".status.appliance.address", wide=True, description="Where agents reach it."),
            Column("Version", ".status.appliance.version", wide=True, description="Version of the appliance."),
            message_column(),
        ),
    )

    kind: str = "ProcessServer"
    spec: ProcessServerSpec
    """What the appliance should do."""
    status: ProcessServerStatus = ProcessServerStatus()
    """What is known of the appliance."""
