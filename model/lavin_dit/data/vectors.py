"""Many vectors at once. Shapes: vectors are `(3, s)` float32, a coordinate a row."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Indices = NDArray[np.intp]


def normalised(vectors: Array) -> Array:
    """Vectors at unit length."""
    return np.asarray(vectors / np.sqrt(dot(vectors, vectors)), np.float32)


def dot(a: Array, b: Array) -> Array:
    """Products of vectors. Shapes: two (3, s) to (s,)."""
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2], np.float32)


def pick(vectors: Array, which: Indices) -> Array:
    """Columns of vectors; several times as fast as indexing."""
    return vectors.take(which, axis=1)


def put(vectors: Array, which: Indices, values: Array) -> None:
    """Sets columns of vectors; several times as fast as indexing."""
    for row, new in zip(vectors, values, strict=True):
        row[which] = new
