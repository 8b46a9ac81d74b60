"""Where each pixel of a frame goes in the next, from the motion of what it shows.

A point of a solid or limb keeps its place in it; a point of the ground stays where it is; the sky is infinitely far.
"""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world.geometry import Primitives
from lavin_dit.data.world.layout import Layout
from lavin_dit.data.world.sampling import Traces
from lavin_dit.data.world.tracing import NO_PART, things_of


def flow_between(before: Layout, after: Layout, traces: Traces, resolution: int) -> NDArray[np.float32]:
    """Motion of the pixels of `before`, whose rays left `traces`.

    Shapes: returns (h, w, 2). Units: pixels, x to the right, y down.
    """
    points = traces.points.astype(np.float64)
    own = np.flatnonzero(traces.parts != NO_PART)
    moved = points.copy()
    moved[:, own] = _carry(points[:, own], traces.parts[own], things_of(before).primitives, things_of(after).primitives)
    sky = np.flatnonzero(traces.is_sky)
    directions = traces.directions[:, sky].astype(np.float64)
    flow = after.camera.project(moved, resolution)[:2] - before.camera.project(points, resolution)[:2]
    flow[:, sky] = (
        after.camera.project(directions, resolution, are_directions=True)
        - before.camera.project(directions, resolution, are_directions=True)
    )[:2]
    return flow.T.reshape(resolution, resolution, 2).astype(np.float32)


def _carry(points: NDArray[np.float64], parts: NDArray[np.intp], before: Primitives, after: Primitives) -> NDArray[np.float64]:
    """Points where their primitives have taken them. A primitive may turn and move; it keeps its size."""
    old, new = before.turns.astype(np.float64), after.turns.astype(np.float64)
    turns = np.einsum("jin,jkn->ikn", new, old)
    offsets = points - before.centres.astype(np.float64)[:, parts]
    return np.asarray((turns[:, :, parts] * offsets).sum(axis=1) + after.centres.astype(np.float64)[:, parts], np.float64)
