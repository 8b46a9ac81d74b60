import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavin_dit.data.drawings import encodings
from lavin_dit.data.world.scenes import FAR_M, render_scene


def test_depth_survives_the_picture_to_within_one_percent_and_is_clipped_outside() -> None:
    depth = np.geomspace(encodings.DEPTH_NEAR_M, encodings.DEPTH_FAR_M, 4096).reshape(64, 64)
    np.testing.assert_allclose(encodings.decode_depth(encodings.encode_depth(depth)), depth, rtol=0.008)
    outside = np.array([[0.01, 1000.0]])
    np.testing.assert_allclose(encodings.decode_depth(encodings.encode_depth(outside)), [[1.0, 32.0]], rtol=1e-6)


def test_every_depth_picture_comes_back_exactly() -> None:
    picture = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=-1)
    np.testing.assert_array_equal(encodings.encode_depth(encodings.decode_depth(picture)), picture)


def test_nearer_is_brighter_and_the_renderers_far_is_black() -> None:
    assert encodings.encode_depth(np.array([[2.0, 5.0, FAR_M]]))[0, :, 0].tolist() == sorted(
        encodings.encode_depth(np.array([[2.0, 5.0, FAR_M]]))[0, :, 0].tolist(), reverse=True
    )
    assert encodings.encode_depth(np.array([[FAR_M]])).max() == 0


def test_normals_survive_the_picture_to_within_half_a_degree_and_no_surface_stays_none() -> None:
    normals = render_scene(0, 0, 64).normals
    decoded = encodings.decode_normals(encodings.encode_normals(normals))
    is_surface = normals.any(axis=-1)
    cosine = (decoded * normals).sum(axis=-1)[is_surface]
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.5
    assert (decoded[~is_surface] == 0).all()
    assert (~is_surface).any()


def test_labels_survive_the_picture_and_noise_of_less_than_half_the_distance_between_colours() -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16) % len(encodings.PALETTE)
    picture = encodings.encode_labels(labels)
    np.testing.assert_array_equal(encodings.decode_labels(picture), labels)
    noise = np.random.default_rng(0).integers(-12, 13, picture.shape)
    noisy = np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(encodings.decode_labels(noisy), labels)


def test_decoding_among_few_labels_never_answers_another() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert encodings.decode_labels(picture, num_labels=6).max() < 6


@given(st.lists(st.booleans(), min_size=1, max_size=64))
def test_masks_and_edges_survive_the_picture(values: list[bool]) -> None:
    mask = np.array([values])
    np.testing.assert_array_equal(encodings.decode_mask(encodings.encode_mask(mask)), mask)
    np.testing.assert_array_equal(encodings.decode_edges(encodings.encode_edges(mask)), mask)


def test_a_label_without_a_colour_is_our_bug() -> None:
    with pytest.raises(AssertionError, match="PALETTE is too short"):
        encodings.encode_labels(np.array([[len(encodings.PALETTE)]]))
