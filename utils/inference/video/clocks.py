"""Clocks of videos: one that jumps is continued, as in players of joined recordings."""

from __future__ import annotations

from fractions import Fraction

# Frames by which times may run backwards without being a jump.
MAX_SWAPPED = 3
# Seconds between two frames; longer gaps mean a damaged clock, or another one.
MAX_GAP = 6 * 3600


class Clock:
    """Turns the times that a file gives into times without jumps.

    time_base: seconds per unit of all times.
    shift: what is added to the file's times at present.
    """

    def __init__(self, time_base: Fraction, shift: int = 0) -> None:
        self.time_base = time_base
        self.shift = shift
        self._newest: int | None = None

    def time(self, given: int | None, step: int) -> int:
        """The time of the next frame or sound.

        given: its time in the file; None if the file does not state it.
        step: the duration of the previous one, at least 1.
        """
        following = 0 if self._newest is None else self._newest + step
        if given is None:
            time = following
        else:
            time = given + self.shift
            if self._newest is not None and self._jumps(time - self._newest, step):
                self.shift += following - time
                time = following
        self._newest = time if self._newest is None else max(self._newest, time)
        return time

    def _jumps(self, passed: int, step: int) -> bool:
        """Whether so long a step between two frames or sounds means that the clock was reset."""
        # Gaps can be long, but MP4 stores them in 31 bits.
        is_late = passed * self.time_base > MAX_GAP or passed > 1 << 30
        return is_late or passed < -MAX_SWAPPED * step
