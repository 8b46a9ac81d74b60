"""How measured maps become pictures and back: every dense target is an RGB image with an exact inverse.

Shapes: maps (..., h, w) or (..., h, w, 3), pictures (..., h, w, 3) uint8: clips are drawn frame by frame, but for their objects, which
`encode_instance_clip` follows; skeletons and boxes are those of one picture. Decoders take any picture, a model's imperfect ones too.
"""

import math

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.drawings.boxes import Box, draw_box, find_box
from lavin_dit.data.drawings.flow_colours import decode_flow, encode_flow
from lavin_dit.data.drawings.instance_colours import decode_instances, encode_instance_clip, encode_instances
from lavin_dit.data.drawings.palette import PALETTE, nearest_colour
from lavin_dit.data.drawings.skeletons import draw_skeletons, find_joints
from lavin_dit.data.pixels import Picture

__all__ = [
    "PALETTE",
    "Box",
    "decode_depth",
    "decode_edges",
    "decode_flow",
    "decode_instances",
    "decode_labels",
    "decode_mask",
    "decode_normals",
    "draw_box",
    "draw_skeletons",
    "encode_depth",
    "encode_edges",
    "encode_flow",
    "encode_instance_clip",
    "encode_instances",
    "encode_labels",
    "encode_mask",
    "encode_normals",
    "find_box",
    "find_joints",
]

DEPTH_NEAR_M, DEPTH_FAR_M = 1.0, 32.0
NO_NORMAL_LENGTH = 0.5
"""A decoded vector shorter than this means that there is no surface."""


def encode_depth(depth_m: NDArray[np.floating]) -> Picture:
    """Grey of the logarithm of depth: white at `DEPTH_NEAR_M` and nearer, black at `DEPTH_FAR_M` and farther."""
    share = np.log(np.clip(depth_m, DEPTH_NEAR_M, DEPTH_FAR_M) / DEPTH_NEAR_M, dtype=np.float64) / math.log(DEPTH_FAR_M / DEPTH_NEAR_M)
    return _grey(1.0 - share)


def decode_depth(picture: Picture) -> NDArray[np.float32]:
    """Metres of a depth picture: the inverse of `encode_depth`, to within half a grey level (0.7 %)."""
    share = 1.0 - picture.astype(np.float32).mean(axis=-1) / 255.0
    return np.asarray(DEPTH_NEAR_M * (DEPTH_FAR_M / DEPTH_NEAR_M) ** share, np.float32)


def encode_normals(normals: NDArray[np.floating]) -> Picture:
    """(n + 1) / 2 of camera-space normals as red, green and blue; mid-grey where there is no surface (a zero vector)."""
    return np.asarray(np.rint((np.clip(normals, -1.0, 1.0) + 1.0) * 127.5), np.uint8)


def decode_normals(picture: Picture) -> NDArray[np.float32]:
    """Unit normals of a normals picture, zero where there is no surface; the inverse of `encode_normals`, to 8 bits."""
    vectors = picture.astype(np.float32) / np.float32(127.5) - 1
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.where(lengths > NO_NORMAL_LENGTH, vectors / np.maximum(lengths, 1e-6), 0.0), np.float32)


def encode_labels(labels: NDArray[np.integer]) -> Picture:
    """Each label in its colour of `PALETTE`."""
    assert labels.max(initial=0) < len(PALETTE), "a label has no colour: PALETTE is too short"
    return np.asarray(PALETTE[labels], np.uint8)


def decode_labels(picture: Picture, *, num_labels: int = len(PALETTE)) -> NDArray[np.uint8]:
    """The label whose colour is nearest, among the first `num_labels`."""
    return nearest_colour(picture, PALETTE[:num_labels])


def encode_mask(mask: NDArray[np.bool_]) -> Picture:
    """White where the mask holds, black elsewhere."""
    return _grey(mask)


def decode_mask(picture: Picture) -> NDArray[np.bool_]:
    """True where a picture is nearer to white than to black."""
    return np.asarray(picture.astype(np.float32).mean(axis=-1) > 127.5, np.bool_)


encode_edges, decode_edges = encode_mask, decode_mask


def _grey(share: NDArray[np.generic]) -> Picture:
    return np.repeat(np.rint(np.asarray(share, np.float64) * 255).astype(np.uint8)[..., None], 3, axis=-1)
