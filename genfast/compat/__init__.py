"""Signatures that existing code already calls, on genfast's ops: one import line changes a program.

=========================================================  ==========================================================
in the place of                                            import
=========================================================  ==========================================================
`op` of PyTorch ports of StyleGAN2                         `genfast.compat.stylegan2`
`torch_utils.ops` of StyleGAN2-ADA and StyleGAN3 code      `genfast.compat.stylegan3`
`vector_quantize_pytorch.VectorQuantize`                   `genfast.compat.vector_quantize_pytorch`
`torch.nn.utils.parametrizations.spectral_norm`            `genfast.compat.parametrizations`
torchmetrics' FID and KID of a network of features         `genfast.compat.torchmetrics`
torch-fidelity's FID and KID of given features             `genfast.compat.torch_fidelity`
losses and samplers of PyTorch ports of PixelCNN++         `genfast.compat.pixelcnn_plus_plus`
=========================================================  ==========================================================

Argument names, order and defaults are those of the original, and so are outputs, gradients and state dicts. What an
option asks for and genfast does not have is an error that names it.
"""

from genfast.compat import (
    parametrizations,
    pixelcnn_plus_plus,
    stylegan2,
    stylegan3,
    torch_fidelity,
    torchmetrics,
    vector_quantize_pytorch,
)

__all__ = [
    "parametrizations",
    "pixelcnn_plus_plus",
    "stylegan2",
    "stylegan3",
    "torch_fidelity",
    "torchmetrics",
    "vector_quantize_pytorch",
]
