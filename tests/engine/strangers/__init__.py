"""Autoregressive models as different authors write them every day: nothing of genfast is in them.

Each is a `Stranger`: a module, what genfast must be told of it, the loss and the sampling loop of its author. NATIVE
must run as pixel programs; OTHERS are drawn by a full forward.
"""

from . import attending, colour, dense, gated, inputs, masked, others, shifted
from .stranger import Stranger, changed, every_image, state

NATIVE = [s for family in (masked, gated, colour, shifted, dense, inputs, attending) for s in family.MODELS]
OTHERS = others.MODELS
STRANGERS = {stranger.name: stranger for stranger in [*NATIVE, *OTHERS]}

__all__ = ["NATIVE", "OTHERS", "STRANGERS", "Stranger", "changed", "every_image", "state"]
