"""All previews of a tree together, and what they mean to a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from farshore_cli.planning.cluster import Cluster
from farshore_cli.planning.future import FutureWorld, changes
from farshore_cli.planning.manifests import Json, Tree
from farshore_cli.planning.preview import Preview, preview


class Verdict(IntEnum):
    """Exit codes of `farshore plan`."""

    HARMLESS = 0  # no machine is moved, nothing is in the way
    MOVES = 2  # a failover, failback, commit, abort, change of point or reprotect would start
    BLOCKED = 3  # something that the manifests ask for is refused, or could not start


@dataclass(frozen=True)
class Report:
    """What would happen."""

    previews: list[Preview]
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """What it means to a pipeline; what is blocked weighs more than what moves."""
        if any(one.blockers for one in self.previews):
            return Verdict.BLOCKED
        moves = any(run.moves for one in self.previews for run in one.runs)
        return Verdict.MOVES if moves else Verdict.HARMLESS

    @property
    def headline(self) -> str:
        """Return the sentence above all else."""
        differing = sum(one.change != "none" for one in self.previews)
        text = f"{differing} of {len(self.previews)} objects would change"
        runs = [f"{run.kind} {run.name}" for one in self.previews for run in one.runs]
        text += f"; would start: {', '.join(runs)}" if runs else "; no run would start"
        blocked = [f"{one.kind} {one.name}" for one in self.previews if one.blockers]
        return text + (f"; blocked: {', '.join(blocked)}" if blocked else "")


def report(tree: Tree, cluster: Cluster, now: Callable[[], datetime]) -> Report:
    """Compare a tree with a cluster, and decide as the operator would."""
    live: dict[tuple[str, str, str], Json] = {}
    for namespace in sorted({one.namespace for one in tree.manifests}):
        for body in cluster.objects(namespace):
            meta = body["metadata"]
            live[(body["kind"], meta["namespace"], meta["name"])] = body
    found = changes(tree, cluster, live)
    after = dict(live)
    for change in found:
        if not change.refused:
            after[(change.manifest.kind, change.manifest.namespace, change.manifest.name)] = change.after
    world = FutureWorld(after.values(), tree, cluster, now)
    previews = [preview(world, change, now()) for change in found]
    notes = list(tree.notes)
    if world.unknown_secrets:
        notes.append(
            f"Secrets may not be read here, and were taken as good: {', '.join(sorted(world.unknown_secrets))}"
        )
    return Report(previews, notes)
