import numpy as np
import pytest

from lavin_dit.data.world.chance import between


def test_a_number_between_bounds_is_the_one_that_the_generator_itself_would_draw() -> None:
    own, theirs = (np.random.Generator(np.random.Philox(5)) for _ in range(2))
    for low, high in ((0.0, 1.0), (-3.0, 2.5), (7.0, 7.0), (0.1, 0.3)):
        drawn = [between(own, low, high) for _ in range(50)]
        assert drawn == pytest.approx([theirs.uniform(low, high) for _ in range(50)], rel=1e-15)
        assert all(low <= number <= high for number in drawn)
