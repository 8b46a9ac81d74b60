"""What a KFP server tells of a run's tasks: the nodes of its Argo workflow, of which every step has several.

A step is a node with its own name; below it lies `executor`, and below that one node a try where the step is retried. The server leaves out
why a node failed; only the log of its pod has it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from components.entry import CAUSES, PASSING_CAUSES

SUCCEEDED, RUNNING, PENDING, FAILED, SKIPPED = "SUCCEEDED", "RUNNING", "PENDING", "FAILED", "SKIPPED"
CACHED = "CACHED"
EXECUTOR = "executor"


class RunTasks:
    """The nodes of a run at one moment."""

    def __init__(self, details: Sequence[Any]) -> None:
        self._details = details
        # Children are named by node, nodes by pod; both names end in the same hash.
        self._by_hash = {_hash(detail.pod_name): detail for detail in details if detail.pod_name}

    def state(self, step: Any) -> str:
        """A step's state: from the cache where its executor was skipped, though it succeeded; pending until its pod runs."""
        executors = [child for child in self._children(step) if child.display_name == EXECUTOR]
        states = {executor.state for executor in executors}
        if step.state == SUCCEEDED and states == {SKIPPED}:
            return CACHED
        if step.state == RUNNING and states == {PENDING}:
            return PENDING
        return str(step.state)

    def failed_pod(self, step: Any) -> str:
        """The pod of the step's last failed try; empty where none is known."""
        tries = [node for node in self._below(step) if node.state == FAILED and not list(self._children(node))]
        return str(max(tries, key=lambda node: node.start_time.timestamp() if node.start_time else 0.0).pod_name) if tries else ""

    def _below(self, detail: Any) -> Iterator[Any]:
        for child in self._children(detail):
            yield child
            yield from self._below(child)

    def _children(self, detail: Any) -> Iterator[Any]:
        for child in detail.child_tasks or []:
            if found := self._by_hash.get(_hash(child.pod_name or "")):
                yield found


def told_cause(log: str) -> str:
    """The sentence with which a step ended, from its log; empty where it ended without one."""
    for line in reversed(log.splitlines()):
        for prefix in CAUSES + PASSING_CAUSES:
            if prefix in line:
                return line.partition(prefix)[2].strip()
    return ""


def _hash(name: str) -> str:
    return name.rpartition("-")[2]
