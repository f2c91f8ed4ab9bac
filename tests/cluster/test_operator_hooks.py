"""Hooks of plans on a real control plane: Jobs, calls of a web service, people who approve; and who asked for a run."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.cluster.api_objects import Caller
from tests.cluster.moving_scene import PLAN, VM, Scene, approve
from tests.cluster.operator_process import condition, samples
from tests.cluster.waiting import eventually

from farshore_engine.contract.tasks import TaskKind
from farshore_operator.api import FailoverRun
from farshore_operator.api.failoverrun import RunPhase, StepPhase
from farshore_operator.kube.resources import JOB, KUSTOMIZATION

SECRET_VALUE = f"Bearer {secrets.token_hex(16)}"


class Service:
    """A web service that answers 503 first, and remembers what it was sent."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service.calls.append((dict(self.headers), json.loads(body)))
                self.send_response(503 if len(service.calls) == 1 else 204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/drain"

    def __enter__(self) -> Service:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def phases(run: FailoverRun) -> dict[str, StepPhase]:
    return {step.name: step.phase for step in run.status.steps}


def end_job(scene: Scene, phase: str) -> dict[str, Any]:
    """Play the kubelet: let the pod of the only Job end."""
    kubectl = scene.world.plane.kubectl
    space = ("-n", scene.namespace)
    eventually(lambda: "pod/" in kubectl(*space, "get", "pods", "-o", "name").stdout, "the Job made no pod")
    pod = kubectl(*space, "get", "pods", "-o", "name").stdout.split()[0]
    state = {"terminated": {"exitCode": 0 if phase == "Succeeded" else 1, "reason": "Ended"}}
    container = {"name": "hook", "image": "x", "imageID": "x", "ready": False, "restartCount": 0, "state": state}
    status = {"phase": phase, "containerStatuses": [container]}
    (job,) = scene.world.admin.list_all(JOB, scene.namespace)  # the operator may remove it once it has ended
    kubectl(*space, "patch", pod, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    return job


def test_a_job_a_call_and_two_people(scene: Scene) -> None:
    """One plan with everything: the machine waits for the Job and the people, the call comes when it answers."""
    world, namespace = scene.world, scene.namespace
    encoded = base64.b64encode(SECRET_VALUE.encode()).decode()
    meta = {"name": "lb"}
    world.apply(
        namespace,
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "farshore.dev/hook-headers",
         "data": {"Authorization": encoded}},
    )  # fmt: skip
    with Service() as service:
        people = {"message": "Is it dark?", "users": ["ann"], "groups": ["dba"], "count": 2}
        scene.plan(
            [{"name": "dump", "job": {"image": "tools", "command": ["dump"]}}, {"name": "go", "approval": people}],
            [{"name": "lb", "http": {"url": service.url, "headersSecretRef": {"name": "lb"}}}],
        )
        scene.fail_over()
        name = scene.run().metadata.name
        job = end_job(scene, "Succeeded")
        variables = {one["name"]: one["value"] for one in job["spec"]["template"]["spec"]["containers"][0]["env"]}
        assert (variables["FARSHORE_RUN"], variables["FARSHORE_MACHINES"]) == (name, VM)
        assert job["metadata"]["ownerReferences"][0]["kind"] == "FailoverRun"
        waits = scene.wait_run(name, lambda run: condition(run, "AwaitingApproval") == "True")
        assert condition(waits, "Ready") == "True", "waiting for a person is as designed"
        assert waits.status.next_step == f"farshore approve {name} web/before/go"
        assert scene.shore.done[TaskKind.HYDRATE] == 0
        approve(scene, name, "ann")
        approve(scene, name, "mallory")
        world.kill_operator()
        approve(scene, name, "zoe", "dba")
        world.start_operator()
        done = scene.wait_run(name, lambda run: run.status.phase is RunPhase.SUCCEEDED)
        assert {step.message for step in done.status.steps if step.name == "web/before/go"} == {"approved by ann, zoe"}
    assert len(service.calls) == 2, "503, then again"
    headers, document = service.calls[1]
    assert headers["Authorization"] == SECRET_VALUE
    assert service.calls[0][0]["Idempotency-Key"] == headers["Idempotency-Key"]
    assert (document["run"], document["group"], document["when"], document["machines"]) == (name, "web", "after", [VM])
    assert SECRET_VALUE not in world.operator_log(100_000) + json.dumps(done.dump())


def test_a_job_that_fails_stops_the_run_before_anything_moved(scene: Scene) -> None:
    scene.plan([{"name": "dump", "job": {"image": "tools"}}])
    scene.fail_over()
    name = scene.run().metadata.name
    end_job(scene, "Failed")
    failed = scene.wait_run(name, lambda run: run.status.phase is RunPhase.FAILED)
    assert phases(failed)["web/before/dump"] is StepPhase.FAILED
    assert "kubectl" in failed.status.next_step
    assert scene.shore.done[TaskKind.FENCE] == 0


REFUSED = {
    "a Secret that is not meant for it": (
        {"http": {"url": "http://127.0.0.1:9/x", "headersSecretRef": {"name": "web-ssh"}}},
        "is not of type farshore.dev/hook-headers, and is not sent away",
    ),
    "an account that is not meant for it": (
        {"job": {"image": "tools", "serviceAccountName": "farshore-ps-ps-stack"}},
        "is not meant for hooks",
    ),
}


def test_a_hook_gets_no_secret_and_no_account_that_is_not_meant_for_hooks(scene: Scene) -> None:
    hooks = [{"name": f"h{n}", "onFailure": "Continue", **hook} for n, (hook, _) in enumerate(REFUSED.values())]
    no = {"name": "go", "approval": {"message": "?"}}
    scene.plan([*hooks, no])
    scene.fail_over()
    name = scene.run().metadata.name
    waits = scene.wait_run(name, lambda run: condition(run, "AwaitingApproval") == "True")
    told = {step.name: step.message or "" for step in waits.status.steps if step.phase is StepPhase.FAILED}
    for number, (_, sentence) in enumerate(REFUSED.values()):
        assert sentence in told[f"web/before/h{number}"]
    approve(scene, name, "bob", answer="Reject")
    failed = scene.wait_run(name, lambda run: run.status.phase is RunPhase.FAILED)
    assert "bob rejected it: still light" in failed.status.condition("Stalled").message


def test_a_run_records_the_commit_that_asked_for_it(scene: Scene) -> None:
    scene.plan([])
    admin, namespace = scene.world.admin, scene.namespace
    admin.create(
        KUSTOMIZATION,
        namespace,
        {"metadata": {"name": "apps", "namespace": namespace}, "status": {"lastAttemptedRevision": "main@sha1:4c2f"}},
    )
    flux = Caller(scene.world.plane, "system:serviceaccount:flux-system:kustomize-controller", ("system:masters",))
    plan = samples("FailoverPlan")[0]
    labels = {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": namespace}
    notes = {"farshore.dev/requested-by": "jane", "farshore.dev/reason": "drill of the year"}
    plan["metadata"] = {"name": PLAN, "labels": labels, "annotations": notes}
    plan["spec"] = {"activeSite": "recovery"}
    answer = flux.apply(namespace, plan, fieldManager="kustomize-controller", force="true")
    assert answer.message == ""
    asked = scene.run().spec.requested_by
    assert asked is not None and asked.dump() == {
        "user": "jane",
        "fieldManager": "kustomize-controller",
        "revision": "main@sha1:4c2f",
        "appliedBy": f"Kustomization {namespace}/apps",
        "reason": "drill of the year",
    }
