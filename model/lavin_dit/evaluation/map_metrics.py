"""Metrics of maps whose every pixel is a quantity: depth, normals, flow, and pictures themselves.

Shapes: pictures (h, w, 3) uint8, clips (t, h, w, 3); of a clip's maps all pixels count alike.
"""

import math

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from lavin_dit.data.drawings import encodings
from lavin_dit.data.pixels import Picture
from lavin_dit.evaluation.measurement import Measurement, undefined

PSNR_CAP_DB = 60.0
"""PSNR of pictures that are equal, or nearly: the true value is infinite, and one such picture would swallow a mean."""
WITHIN_DEPTH_RATIO = 1.25
OUTLIER_PX, OUTLIER_SHARE = 3.0, 0.05


def measure_depth(prediction: Picture, truth: Picture) -> Measurement:
    """On metres. Sky is at the far plane and counts as such: an answer that puts it nearer is wrong there like anywhere else."""
    predicted, true = (encodings.decode_depth(picture).astype(np.float64) for picture in (prediction, truth))
    return Measurement(depth_errors(predicted, true))


def depth_errors(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, float]:
    """Errors of depth maps. Units: metres, above 0. Source: Eigen et al., NIPS 2014 (without their rescaling)."""
    error = np.abs(predicted - true)
    ratio = np.maximum(predicted / true, true / predicted)
    return {
        "abs_rel": float((error / true).mean()),
        "delta1": float((ratio < WITHIN_DEPTH_RATIO).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
    }


def measure_normals(prediction: Picture, truth: Picture) -> Measurement:
    """On decoded unit vectors. See `angle_errors`."""
    predicted, true = (encodings.decode_normals(picture).astype(np.float64) for picture in (prediction, truth))
    return Measurement(angle_errors(predicted, true))


def angle_errors(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, float]:
    """Angles between normals, where the truth has a surface (its vector is not zero); no normal at all counts as 90 degrees off.

    Shapes: (..., 3). Source: Fouhey et al., ICCV 2013.
    """
    has_surface = true.any(axis=-1)
    if not has_surface.any():
        return undefined("normals")
    ours, theirs = predicted[has_surface], true[has_surface]
    # The arc tangent stays exact at small angles, where the arc cosine of a rounded dot product does not.
    angles = np.degrees(np.arctan2(np.linalg.norm(np.cross(ours, theirs), axis=-1), (ours * theirs).sum(axis=-1)))
    angles[~ours.any(axis=-1)] = 90.0
    return {
        "mean_angle": float(angles.mean()),
        "within_11_25": float((angles < 11.25).mean()),
        "within_30": float((angles < 30.0).mean()),
    }


def measure_flow(prediction: Picture, truth: Picture) -> Measurement:
    """On decoded motion. The truth, too, is read from its picture: its longest motion is a sixteenth of the width."""
    predicted, true = (encodings.decode_flow(picture).astype(np.float64) for picture in (prediction, truth))
    return Measurement(flow_errors(predicted, true))


def flow_errors(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, float]:
    """Lengths of the differences between motions, and the share that is both 3 px and 5 % of the true motion off.

    Shapes: (..., 2). Units: pixels. Source: Baker et al., IJCV 2011; Menze and Geiger, CVPR 2015 (KITTI's Fl).
    """
    error = np.linalg.norm(predicted - true, axis=-1)
    is_outlier = (error > OUTLIER_PX) & (error > OUTLIER_SHARE * np.linalg.norm(true, axis=-1))
    return {"epe": float(error.mean()), "outliers": float(is_outlier.mean())}


def measure_image(prediction: Picture, truth: Picture) -> Measurement:
    """PSNR, SSIM and mean squared error of pictures, or of clips.

    A clip's PSNR is that of its mean squared error: in a mean of PSNRs, the frames that the query already shows would drown the others.
    """
    mse = float(np.square(prediction / 255.0 - truth / 255.0).mean())
    frames = zip(*(pictures.reshape(-1, *pictures.shape[-3:]) for pictures in (prediction, truth)), strict=True)
    return Measurement({"psnr": psnr_of(mse), "ssim": float(np.mean([_ssim(*pair) for pair in frames])), "mse": mse})


def _ssim(prediction: Picture, truth: Picture) -> float:
    """Source: Wang et al., 2004: Gaussian windows of width 1.5."""
    similarity = structural_similarity(  # type: ignore[no-untyped-call]
        truth, prediction, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(similarity)


def psnr_of(mse: float) -> float:
    """PSNR in dB of a mean squared error of values in [0, 1]; at most `PSNR_CAP_DB`, which equal pictures get."""
    return min(PSNR_CAP_DB, -10.0 * math.log10(mse)) if mse > 0 else PSNR_CAP_DB
