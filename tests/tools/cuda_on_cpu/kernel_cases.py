"""Which problems each row of the kernels' dispatch table is tried on, whatever executes it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from affinity_cases import Case, corner_cases, random_case


@dataclass(frozen=True)
class Row:
    """A row of the dispatch table, read from its name: family, type, and what it was compiled for."""

    name: str

    @property
    def family(self) -> str:
        return self.name.split()[0]

    @property
    def dtype(self) -> str:
        return {"f32": "float32", "f16": "float16"}[self.name.split()[1]]

    def compiled_for(self, letter: str) -> int | None:
        """The number behind r (radius), c (channels) or o (most labels); None = any."""
        numbers = [int(word[1:]) for word in self.name.split()[2:] if word[0] == letter]
        return numbers[0] if numbers else None

    def fit(self, case: Case) -> Case | None:
        """The case, changed as little as the row needs; None when the row is not for such a case."""
        channels, labels = (self.compiled_for(letter) for letter in "co")
        if case.top_k or (case.offsets is not None and self.family != "gather"):
            return None
        return replace(
            case,
            name=f"{case.name} for {self.name}",
            dtype=self.dtype,
            radius=self._radius_for(case),
            channels=channels or max(8, case.channels // 8 * 8),
            labels=min(case.labels, labels or 32),
        )

    def _radius_for(self, case: Case) -> int:
        """On tensor cores, a radius for which dispatch takes this row: one of the four up to the largest, or 0."""
        most = self.compiled_for("r")
        if most is None:
            return case.radius
        if self.family != "mma":
            return most
        return case.radius % 5 if most == 4 else most - case.height % 4


ROWS = [
    Row(name)
    for name in (
        "mma f16 r4 c64 o7",
        "mma f16 r4 c64 o15",
        "mma f16 r4 c64",
        "mma f16 r8 c64 o7",
        "mma f16 r8 c64 o15",
        "mma f16 r8 c64",
        "mma f16 r12 c64 o7",
        "mma f16 r12 c64 o15",
        "mma f16 r12 c64",
        "mma f16 r16 c64 o7",
        "mma f16 r16 c64 o15",
        "mma f16 r16 c64",
        "simt f32 r6",
        "simt f32 r12",
        "simt f32",
        "simt f16 r6",
        "simt f16 r12",
        "simt f16",
        "gather f32",
        "gather f16",
    )
]

# One of each family, of either type: what everyday tests take where the deep ones take every row.
REPRESENTATIVES = [row for row in ROWS if row.name in ("mma f16 r8 c64 o7", "simt f32", "gather f16")]

# Sizes that no tile divides. Widths are a multiple of 8, even and odd: that decides how keys are copied.
ESPECIALLY = [
    Case("21 x 40", height=21, width=40, dilation=((1, 1),), labels=11),
    Case("9 x 18", height=9, width=18, dilation=((1, 2, 0),), labels=7),
    Case("18 x 9", height=18, width=9, dilation=((3, 1),), labels=15),
    Case("large logits, 11 x 16", height=11, width=16, dilation=((1, 0, 1),), features="large", labels=2),
    Case("32 labels, radius 16", height=7, width=40, radius=16, dilation=((1, 0),), labels=32, channels=16),
    Case("256 channels, five slots", height=10, width=8, dilation=((1, 1, 0, 1, 2),), channels=256, labels=1),
    Case("batch of two", height=10, width=24, dilation=((1, 2), (0, 1)), labels=3),
    # Frames beyond which dilated windows do not reach: larger than tile and window, at every residue.
    Case("steps 1 to 4, high", height=61, width=9, dilation=((3, 1, 2, 4),), labels=5),
    Case("steps 1 to 4, wide", height=6, width=120, dilation=((4, 0, 2, 3, 1),), labels=5),
    Case("steps 2 to 5, none of 1", height=27, width=26, dilation=((2, 3), (5, 4)), labels=3),
    Case("steps 6 to 9", height=19, width=33, dilation=((8, 6, 9, 7),), labels=3),
    Case("one slot", height=21, width=24, dilation=((1,),), labels=11),
    Case("one slot, two steps and none", height=13, width=18, dilation=((2,), (9,), (0,)), labels=5),
    Case("groups of equal steps", height=40, width=24, dilation=((3, 3, 1, 3, 3),), labels=3),
    Case("steps beyond the frame", height=12, width=35, dilation=((2**31 - 1, 1, 9),), labels=3),
]


def cases_of(row: Row) -> list[Case]:
    """Cases that every run of the tests takes: a few for each property that a kernel may get wrong."""
    corners = [case for case in corner_cases() if case.dtype == "float32"]
    if row.family == "mma":  # their shapes are costly to emulate; corners of size 9 x 7 add little
        corners = [
            case for case in corners if case.name in ("one pixel", "one row", "one column", "all slots empty")
        ]
    fitted = [row.fit(case) for case in [*ESPECIALLY, *corners]]
    return [case for case in fitted if case is not None]


def random_cases_of(row: Row, count: int) -> list[Case]:
    """Cases drawn from everything that the row computes."""
    fitted = (row.fit(random_case(seed)) for seed in range(1000, 10000))
    found: list[Case] = []
    for case in fitted:
        if case is not None and len(found) < count:
            draw = random.Random(case.seed)
            labels = draw.randint(1, row.compiled_for("o") or 32)
            found.append(
                replace(case, labels=labels, height=case.height + 7, width=case.width + draw.randint(0, 20))
            )
    return found
