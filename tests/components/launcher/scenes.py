"""What becomes of jobs: recordings of a real cluster, and stories written by hand."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.components.launcher.api_server import EPOCH, timestamp

Object = dict[str, Any]


def _pod(job: Object, name: str, *, uid: str, kind: str, index: int, status: Object) -> Object:
    labels = {
        "training.kubeflow.org/job-name": job["metadata"]["name"],
        "training.kubeflow.org/replica-type": kind,
        "training.kubeflow.org/replica-index": str(index),
        "jobset.sigs.k8s.io/jobset-name": job["metadata"]["name"],
        "batch.kubernetes.io/job-completion-index": str(index),
    }
    owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    metadata = {"name": name, "namespace": "lavin", "uid": uid, "labels": labels}
    if job["kind"] == "PyTorchJob":
        metadata["ownerReferences"] = [owner]
    return {"metadata": metadata, "status": status}


class Recording:
    """One scenario of a real cluster. Names of the recorded job become those of ours."""

    def __init__(self, folder: Path, name: str) -> None:
        text = (folder / "pytorchjob" / f"{name}.json").read_text()
        for before, after in (('"', '"'), ("", "-master"), ("", "-worker"), ("PyTorchJob ", " is"), ("job ", " is")):
            text = text.replace(f"{before}{name}{after}", f"{before}JOB{after}")
        self.document: Object = json.loads(text)
        self.states = self.document["states"]
        self.end = max(entry["t_s"] for entry in [*self.states, *self.document["pods"]])

    def state(self, age: float) -> Object | None:
        state = [state for state in self.states if state["t_s"] <= age + 1e-6]
        if not state:
            return {}
        if state[-1]["status"] == 404:
            return None
        recorded = state[-1]["object"]
        policy = recorded["spec"].get("runPolicy", {})
        return {"status": recorded.get("status"), "suspend": bool(policy.get("suspend"))}

    def pods(self, age: float, job: Object) -> list[Object]:
        lives: dict[str, int] = {}
        last: dict[str, Object] = {}
        for entry in self.document["pods"]:
            if entry["t_s"] > age + 1e-6:
                break
            if entry["name"] in last and self._has_ended(last[entry["name"]]) and not self._has_ended(entry):
                lives[entry["name"]] = lives.get(entry["name"], 0) + 1
            last[entry["name"]] = entry
        return [self._pod(job, entry, lives.get(name, 0)) for name, entry in last.items()]

    @staticmethod
    def _has_ended(entry: Object) -> bool:
        return any("terminated" in status["state"] or status["restartCount"] for status in entry["containerStatuses"] or []) or (
            entry["phase"] == "Running"
        )

    def _pod(self, job: Object, entry: Object, life: int) -> Object:
        name = entry["name"].replace("JOB", job["metadata"]["name"])
        keys = ("phase", "reason", "containerStatuses", "initContainerStatuses")
        status = {key: entry[key] for key in keys if entry[key] is not None}
        kind, _, index = entry["name"].removeprefix("JOB-").partition("-")
        return _pod(job, name, uid=f"{name}-{job['metadata']['uid'][:8]}-{life}", kind=kind, index=int(index), status=status)

    def events(self, _age: float, job: Object) -> list[Object]:
        """The recording does not say when; all of them once it is over, or something is waiting."""
        name = job["metadata"]["name"]
        events = json.loads(json.dumps(self.document["events"]).replace("JOB", name))
        for event in events:
            if event["involvedObject"]["kind"] == "PyTorchJob":
                event["involvedObject"]["uid"] = job["metadata"]["uid"]
        return events

    def log(self, pod: str, _age: float, **_query: bool) -> list[str] | int:
        text = next(text for name, text in self.document["logs"].items() if pod.endswith(name.removeprefix("JOB")))
        if "(BadRequest)" in text:
            return 400
        if "(NotFound)" in text:
            return 404
        return [f"{timestamp(EPOCH + number)} {line}" for number, line in enumerate(text.splitlines())]


@dataclass
class PodLook:
    """One pod, told in a few words: `state` is running, done, pending, exit:CODE[:REASON], crashed:CODE (waiting to start again),
    evicted, or a reason why it does not start."""

    state: str
    restarts: int = 0
    life: int = 0
    message: str = ""
    last: str = ""
    """How its container's life before ended: CODE or CODE:REASON."""

    def status(self) -> Object:
        word, _, rest = self.state.partition(":")
        last = _terminated(self.last) if self.last else {}
        if word == "evicted":
            return {"phase": "Failed", "reason": "Evicted", "message": self.message or "The node was low on resource: memory."}
        if word == "Unschedulable":
            condition = {"type": "PodScheduled", "status": "False", "reason": word, "message": self.message}
            return {"phase": "Pending", "conditions": [condition]}
        states = {
            "running": ("Running", {"running": {"startedAt": timestamp(EPOCH)}}),
            "done": ("Succeeded", _terminated("0:Completed")),
            "pending": ("Pending", {"waiting": {"reason": "ContainerCreating"}}),
            "exit": ("Failed", _terminated(rest or "0")),
            "crashed": ("Running", {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}),
        }
        phase, state = states.get(word, ("Pending", {"waiting": {"reason": word, "message": self.message}}))
        last = _terminated(rest) if word == "crashed" else last
        container = {"name": "pytorch", "state": state, "lastState": last, "restartCount": self.restarts, "ready": word == "running"}
        return {"phase": phase, "containerStatuses": [container, {**container, "name": "node"}]}


