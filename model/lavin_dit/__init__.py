"""LaVin-DiT: a vision diffusion transformer that learns a task from example pairs.

Shapes, everywhere in this package:

    b  batch            n  context pairs (data) or attention heads (dit)
    c t h w             pixels: channels, frames, height, width, in [-1, 1]
    z f y x             latents: channels, frames f = 1 + (t - 1) / 4, y = h / 8, x = w / 8
    p a l               prompt tokens, answer tokens, l = p + a
    d n k e             width, heads, key-value heads, head width

Times run from t = 0 (noise) to t = 1 (data).
Source: Wang et al., LaVin-DiT: Large Vision Diffusion Transformer, CVPR 2025 (arXiv 2411.11505).
"""

__version__ = "0.1.0"
