"""Which of the user's files are held out of training, and what each is called for good."""

import hashlib
import re
from collections.abc import Iterable

SPLIT_OF_FOLDER = {"train": "train", "test": "test", "val": "test"}
SLUG_LENGTH = 24


def hold_out(names: Iterable[str], seed: int, test_fraction: float) -> frozenset[str]:
    """Names whose hash falls below the fraction; of several names always at least one, and never all."""
    ranks = {name: int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") / 2**64 for name in names}
    if test_fraction == 0 or len(ranks) < 2:
        return frozenset()
    below = {name for name, rank in ranks.items() if rank < test_fraction} or {min(ranks, key=ranks.__getitem__)}
    return frozenset(below - {max(ranks, key=ranks.__getitem__)})


def scene_of(origin: str, name: str) -> str:
    """A short identifier without dots or slashes (tar readers split names at them), unique by a hash of the whole name."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[-SLUG_LENGTH:]
    return f"{origin}-{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
