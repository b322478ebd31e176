"""What a page is made of. A block says which part of the template shows it by its `kind`; a paragraph is a str."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal


@dataclass(frozen=True)
class Mark:
    """A cell, or a verdict, in a colour."""

    text: str
    tone: Literal["good", "bad", "unsure"]

    def __str__(self) -> str:
        return self.text


Cell = str | int | float | Mark | None


@dataclass(frozen=True)
class Facts:
    """Tiles: (value, what it is), numbers as `genfast.reports.number` writes them."""

    kind: ClassVar[str] = "facts"
    tiles: Sequence[tuple[Cell, str]]


@dataclass(frozen=True)
class Table:
    """A table in a box of its own, which scrolls where it is too wide.

    Attributes:
        columns: the heads.
        rows: cells; numbers as `genfast.reports.number` writes them.
        caption: what the rows are, and in which units.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table: expected {len(self.columns)} cells in each row; got {len(row)}")


@dataclass(frozen=True)
class Figure:
    """A plot, which the functions of `genfast.reports.figures` draw.

    Attributes:
        name: of its file, FILE.svg.
        svg: the whole file.
        alt: what it shows, in words, for who does not see it.
        caption: below it.
    """

    kind: ClassVar[str] = "figure"
    name: str
    svg: str
    alt: str
    caption: str = ""

    @property
    def data(self) -> bytes:
        """The content of its file."""
        return self.svg.encode()


@dataclass(frozen=True)
class Picture:
    """A picture of pixels; small ones are enlarged without smoothing.

    Attributes:
        name: of its file, FILE.png.
        data: the whole file.
        alt, caption: as of a `Figure`.
        heads: (text, columns below it) of the columns of a sheet of images, from the left.
        most: pixels of the page that it is wide at most.
    """

    kind: ClassVar[str] = "picture"
    name: str
    data: bytes
    alt: str
    caption: str = ""
    heads: Sequence[tuple[str, int]] = ()
    most: int = 680

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the file."""
        width, height = struct.unpack(">II", self.data[16:24])
        return int(width), int(height)

    @property
    def shown(self) -> int:
        """Pixels of a wide page: the largest whole multiple of its width that fits into `most`."""
        return self.size[0] * max(1, self.most // self.size[0])


Block = str | Facts | Table | Figure | Picture


@dataclass(frozen=True)
class Section:
    """A part of a page. Blocks of figures that follow one another stand side by side where there is room."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title, lead: what it is of, and a sentence or two about it.
        facts: (value, what it is), at the top.
        sections: `Section`s.
        commands: (command line, what it does): what the reader may do next.
        machine: of `genfast.train.run_folder.machine`: device, threads, versions and date.
        notes: small print at the end.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    facts: Sequence[tuple[Cell, str]] = ()
    commands: Sequence[tuple[str, str]] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def files(self) -> dict[str, bytes]:
        """The figures and pictures, {name of the file: its content}."""
        blocks = [block for section in self.sections for block in section.blocks]
        drawn = [block for block in blocks if isinstance(block, (Figure, Picture))]
        names = [block.name for block in drawn]
        if len({*names}) < len(names):
            raise ValueError(f"page: expected a name for each picture; got {', '.join(names)}")
        return {block.name: block.data for block in drawn}