def _terminated(text: str) -> Object:
    code, _, reason = text.partition(":")
    return {"terminated": {"exitCode": int(code), "reason": reason or "Error", "finishedAt": timestamp(EPOCH)}}


@dataclass
class Look:
    """What is there from a moment on."""

    age: float
    conditions: tuple[str, ...] = ("Created",)
    """Those that hold; `Failed:reason:message` says more of one."""
    pods: tuple[PodLook, ...] = ()
    is_suspended: bool = False
    is_gone: bool = False


@dataclass
class Story:
    """A job's life, look by look, with what its pods write."""

    looks: list[Look]
    lines: dict[int, list[tuple[float, str]]] = field(default_factory=dict)
    """What the pod of that index writes, and at what age."""
    lines_before: dict[int, list[tuple[float, str]]] = field(default_factory=dict)
    """What the container before wrote, in the pod of that index."""
    warnings: list[Object] = field(default_factory=list)
    success: str = "Succeeded"
    kind: str = "worker"

    def _look(self, age: float) -> Look:
        return [Look(0.0), *(look for look in self.looks if look.age <= age + 1e-6)][-1]

    def state(self, age: float) -> Object | None:
        look = self._look(age)
        return (
            None
            if look.is_gone
            else {"status": {"conditions": [_condition(text, look.age) for text in look.conditions]}, "suspend": look.is_suspended}
        )

    def pods(self, age: float, job: Object) -> list[Object]:
        name = f"{job['metadata']['name']}-{self.kind}"
        return [
            _pod(
                job, f"{name}-{index}", uid=f"{job['metadata']['uid']}-{index}-{pod.life}", kind=self.kind, index=index, status=pod.status()
            )
            for index, pod in enumerate(self._look(age).pods)
        ]

    def events(self, _age: float, job: Object) -> list[Object]:
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        about = {"kind": job["kind"], "name": name, "uid": uid}
        return [
            {"type": "Warning", "involvedObject": about, **json.loads(json.dumps(event).replace("JOB", name))} for event in self.warnings
        ]

    def log(self, pod: str, age: float, *, previous: bool) -> list[str] | int:
        index = int(pod.rpartition("-")[2])
        pods = self._look(age).pods
        if index >= len(pods) or pods[index].state.partition(":")[0] in ("pending", "Unschedulable", "ErrImagePull"):
            return 400
        lines = self.lines_before if previous else self.lines
        written = [(time, line) for time, line in lines.get(index, []) if time <= age + 1e-6]
        return [f"{timestamp(EPOCH + time)[:-1]}.{round(time % 1 * 1000):03d}Z {line}" for time, line in written]


def _condition(text: str, age: float) -> Object:
    kind, _, rest = text.partition(":")
    reason, _, message = rest.partition(":")
    times = {"lastTransitionTime": timestamp(EPOCH + age), "lastUpdateTime": timestamp(EPOCH + age)}
    return {
        "type": kind,
        "status": "True",
        "reason": reason or f"PyTorchJob{kind}",
        "message": message or f"PyTorchJob JOB is {kind.lower()}.",
        **times,
    }
