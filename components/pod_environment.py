"""What a step's pod is told, and by which names: its variables, mounts and Secrets. Whatever writes or reads them takes them from here."""

import os
from pathlib import Path

RUN_VARIABLE = "LAVIN_RUN_ID"
IMAGE_VARIABLE = "LAVIN_IMAGE"
VOLUME_VARIABLE = "LAVIN_VOLUME"
NAMESPACE_VARIABLE = "LAVIN_NAMESPACE"
POD_VARIABLE = "LAVIN_POD_NAME"
REPOSITORY_VARIABLE = "LAVIN_DATA_REPOSITORY"
GATEWAY_VARIABLE = "LAVIN_PUSHGATEWAY"

VOLUME = "lavin-workspace"
"""The claim of the volume that steps and jobs share, unless the pipeline is compiled for another."""
LAUNCHER_FOLDER = Path("/etc/lavin/launcher")
"""Where the cluster's launcher.yaml and shapes of jobs are mounted."""
GIT_SECRET = "lavin-git"  # noqa: S105 - the name of a Secret
GIT_FOLDER = Path("/etc/lavin/git")
OBJECT_STORE_SECRET = "lavin-object-store"  # noqa: S105 - the name of a Secret
OBJECT_STORE_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
"""The Secret's keys, named as S3's own clients read them."""
OBJECT_STORE_PREFIX = "LAVIN_"
"""Comes before them in a pod's environment: KFP's own launcher runs in the same container, and would take them for its own store's."""


def take_object_store_keys() -> None:
    """Gives this process, and those that it starts, the object store's keys under the names that S3's clients read."""
    for name in OBJECT_STORE_NAMES:
        if value := os.environ.get(OBJECT_STORE_PREFIX + name):
            os.environ[name] = value
