"""The table of tasks. A new task is one entry of `TASKS`, and a function where none of the present ones fits."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from lavin_dit.data import views
from lavin_dit.data.degradations import blurring, holes, reduction, sensors, weather
from lavin_dit.data.task import (
    NEAREST_KINDS,
    PHOTOGRAPHIC_KIND,
    ClipPair,
    ImagePair,
    Kind,
    Medium,
    Task,
    generator_of,
    pair_of_clip,
    pair_of_photo,
    pair_of_scene,
)

__all__ = [
    "NEAREST_KINDS",
    "PHOTOGRAPHIC_KIND",
    "TASKS",
    "ClipPair",
    "ImagePair",
    "Kind",
    "Medium",
    "Task",
    "generator_of",
    "pair_of_clip",
    "pair_of_photo",
    "pair_of_scene",
    "task_of",
]

CLEAN = "The clean picture."
SCENE = "A picture."
CLIP = "A clip."


def task_of(name: str) -> Task:
    """The task of a name: of the table, a variant of one such as `foreground-cat`, or else one that maps pictures to pictures.

    A variant is drawn and measured alike, but lives on pairs of its own.
    """
    known, dash, variant = name.partition("-")
    if name in TASKS or not (dash and known in TASKS):
        return TASKS.get(name) or Task(name, name.replace("_", " ").capitalize(), f"The user's own pairs, {name}.", "image")
    task = TASKS[known]
    return replace(task, name=name, title=f"{task.title}: {variant}", views=None, clip_views=None, degrade=None, needs_figures=False)


def _table(tasks: Iterable[Task]) -> dict[str, Task]:
    return {task.name: task for task in tasks}


TASKS = _table(
    [
        # Dense prediction: what is exactly known of each pixel of a scene.
        Task(
            "depth",
            "Depth",
            "Distance along the optical axis, near white and far black.",
            "depth",
            target="Grey of the logarithm of depth: white at 1 m, black at 32 m and in the sky.",
            views=(views.show_picture, views.show_depth),
        ),
        Task(
            "normals",
            "Surface normals",
            "Which way each surface faces, in camera space.",
            "normals",
            target="The unit vector (right, up, towards the camera) as red, green and blue; mid-grey in the sky.",
            views=(views.show_picture, views.show_normals),
        ),
        Task(
            "semantic",
            "Semantic segmentation",
            "Each pixel's class, a colour a class.",
            "labels",
            target="The class's colour of the palette.",
            views=(views.show_picture, views.show_classes),
        ),
        Task(
            "instances",
            "Instance segmentation",
            "Each object's pixels, a colour an object.",
            "instances",
            target="Colours of the palette, given out from left to right; sky and ground black.",
            views=(views.show_picture, views.show_instances),
        ),
        Task(
            "foreground",
            "Foreground",
            "Objects white, everything else black.",
            "mask",
            target="White on black.",
            views=(views.show_picture, views.show_foreground),
        ),
        Task(
            "edges",
            "Edges",
            "Outlines and creases of the geometry.",
            "edges",
            target="White lines on black.",
            views=(views.show_picture, views.show_edges),
        ),
        Task(
            "albedo",
            "Albedo",
            "The surfaces' own colours, without light and shade.",
            "image",
            target="The colours of the surfaces, unlit.",
            views=(views.show_picture, views.show_albedo),
        ),
        Task(
            "shadow_removal",
            "Shadow removal",
            "The picture without the shadows that things cast.",
            "image",
            target="The same picture with every cast shadow lit.",
            views=(views.show_picture, views.show_shadowless),
        ),
        Task(
            "detection",
            "Object detection",
            "The box around the object that covers most of the picture.",
            "boxes",
            target="A white box on black.",
            views=(views.show_picture, views.show_largest_box),
        ),
        Task(
            "pose",
            "Pose",
            "The joints of a figure, and the limbs between them.",
            "keypoints",
            target="Skeletons on black: a disc of its own colour a joint, a line a limb.",
            views=(views.show_picture, views.show_pose),
            needs_figures=True,
        ),
        # Restoration: any picture, from what a degradation has left of it.
        Task(
            "colorization",
            "Colorization",
            "Colours for a grey picture.",
            "image",
            input="The picture's luma.",
            target=CLEAN,
            degrade=reduction.remove_colour,
        ),
        Task(
            "inpainting",
            "Inpainting",
            "What the grey holes hide.",
            "image",
            input="The picture with 20-40 % covered by grey boxes and strokes.",
            target=CLEAN,
            degrade=holes.cut_holes,
        ),
        Task(
            "denoising",
            "Denoising",
            "The picture beneath photon and read-out noise.",
            "image",
            input="The picture with Poisson and Gaussian noise.",
            target=CLEAN,
            degrade=sensors.add_noise,
        ),
        Task(
            "deblurring",
            "Deblurring",
            "The sharp picture behind a blurred one.",
            "image",
            input="The picture out of focus: a Gaussian of 4-6 % of its height.",
            target=CLEAN,
            degrade=blurring.blur,
        ),
        Task(
            "motion_deblurring",
            "Motion deblurring",
            "The picture of a camera held still.",
            "image",
            input="The picture smeared along a straight or curved path of 10-22 % of its height.",
            target=CLEAN,
            degrade=blurring.shake,
        ),
        Task(
            "deraining",
            "Deraining",
            "The picture without rain and its veil.",
            "image",
            input="The picture through rain: streaks by distance, and fog that grows with depth.",
            target=CLEAN,
            degrade=weather.add_rain,
        ),
        Task(
            "desnowing",
            "Desnowing",
            "The picture without snow and its veil.",
            "image",
            input="The picture through snow: flakes sized by distance, and fog that grows with depth.",
            target=CLEAN,
            degrade=weather.add_snow,
        ),
        Task(
            "dehazing",
            "Dehazing",
            "The picture in clear air.",
            "image",
            input="The picture through haze: 4-14 % of the light is scattered a metre.",
            target=CLEAN,
            degrade=weather.add_haze,
        ),
        Task(
            "low_light",
            "Low-light enhancement",
            "The picture with light enough.",
            "image",
            input="The picture exposed with 2-8 % of the light, with photon and read-out noise.",
            target=CLEAN,
            degrade=sensors.darken,
        ),
        Task(
            "super_resolution",
            "Super-resolution",
            "Detail for a picture at an eighth of its size.",
            "image",
            input="The picture's averages over 8x8 pixels.",
            target=CLEAN,
            degrade=reduction.shrink,
        ),
        Task(
            "jpeg_removal",
            "JPEG artefact removal",
            "The picture before it was compressed.",
            "image",
            input="The picture after a JPEG file of quality 5-20.",
            target=CLEAN,
            degrade=reduction.compress,
        ),
        Task(
            "demosaicing",
            "Demosaicing",
            "All three colours of a pixel, from the one that the sensor saw.",
            "image",
            input="The picture through a Bayer filter: red, green or blue alone a pixel, in cells RGGB.",
            target=CLEAN,
            degrade=sensors.keep_one_colour,
        ),
        # Inverse: the picture, from one of its maps.
        Task(
            "depth_to_image",
            "Depth to picture",
            "A picture with the given depth.",
            "image",
            input="A depth map, as in depth.",
            input_kind="depth",
            views=(views.show_depth, views.show_picture),
        ),
        Task(
            "normals_to_image",
            "Normals to picture",
            "A picture of surfaces that face the given ways.",
            "image",
            input="A normals map, as in normals.",
            input_kind="normals",
            views=(views.show_normals, views.show_picture),
        ),
        Task(
            "edges_to_image",
            "Edges to picture",
            "A picture with the given outlines.",
            "image",
            input="Edges, as in edges.",
            input_kind="edges",
            views=(views.show_edges, views.show_picture),
        ),
        Task(
            "semantic_to_image",
            "Segmentation to picture",
            "A picture of the given classes.",
            "image",
            input="A segmentation, as in semantic.",
            input_kind="labels",
            views=(views.show_classes, views.show_picture),
        ),
        Task(
            "pose_to_image",
            "Pose to picture",
            "A picture of a figure in the given pose.",
            "image",
            input="A skeleton, as in pose.",
            input_kind="keypoints",
            views=(views.show_pose, views.show_picture),
            needs_figures=True,
        ),
        # Video: clips of 1 + 4k frames.
        Task(
            "frame_prediction",
            "Frame prediction",
            "How a clip goes on.",
            "image",
            "clip",
            input="The clip's first quarter of frames, k + 1 of 1 + 4k; then 3k grey ones.",
            target="The whole clip.",
            clip_views=(partial(views.show_known_frames, unknown=views.later_frames), views.show_clip),
            unknown_frames=views.later_frames,
        ),
        Task(
            "frame_interpolation",
            "Frame interpolation",
            "What happens between the first and the last frame.",
            "image",
            "clip",
            input="The clip's first and last frame, grey ones between.",
            target="The whole clip.",
            clip_views=(partial(views.show_known_frames, unknown=views.frames_between), views.show_clip),
            unknown_frames=views.frames_between,
        ),
        Task(
            "video_depth",
            "Video depth",
            "Depth in every frame.",
            "depth",
            "clip",
            input=CLIP,
            target="Depth maps, as in depth.",
            clip_views=(views.show_clip, partial(views.show_every_frame, view=views.show_depth)),
        ),
        Task(
            "video_normals",
            "Video normals",
            "Surface normals in every frame.",
            "normals",
            "clip",
            input=CLIP,
            target="Normals maps, as in normals.",
            clip_views=(views.show_clip, partial(views.show_every_frame, view=views.show_normals)),
        ),
        Task(
            "video_segmentation",
            "Video segmentation",
            "Each object's pixels, in a colour that it keeps.",
            "instances",
            "clip",
            input=CLIP,
            target="Colours of the palette, given out from left to right where objects first appear, and kept.",
            clip_views=(views.show_clip, views.show_object_tracks),
        ),
        Task(
            "optical_flow",
            "Optical flow",
            "Where each pixel goes until the next frame.",
            "flow",
            "clip",
            input=CLIP,
            target="Direction as hue and distance as saturation, by the standard colour wheel.",
            clip_views=(views.show_clip, views.show_flow),
        ),
    ]
)
