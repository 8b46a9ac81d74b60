"""What a run needs of the cluster, checked before anything is asked of it."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from components.launcher.api import Api, ApiError, NotFoundError, Object, UnavailableError, connect
from components.launcher.kinds import KINDS, PYTORCHJOB, TRAINJOB, JobKind
from components.launcher.settings import JobSettings, Platform
from components.launcher.surroundings import Surroundings
from lavin_dit.errors import InputError

PATIENCE_S = 30.0
RUNTIME = "lavin-torch"
QUEUE_GROUP = "kueue.x-k8s.io"
ROLE = "lavin-launcher"


@dataclass(frozen=True)
class Right:
    """What the launcher asks of one resource; `resource` as in `pods` or `pods/log`."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    in_cluster: bool = False
    """Whether the resource belongs to no namespace."""


JOB_VERBS = ("create", "get", "list", "delete")
OF_KIND = {kind: Right(kind.group, kind.plural, JOB_VERBS) for kind in (PYTORCHJOB, TRAINJOB)}
OF_RUNTIME = Right(TRAINJOB.group, "clustertrainingruntimes", ("get",), in_cluster=True)
OF_QUEUE = Right(QUEUE_GROUP, "localqueues", ("get",))
OF_PODS = (Right("", "pods", ("get", "list")), Right("", "pods/log", ("get",)), Right("", "events", ("list",)))
OF_LEFTOVERS = Right("argoproj.io", "workflows", ("get",))
"""Only `lavin jobs` asks this, and does without where it may not."""
RIGHTS = (*OF_KIND.values(), OF_RUNTIME, OF_QUEUE, *OF_PODS, OF_LEFTOVERS)
"""All that any of the launcher's parts asks; the manifests grant it."""


def check_cluster(
    settings: JobSettings, surroundings: Surroundings, platform: Platform, *, workspace: Path, api: Api | None = None
) -> None:
    """Refuses, in seconds, a run whose jobs could not be made.

    Raises: InputError saying what is missing, and what to do.
    """
    if settings.accelerator not in platform.accelerators:
        raise InputError(f"accelerator is {settings.accelerator}: must be one of {', '.join(platform.accelerators)}")
    check_workspace(workspace, surroundings.volume)
    checks = _Checks(api or Api(connect(), surroundings.namespace), KINDS[settings.launcher], platform)
    try:
        checks.run(settings.launcher)
    except ApiError as error:
        raise InputError(
            f"the API server cannot be asked ({' '.join(str(error).split())}); is it reachable from namespace {surroundings.namespace} "
            "(network policy `steps`), and is the service account known to it?"
        ) from error


def check_workspace(workspace: Path, volume: str) -> None:
    """Writes a file there, really.

    Raises: InputError where the folder is absent or takes no file.
    """
    if not workspace.is_dir():
        raise InputError(f"workspace is {workspace}: there is no such folder; mount the claim {volume} there")
    try:
        with tempfile.NamedTemporaryFile(dir=workspace, prefix=".lavin-probe-") as probe:
            probe.write(b"probe")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise InputError(
            f"workspace is {workspace}: cannot be written to ({error.strerror}); make the volume of claim {volume} writable for "
            f"{os.getuid()}:{os.getgid()} (the Job workspace-setup does it), or enlarge it where it is full"
        ) from error


class _Checks:
    def __init__(self, api: Api, kind: JobKind, platform: Platform) -> None:
        self._api = api
        self._kind = kind
        self._queue = platform.queue

    def run(self, launcher: str) -> None:
        if not self._exists(self._kind):
            other = next(name for name, kind in KINDS.items() if kind is not self._kind)
            has_other = self._exists(KINDS[other])
            advice = f"choose launcher {other}, which it has" if has_other else "choose launcher local"
            raise InputError(f"launcher is {launcher}: the cluster has no {self._kind.resource}; install {self._kind.needs}, or {advice}")
        if missing := list(self._missing()):
            raise InputError(
                f"this pod's service account may not {'; '.join(missing)}: bind the Role {ROLE} to it (manifests/base/role-launcher.yaml)"
            )
        if self._kind is TRAINJOB:
            self._check_runtime()
        if self._queue:
            self._check_queue()

    def _exists(self, kind: JobKind) -> bool:
        try:
            found = self._find(f"/apis/{kind.group}/{kind.version}")
        except NotFoundError:
            return False
        return any(resource["name"] == kind.plural for resource in found.get("resources") or [])

    def _missing(self) -> Iterator[str]:
        """Told together, so that they are mended together."""
        rights = [OF_KIND[self._kind], *OF_PODS]
        rights += [OF_RUNTIME] if self._kind is TRAINJOB else []
        rights += [OF_QUEUE] if self._queue else []
        for right in rights:
            denied = [verb for verb in right.verbs if not self._may(right, verb)]
            if denied:
                yield f"{', '.join(denied)} {right.resource}{f'.{right.group}' if right.group else ''}"

    def _may(self, right: Right, verb: str) -> bool:
        ask = partial(self._api.may, right.group, right.resource, verb, in_cluster=right.in_cluster)
        return self._api.patiently(ask, patience_s=PATIENCE_S)

    def _check_runtime(self) -> None:
        try:
            self._find(f"/apis/{TRAINJOB.group}/{TRAINJOB.version}/clustertrainingruntimes/{RUNTIME}")
        except NotFoundError as error:
            raise InputError(
                f"launcher is trainjob: the cluster has no ClusterTrainingRuntime {RUNTIME}; apply manifests/base/training-runtime.yaml"
            ) from error

    def _check_queue(self) -> None:
        try:
            group = self._find(f"/apis/{QUEUE_GROUP}")
        except NotFoundError as error:
            raise InputError(
                f"queue in launcher.yaml is {self._queue}: the cluster has no Kueue; install it, or empty the queue there"
            ) from error
        version = group["preferredVersion"]["groupVersion"]
        try:
            self._find(f"/apis/{version}/namespaces/{self._api.namespace}/localqueues/{self._queue}")
        except NotFoundError as error:
            raise InputError(
                f"queue in launcher.yaml is {self._queue}: namespace {self._api.namespace} has no LocalQueue of that name; make one, or "
                "name another there"
            ) from error

    def _find(self, path: str) -> Object:
        """A path that the server does not know is an answer here."""
        return self._api.patiently(partial(self._api.find, path), patience_s=PATIENCE_S, errors=(UnavailableError,))
