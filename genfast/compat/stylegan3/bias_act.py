"""Bias and activation under the names of StyleGAN3 code."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from genfast import ops
from genfast.compat.stylegan3._backend import backend

__all__ = ["activation_funcs", "bias_act"]
# act -> its name here, and its gain where none is given.
ACTIVATIONS = {
    "linear": ("linear", 1.0),
    "relu": ("relu", 2**0.5),
    "lrelu": ("leaky_relu", 2**0.5),
    "tanh": ("tanh", 1.0),
    "sigmoid": ("sigmoid", 1.0),
    "swish": ("swish", 2**0.5),
}


class Defaults(NamedTuple):
    """What an activation has where nothing is given."""

    def_gain: float
    def_alpha: float


# As layers read it for their own gain: `activation_funcs[act].def_gain`.
activation_funcs = {act: Defaults(gain, 0.2 if act == "lrelu" else 0.0) for act, (_, gain) in ACTIVATIONS.items()}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "cuda",
) -> Tensor:
    """clamp(activation(x + b) * gain, -clamp, clamp): `genfast.bias_act`.

    Args:
        x: float, of two dimensions or more.
        b: of the size of x along `dim` and of its dtype, or None.
        dim: the dimension that the bias belongs to.
        act: linear, relu, lrelu, tanh, sigmoid or swish; elu, selu and softplus are refused.
        alpha: slope of lrelu (0.2); refused for another act, where it has no meaning.
        gain: factor after the activation (sqrt(2) of relu, lrelu and swish, else 1).
        clamp: at least 0, or None for no limit.
        impl: "cuda": the fastest backend that serves these tensors, wherever they are; "ref": plain PyTorch.
    Returns: as x.
    Raises: as `genfast.bias_act`; ValueError for another act or impl.
    Gradients: every order in x and b.
    Paper: A Style-Based Generator Architecture for Generative Adversarial Networks, appendix C, arXiv 1812.04948.
    Example: `bias_act(torch.randn(2, 8, 4, 4), torch.zeros(8), act="lrelu", clamp=256)`
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"bias_act: act must be one of {', '.join(ACTIVATIONS)}; got {act!r}")
    if alpha is not None and act != "lrelu":
        raise ValueError(f"bias_act: alpha must be None for an act other than lrelu; got {alpha} for {act!r}")
    activation, usual = ACTIVATIONS[act]
    settings = 0.2 if alpha is None else alpha, usual if gain is None else gain, clamp
    y = ops.bias_act(x.movedim(dim, 1), b, activation, *settings, backend=backend("bias_act", impl))
    return y.movedim(1, dim)
