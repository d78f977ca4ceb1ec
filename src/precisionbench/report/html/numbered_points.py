"""Points with numbers in a plot, placed so that none hides another one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import attrs

# Sizes in pixels of a point's number and of the dot at its place.
RADIUS, DOT = 9.0, 2.5
# A number needs this much room: pixels, and percent of the narrowest screen (360 pixels).
_ROOM_PX = 2 * RADIUS
_ROOM = 100 * _ROOM_PX / 320
# Where a number is tried, in steps of the room that it needs, the nearest first.
_STEPS = sorted(itertools.product(range(-6, 7), range(-15, 16)), key=lambda s: (math.hypot(*s), s))


@attrs.frozen
class Frame:
    """The picture's edges: `left` and `right` in percent, the others in pixels."""

    left: float = 11.0
    right: float = 98.0
    top: float = 30.0
    bottom: float = 330.0
    height: float = 368.0


FRAME = Frame()


@attrs.frozen
class NumberedPoint:
    """A point of a plot.

    Attributes:
        number: as in the table below.
        tone: its colour, from 0.
        x: its place, in percent.
        y: its place, in pixels.
        label_x: where its number stands, in percent.
        label_y: where its number stands, in pixels.
    """

    number: int
    tone: int
    x: float
    y: float
    label_x: float
    label_y: float


Numbered = TypeVar("Numbered", bound=NumberedPoint)


def apart(points: Sequence[Numbered]) -> tuple[Numbered, ...]:
    """The points with their numbers moved so that they hide neither numbers nor places.

    Args:
        points: whose numbers stand anywhere.
    """
    placed: list[Numbered] = []
    for point in points:
        others = [(one.x, one.y) for one in points if one is not point]
        others += [(one.label_x, one.label_y) for one in placed]
        places = (
            (round(point.x + right * _ROOM, 3), round(point.y + down * _ROOM_PX, 3))
            for right, down in _STEPS
        )
        free = (place for place in places if _is_free(place, others))
        label_x, label_y = next(free, (point.x, point.y))
        placed.append(attrs.evolve(point, label_x=label_x, label_y=label_y))
    return tuple(placed)


def _is_free(place: tuple[float, float], others: Iterable[tuple[float, float]]) -> bool:
    x, y = place
    is_inside = FRAME.left <= x <= FRAME.right and FRAME.top <= y <= FRAME.bottom
    return is_inside and all(
        abs(x - other_x) >= _ROOM - 1e-6 or abs(y - other_y) >= _ROOM_PX - 1e-6
        for other_x, other_y in others
    )
