"""Which observer and which decision belong to each kind; the only list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from farshore_operator import api
from farshore_operator.decide import (
    failoverplan,
    failoverrun,
    processserver,
    protectedvm,
    recoveryvault,
    replicationpolicy,
    site,
    testfailover,
)
from farshore_operator.decide.decision import Decision, Outcome
from farshore_operator.observe import processserver as observe_processserver
from farshore_operator.observe import protectedvm as observe_protectedvm
from farshore_operator.observe import recoveryvault as observe_recoveryvault
from farshore_operator.observe import replicationpolicy as observe_replicationpolicy
from farshore_operator.observe import runs as observe_runs
from farshore_operator.observe import site as observe_site
from farshore_operator.observe.world import World


@dataclass(frozen=True)
class Kind:
    """How a kind is reconciled. The types that these functions share are those of one kind, so `Any` joins them.

    Attributes:
        foreign: fields of its status that another component owns.
    """

    model: type[api.Resource]
    observe: Callable[[World, Any], Any]
    decide: Callable[[Any, datetime], Decision[Any]]
    fold: Callable[[Any, Outcome], Any]
    foreign: frozenset[str] = frozenset()


_ALL = (
    Kind(api.Site, observe_site.observe, site.decide, site.fold),
    Kind(
        api.RecoveryVault,
        observe_recoveryvault.observe,
        recoveryvault.decide,
        recoveryvault.fold,
        frozenset({"siteRecovery"}),
    ),
    Kind(api.ReplicationPolicy, observe_replicationpolicy.observe, replicationpolicy.decide, replicationpolicy.fold),
    Kind(
        api.ProcessServer,
        observe_processserver.observe,
        processserver.decide,
        processserver.fold,
        frozenset({"appliance"}),
    ),
    Kind(
        api.ProtectedVM, observe_protectedvm.observe, protectedvm.decide, protectedvm.fold, frozenset({"replication"})
    ),
    Kind(
        api.FailoverPlan,
        observe_runs.observe_plan,
        failoverplan.decide,
        failoverplan.fold,
        frozenset({"siteRecovery"}),
    ),
    Kind(api.TestFailover, observe_runs.observe_drill, testfailover.decide, testfailover.fold),
    Kind(api.FailoverRun, observe_runs.observe_run, failoverrun.decide, failoverrun.fold),
)
KINDS = {kind.model.definition.kind: kind for kind in _ALL}
