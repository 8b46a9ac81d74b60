"""What changed between two versions of the data as a page of pictures: one HTML file that asks for nothing from outside."""

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from components.dataset_changes import Changes, Group, Item, Part
from components.dataset_versions import Version
from lavin_dit.data.raw.matching import ROLES, medium_of
from lavin_dit.data.raw.sides import open_frames, read_image
from lavin_dit.data.raw.sources import Source
from lavin_dit.errors import InputError

TEMPLATE = "data_changes.html.j2"
THUMBNAIL_SIDE = 192
SMALL_SIDE = 96
"""Pictures with fewer pixels a side are enlarged as squares, not blurred."""
MAX_MEGAPIXELS = 64.0
WAYS = {"added": "Added", "removed": "Removed", "changed": "Changed"}


@dataclass(frozen=True)
class Figure:
    """One picture, or the reason why there is none."""

    caption: str
    note: str
    uri: str = ""
    width: int = 0
    height: int = 0

    @property
    def is_small(self) -> bool:
        """Whether it is enlarged on most screens."""
        return max(self.width, self.height) < SMALL_SIDE


@dataclass(frozen=True)
class Card:
    """One item, with its pictures; of a changed one, as it was and as it is."""

    name: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Section:
    """What was added to, removed from or changed in one group; `num_left_out` more are not shown."""

    title: str
    way: str
    cards: tuple[Card, ...]
    num_left_out: int


def render_changes(old: Version, new: Version, found: Mapping[Group, Changes], *, max_shown: int) -> str:
    """The page. Of each group at most `max_shown` added, removed and changed items are shown, spread over all of them.

    Raises: as `Version.place` does.
    """
    environment = Environment(
        loader=PackageLoader("components", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sections = [section for group, changes in found.items() for section in _sections(old, new, group, changes, max_shown)]
    page = environment.get_template(TEMPLATE).render(old=old.title, new=new.title, found=found, sections=sections, title=group_title)
    return f"{page}\n"


def group_title(group: Group) -> str:
    """As people say it: depth, train."""
    task, split, _ = group
    return f"{task}, {split}" if split else task


def _sections(old: Version, new: Version, group: Group, changes: Changes, max_shown: int) -> list[Section]:
    """One for each way in which the group differs; plain files are only counted."""
    if group[2] == "file":
        return []
    shown: dict[str, list[list[tuple[Version, str, Item]]]] = {
        "added": [[(new, "", item)] for item in changes.added],
        "removed": [[(old, "", item)] for item in changes.removed],
        "changed": [[(old, "before", before), (new, "after", after)] for before, after in changes.changed],
    }
    return [_section(group, way, states, max_shown) for way, states in shown.items() if states]


def _section(group: Group, way: str, states: list[list[tuple[Version, str, Item]]], max_shown: int) -> Section:
    chosen = [states[number * len(states) // max_shown] for number in range(max_shown)] if len(states) > max_shown else states
    for version in {id(version): version for state in chosen for version, _, _ in state}.values():
        items = [item for state in chosen for owner, _, item in state if owner is version]
        version.place.fetch(part.file for item in items for part in _shown_parts(item))
    cards = tuple(Card(state[-1][2].name, tuple(figure for each in state for figure in _figures(*each))) for state in chosen)
    return Section(f"{WAYS[way]}: {group_title(group)}", way, cards, len(states) - len(chosen))


def _shown_parts(item: Item) -> Iterable[Part]:
    """The first frame of each side."""
    return [parts[0] for role in (*ROLES, "") if (parts := item.side(role))]


def _figures(version: Version, when: str, item: Item) -> Iterable[Figure]:
    for role in (*ROLES, ""):
        if parts := item.side(role):
            yield _figure(version, f"{role} {when}".strip(), parts)


def _figure(version: Version, caption: str, parts: list[Part]) -> Figure:
    is_folder = len(parts) > 1
    note = f"{len(parts)} frames" if is_folder else ""
    try:
        image = _first_picture(parts[0].source(version))
    except InputError as error:
        return Figure(caption, str(error).partition(": ")[2] or str(error))
    size = f"{image.width}x{image.height}"
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return Figure(caption, f"{size}, {note}" if note else size, _uri(image), image.width, image.height)


def _first_picture(source: Source) -> Image.Image:
    if medium_of(source) == "image":
        return read_image(source, MAX_MEGAPIXELS)
    with open_frames(source, MAX_MEGAPIXELS) as frames:
        first = next(frames.images, None)
    if first is None:
        raise InputError(f"{source.label}: holds no frames")
    return first


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
