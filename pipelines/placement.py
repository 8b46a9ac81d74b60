"""Where and how a step's pod runs on a cluster. A local run ignores all of it but the name and the cache."""

from typing import NamedTuple

from kfp import dsl, kubernetes

from components.pod_environment import (
    GATEWAY_VARIABLE,
    GIT_FOLDER,
    GIT_SECRET,
    LAUNCHER_FOLDER,
    NAMESPACE_VARIABLE,
    OBJECT_STORE_NAMES,
    OBJECT_STORE_PREFIX,
    OBJECT_STORE_SECRET,
    POD_VARIABLE,
    REPOSITORY_VARIABLE,
    RUN_VARIABLE,
    VOLUME,
)

MOUNT = "/workspace"
USER = 10001
LAUNCHER_CONFIG = "lavin-launcher"
SETTINGS = "lavin-settings"
SETTING_NAMES = (REPOSITORY_VARIABLE, GATEWAY_VARIABLE)
LABELS = {"app.kubernetes.io/part-of": "lavin", "lavin.dev/role": "step"}
FIELDS = {
    RUN_VARIABLE: "metadata.labels['pipeline/runid']",
    POD_VARIABLE: "metadata.name",
    NAMESPACE_VARIABLE: "metadata.namespace",
}
READS_REPOSITORY = ("resolve",)
READS_OBJECT_STORE = ("resolve", "prepare")
BACKOFF = "30s"
HOUR_S = 3600


class Size(NamedTuple):
    """What a step's pod asks for, and its limit of memory, in Kubernetes' units."""

    cpu: str
    memory: str
    memory_limit: str


# Requests are small, because a step whose work runs in a job only watches it; limits are for a step that does the work itself.
SMALL = Size("100m", "256Mi", "4Gi")
MEDIUM = Size("500m", "1Gi", "8Gi")
LARGE = Size("500m", "1Gi", "32Gi")


def place(task: dsl.PipelineTask, name: str, size: Size, *, hours: float, retries: int = 0, cached: bool = True) -> None:
    """Gives a task its name for people, its size and deadline, and what every pod of ours has.

    `retries` are for what a second try can mend, such as a pod that was evicted; components/refusals.py keeps mistakes out of them.
    """
    task.set_display_name(name).set_caching_options(cached)
    task.set_cpu_request(size.cpu).set_memory_request(size.memory).set_memory_limit(size.memory_limit)
    if retries:
        task.set_retry(retries, backoff_duration=BACKOFF, backoff_factor=2.0)
    kubernetes.set_timeout(task, round(hours * HOUR_S))
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.mount_pvc(task, pvc_name=VOLUME, mount_path=MOUNT)
    kubernetes.use_config_map_as_volume(task, LAUNCHER_CONFIG, mount_path=str(LAUNCHER_FOLDER), optional=True)
    kubernetes.use_config_map_as_env(task, SETTINGS, {name: name for name in SETTING_NAMES}, optional=True)
    for label, value in LABELS.items():
        kubernetes.add_pod_label(task, label, value)
    for variable, path in FIELDS.items():
        kubernetes.use_field_path_as_env(task, variable, path)
    if task.component_spec.name in READS_OBJECT_STORE:
        keys = {name: OBJECT_STORE_PREFIX + name for name in OBJECT_STORE_NAMES}
        kubernetes.use_secret_as_env(task, OBJECT_STORE_SECRET, keys, optional=True)
    if task.component_spec.name in READS_REPOSITORY:
        kubernetes.use_secret_as_volume(task, GIT_SECRET, mount_path=str(GIT_FOLDER), optional=True)
