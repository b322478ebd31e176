"""The operations of StyleGAN2-ADA and StyleGAN3 code, a module each, in the place of those of `torch_utils.ops`::

from genfast.compat.stylegan3 import bias_act, upfirdn2d

x = bias_act.bias_act(x, b, act="lrelu", clamp=256)
x = upfirdn2d.upsample2d(x, upfirdn2d.setup_filter([1, 3, 3, 1]))
"""

from genfast.compat.stylegan3 import bias_act, upfirdn2d

__all__ = ["bias_act", "upfirdn2d"]
