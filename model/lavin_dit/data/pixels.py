"""What pictures and clips are, as arrays; needs numpy alone."""

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""Shapes: (h, w, 3), RGB."""
Clip = NDArray[np.uint8]
"""Shapes: (t, h, w, 3), RGB."""
Pixels = NDArray[np.uint8]
"""A picture or a clip."""

CLIP_DIMENSIONS = 4
