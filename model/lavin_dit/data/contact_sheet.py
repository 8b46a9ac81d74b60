"""Contact sheets: what every task looks like, an example each, for people to look at.

python -m lavin_dit.data.contact_sheet --out docs/images/tasks
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from lavin_dit.data.pixels import Picture
from lavin_dit.data.tasks import TASKS, Task, generator_of, pair_of_clip, pair_of_scene
from lavin_dit.data.world.clips import MovingScene, render_moving_scene
from lavin_dit.data.world.layout import World
from lavin_dit.data.world.scenes import render_scene

IMAGE_SHEET, VIDEO_SHEET = "image_tasks.png", "video_tasks.png"
TASKS_FIELD = "tasks"
"""The PNG text field that lists the tasks of a sheet, so that a test can tell when it is out of date."""

SEED, IMAGE_SCENE, VIDEO_SCENE = 0, 0, 0
WORLD = World(difficulty=0.5, figures=True)
IMAGE_SIZE, FRAME_SIZE, NUM_FRAMES = 128, 112, 5
IMAGE_COLUMNS, VIDEO_COLUMNS = 7, 2
GAP, TITLE_HEIGHT, FONT_SIZE = 6, 16, 11
PAPER, INK = (255, 255, 255), (40, 40, 40)


def main() -> None:
    """Writes both sheets into a folder."""
    parser = argparse.ArgumentParser(description="Writes a picture of all image tasks and one of all video tasks.")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    image_tasks = [task for task in TASKS.values() if task.from_scene]
    video_tasks = [task for task in TASKS.values() if task.from_clip]
    save_sheet(out / IMAGE_SHEET, image_sheet(image_tasks), image_tasks)
    save_sheet(out / VIDEO_SHEET, video_sheet(video_tasks), video_tasks)


def image_sheet(tasks: Sequence[Task]) -> Picture:
    """One scene by every task: the input above the target, titled."""
    scene = render_scene(SEED, IMAGE_SCENE, IMAGE_SIZE, world=WORLD)
    pairs = [pair_of_scene(task, scene, generator_of(SEED, task.name, "sheet")) for task in tasks]
    cells = [_titled(task.title, _column([pair.input, pair.target])) for task, pair in zip(tasks, pairs, strict=True)]
    return _arrange(cells, IMAGE_COLUMNS)


def video_sheet(tasks: Sequence[Task]) -> Picture:
    """One moving scene by every task: the frames of the input above those of the target, titled."""
    moving = render_moving_scene(SEED, VIDEO_SCENE, FRAME_SIZE, num_frames=NUM_FRAMES, world=WORLD)
    return _arrange([_titled(task.title, _frames_of(task, moving)) for task in tasks], VIDEO_COLUMNS)


def save_sheet(path: Path, sheet: Picture, tasks: Sequence[Task]) -> None:
    """Writes a sheet as a PNG that lists its tasks."""
    text = PngInfo()
    text.add_text(TASKS_FIELD, " ".join(task.name for task in tasks))
    Image.fromarray(sheet).save(path, pnginfo=text, optimize=True)


def tasks_on(path: Path) -> list[str]:
    """The names of the tasks on a sheet that was saved."""
    with Image.open(path) as sheet:
        return str(sheet.info[TASKS_FIELD]).split()


def _frames_of(task: Task, moving: MovingScene) -> Picture:
    pair = pair_of_clip(task, moving, generator_of(SEED, task.name, "sheet"))
    return _column([_row(list(pair.input)), _row(list(pair.target))])


def _arrange(cells: Sequence[Picture], num_columns: int) -> Picture:
    rows = [_row(cells[first : first + num_columns]) for first in range(0, len(cells), num_columns)]
    return _framed(_column([_widened(row, rows[0].shape[1]) for row in rows]))


def _titled(title: str, picture: Picture) -> Picture:
    band = Image.new("RGB", (picture.shape[1], TITLE_HEIGHT), PAPER)
    ImageDraw.Draw(band).text((0, 0), title, fill=INK, font=ImageFont.load_default(FONT_SIZE))
    return np.concatenate([np.asarray(band), picture])


def _row(pictures: Sequence[Picture]) -> Picture:
    return np.concatenate([part for picture in pictures for part in (picture, _paper(picture.shape[0], GAP))][:-1], axis=1)


def _column(pictures: Sequence[Picture]) -> Picture:
    return np.concatenate([part for picture in pictures for part in (picture, _paper(GAP, picture.shape[1]))][:-1])


def _widened(picture: Picture, width: int) -> Picture:
    return np.concatenate([picture, _paper(picture.shape[0], width - picture.shape[1])], axis=1)


def _framed(picture: Picture) -> Picture:
    return np.pad(picture, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=PAPER[0])


def _paper(height: int, width: int) -> Picture:
    return np.full((height, width, 3), PAPER, np.uint8)


if __name__ == "__main__":
    main()
