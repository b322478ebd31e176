"""Sequences: a model of [B, T] symbols as a model of images of one row, whose columns are time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.random.levels import MOST_LEVELS

# What forward takes, each with the inputs of an image of one row that it is made of.
INPUTS = {"symbols": "flat-levels", "one-hot": "flat-levels", "one-hot-last": "flat-levels", "values": "flat"}
PREDICTS = ("own", "next")
KEYWORDS = ("length", "vocabulary", "predicts", "start")
# Keywords of images, which those of sequences take the place of.
_OF_IMAGES = ("shape", "levels", "pixel_order")


@dataclass(frozen=True)
class Sequences:
    """What a model of sequences takes, and which symbol its outputs are of.

    Attributes:
        length: T, symbols of a sequence.
        vocabulary: V, of which there are.
        inputs: "symbols", integers [B, T]; "one-hot", floats [B, V, T]; "one-hot-last", floats [B, T, V]; "values",
            floats [B, 1, T].
        predicts: of which symbol the output at t gives the distribution: "own", x_t, or "next", x_{t+1}; None: it is
            to be found.
        start: the symbol before the first, for "next"; None: there is none, and the first symbol must be given.
    """

    length: int
    vocabulary: int
    inputs: str = "symbols"
    predicts: str | None = None
    start: int | None = None

    @property
    def delay(self) -> int:
        """The number of first symbols of which no output is the distribution: 1 for "next" without a start."""
        return int(self.predicts == "next" and self.start is None)

    @property
    def counted(self) -> int:
        """The number of symbols that a log-probability counts."""
        return self.length - self.delay

    def entered(self, x: Tensor, scale: float, shift: float) -> Tensor:
        """What forward is given for symbols [B, T], as integers, or as floats `symbol * scale + shift`.

        With a start symbol the output at t is that of x_t: forward is given start, x_0, .., x_{T-2}.
        """
        if self.predicts == "next" and self.start is not None:
            first = torch.full_like(x[:, :1], self.start * scale + shift if self.inputs == "values" else self.start)
            x = torch.cat((first, x[:, :-1]), 1)
        if self.inputs == "values":
            return x[:, None]
        if self.inputs == "symbols":
            return x
        one_hot = F.one_hot(x, self.vocabulary).to(torch.float32)
        return one_hot.transpose(1, 2) if self.inputs == "one-hot" else one_hot


def sequences_of(call: str, given: Mapping[str, Any]) -> tuple[Sequences | None, dict[str, Any]]:
    """The `Sequences` of keywords, None where they are of images; and keywords of the images of one row.

    Raises: TypeError or ValueError for a keyword that does not fit.
    """
    named = [name for name in KEYWORDS if name in given]
    if not named:
        return None, dict(given)
    if "length" not in given or "vocabulary" not in given:
        missing = "length" if "length" not in given else "vocabulary"
        raise ValueError(f"{call}: {missing} must be given for a model of sequences, beside {named[0]}; got None")
    if others := [name for name in _OF_IMAGES if name in given]:
        raise ValueError(f"{call}: {others[0]} must be None for a model of sequences, which has a length; got a value")
    length, vocabulary = given["length"], given["vocabulary"]
    if type(length) is not int or length < 1:
        raise ValueError(f"{call}: length must be an int, at least 1; got {length!r}")
    if type(vocabulary) is not int or not 2 <= vocabulary <= MOST_LEVELS:
        raise ValueError(f"{call}: vocabulary must be an int, 2 to {MOST_LEVELS}; got {vocabulary!r}")
    inputs, predicts, start = given.get("inputs", "symbols"), given.get("predicts"), given.get("start")
    if inputs not in INPUTS:
        raise ValueError(f"{call}: inputs must be one of {', '.join(INPUTS)} for sequences; got {inputs!r}")
    if predicts not in (None, *PREDICTS):
        raise ValueError(f"{call}: predicts must be 'own' or 'next'; got {predicts!r}")
    _check_start(call, start, inputs, predicts, vocabulary)
    rest = {name: value for name, value in given.items() if name not in KEYWORDS}
    rest |= {"shape": (1, 1, length), "levels": vocabulary, "inputs": INPUTS[inputs]}
    if isinstance(layout := given.get("output"), str):
        rest["output"] = _of_one_row(layout)
    return Sequences(length, vocabulary, inputs, predicts, start), rest


def _check_start(call: str, start: Any, inputs: str, predicts: str | None, vocabulary: int) -> None:
    if start is None:
        return
    if type(start) is not int or start < 0:
        raise ValueError(f"{call}: start must be an int, the symbol before the first; got {start!r}")
    if predicts == "own":
        expected = "None for predicts='own', where the model puts what comes before the first symbol itself"
        raise ValueError(f"{call}: start must be {expected}; got {start}")
    if inputs != "symbols" and start >= vocabulary:  # an embedding may have an entry more
        raise ValueError(f"{call}: start must lie in 0..{vocabulary - 1} for inputs={inputs!r}; got {start}")


def _of_one_row(layout: str) -> str:
    """A layout of the letters B, T and V in those of an image: "B T V" is "B (H W) L"."""
    name, colon, text = layout.rpartition(":")
    text, inside = text.replace("V", "L"), False
    parts = []
    for letter in text:
        inside = letter == "(" or inside and letter != ")"
        parts.append(letter if letter != "T" else "H W" if inside else "(H W)")
    return name + colon + "".join(parts)


def misread(sequences: Sequences, error: ValueError, output: Any) -> ValueError:
    """Why an output cannot be read, in the words of sequences; the cases that are known by name."""
    T, V = sequences.length, sequences.vocabulary
    text = str(error).removeprefix("sample: ")
    if "the model must return" not in text:
        return error
    shapes = [tuple(one.shape) for one in _tensors(output) if one.is_floating_point() and one.dim() == 3]
    why = ""
    for shape in shapes:
        lengths = [size for size in shape[1:] if size != V] or [V]
        if V not in shape[1:]:
            continue
        if lengths[0] == 1 < T:
            why = (
                "; it returns the last position alone: give what makes it return all, such as "
                f"condition={{'targets': torch.zeros(1, {T}, dtype=torch.long)}}, or wrap it"
            )
        elif 1 < lengths[0] < T:
            why = f"; it keeps a window of {lengths[0]} symbols: give length={lengths[0]} at most"
    got = text.rpartition("; got ")[2]
    expected = f"logits [B, T, V] or [B, V, T] with T={T}, V={V} (output= names another layout)"
    return ValueError(f"sample: the model must return {expected}; got {got}{why}")


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Mapping):
        output = list(output.values())
    entries = output if isinstance(output, (tuple, list)) else [output]
    return [one for one in entries if isinstance(one, Tensor)]
