"""Many vectors at once. Shapes: vectors are `(3, s)` float32, a coordinate a row."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Indices = NDArray[np.intp]

TURN = 2 * np.pi
EVEN_TURN = np.float32(6.28125)
"""Of few bits, so that small multiples of it are exact."""
REST_OF_TURN = np.float32(TURN - 6.28125)
SINE = np.array([0.999999995, -0.166666646, 8.33331042e-3, -1.98401566e-4, 2.75294766e-6, -2.46771630e-8, 1.34521116e-10], np.float32)
"""Of the odd powers, for half a turn each way; fitted to the smallest error."""


def normalised(vectors: Array) -> Array:
    """Vectors at unit length."""
    return np.asarray(vectors / np.sqrt(dot(vectors, vectors)), np.float32)


def dot(a: Array, b: Array) -> Array:
    """Products of vectors. Shapes: two (3, s) to (s,)."""
    x, y, z = a * b
    return np.asarray(x + y + z, np.float32)


def pick(vectors: Array, which: Indices) -> Array:
    """Columns of vectors; several times as fast as indexing."""
    return vectors.take(which, axis=1)


def put(vectors: Array, which: Indices, values: Array) -> None:
    """Sets columns of vectors; several times as fast as indexing."""
    for row, new in zip(vectors, values, strict=True):
        row[which] = new


def sine(angles: Array) -> Array:
    """Of numbers, to 1e-6; numpy's own differs in its last bit between processors, this one is made of what they all round alike."""
    turns = np.rint(angles * np.float32(1 / TURN))
    angles = angles - turns * EVEN_TURN - turns * REST_OF_TURN
    squares = angles * angles
    series = np.full_like(angles, SINE[-1])
    for factor in SINE[-2::-1]:
        series = series * squares + factor
    return np.asarray(series * angles, np.float32)
