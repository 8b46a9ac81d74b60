"""The keys of the object store that DVC's data lie in, as a step's pod gets them from a Secret."""

import os

OBJECT_STORE_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
"""The Secret's keys, named as S3's own clients read them."""
OBJECT_STORE_PREFIX = "LAVIN_"
"""Comes before them in a pod's environment: KFP's own launcher runs in the same container, and would take them for its own store's."""


def take_object_store_keys() -> None:
    """Gives this process, and those that it starts, the keys under the names that S3's clients read."""
    for name in OBJECT_STORE_NAMES:
        if value := os.environ.get(OBJECT_STORE_PREFIX + name):
            os.environ[name] = value
