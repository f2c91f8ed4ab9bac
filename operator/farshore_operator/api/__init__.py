"""The custom resources as models: the one source of the CRDs, the operator's types and what users read of them."""

from __future__ import annotations

from farshore_operator.api.approval import Approval
from farshore_operator.api.failoverplan import FailoverPlan
from farshore_operator.api.failoverrun import FailoverRun
from farshore_operator.api.processserver import ProcessServer
from farshore_operator.api.protectedvm import ProtectedVM
from farshore_operator.api.recoveryvault import RecoveryVault
from farshore_operator.api.replicationpolicy import ReplicationPolicy
from farshore_operator.api.resource import (
    CATEGORY,
    GROUP,
    VERSION,
    Condition,
    ConditionStatus,
    Definition,
    Metadata,
    Model,
    Reference,
    Resource,
    ResourceStatus,
)
from farshore_operator.api.site import Site
from farshore_operator.api.task import Task
from farshore_operator.api.testfailover import TestFailover

KINDS: tuple[type[Resource], ...] = (
    RecoveryVault,
    Site,
    ProcessServer,
    ReplicationPolicy,
    ProtectedVM,
    FailoverPlan,
    TestFailover,
    FailoverRun,
    Task,
    Approval,
)
"""Every kind, in the order in which a user meets them."""

__all__ = [
    "CATEGORY",
    "GROUP",
    "KINDS",
    "VERSION",
    "Approval",
    "Condition",
    "ConditionStatus",
    "Definition",
    "FailoverPlan",
    "FailoverRun",
    "Metadata",
    "Model",
    "ProcessServer",
    "ProtectedVM",
    "RecoveryVault",
    "Reference",
    "ReplicationPolicy",
    "Resource",
    "ResourceStatus",
    "Site",
    "Task",
    "TestFailover",
]
