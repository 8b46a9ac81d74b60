"""What restoration tasks undo: functions that spoil a clean picture, by the given generator alone.

Every one is called `degrade(picture, depth, generator)`. Shapes: pictures (h, w, 3) uint8 RGB in and out; `depth` (h, w) float32 metres of
the picture's pixels, or None for a photograph. Sizes are fractions of the picture, so that a degradation looks the same at every
resolution; the 8x8 blocks of `reduction` and the cells of a sensor stay what they are. What processors round differently, such as
exponentials and Fourier transforms, is computed in double precision, so that the 8 bits are the same on every machine.
"""
