"""A mean that follows what it sees: of all values at first, then of the last ones."""


def follow(mean: float, value: float, *, count: int, decay: float) -> float:
    """The mean after its `count`-th value: plain while there are few, then exponential with this decay."""
    return mean + max(1.0 - decay, 1.0 / count) * (value - mean)
