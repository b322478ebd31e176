"""Float32 functions that the kernels of Gaussians share: what the GPU's short instructions are too coarse for."""

import triton
import triton.language as tl

# Log-variances are clamped between them.
LOWEST, HIGHEST = tl.constexpr(-30.0), tl.constexpr(20.0)
LOG_TWO_PI = tl.constexpr(1.8378770664093453)


@triton.jit
def clamped(log_variance):
    """The log-variance within its bounds, and whether it has a gradient; a NaN stays."""
    low, high = log_variance < LOWEST, log_variance > HIGHEST
    return tl.where(low, LOWEST, tl.where(high, HIGHEST, log_variance)), ~(low | high)


@triton.jit
def exponential(x):
    """e^x within 1.5 ulp for |x| < 87; tl.exp rounds its exponent, which costs |x| 2^-24 besides."""
    n = tl.floor(x * 1.4426950408889634 + 0.5)
    # 0.693359375 has 10 bits: its product with n is exact.
    r = (x - n * 0.693359375) + n * 2.12194440054690583e-4
    series = 0.5 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720 + r * (1 / 5040)))))
    power = ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return (1 + (r + r * r * series)) * power


@triton.jit
def exponential_rest(x):
    """e^x - 1 - x, in which nothing cancels, for |x| < 87."""
    series = 1 / 120 + x * (1 / 720 + x * (1 / 5040 + x * (1 / 40320 + x * (1 / 362880))))
    series = 0.5 + x * (1 / 6 + x * (1 / 24 + x * series))
    return tl.where(tl.abs(x) < 0.5, x * x * series, exponential(x) - 1 - x)


@triton.jit
def normal(seed, image, element, draw):
    """The four standard normal numbers of each place, those of `genfast.random.philox.normal` within 3 ulp: float32.

    `seed` holds the 64 bits of the seed, of either sign; `image` is a tensor of 64-bit and `element` one of 32-bit
    integers, of one shape.
    """
    image, element = image.to(tl.uint64), element.to(tl.uint32)
    a, b, c, d = tl.philox(seed, element * 0 + draw, element, image.to(tl.uint32), (image >> 32).to(tl.uint32))
    first, second = normal_pair(a, b)
    third, fourth = normal_pair(c, d)
    return first, second, third, fourth


@triton.jit
def normal_pair(a, b):
    """Two numbers by Box and Muller from two words of 32 bits."""
    radius = tl.sqrt_rn(-2 * tl.log(((a >> 8).to(tl.float32) + 1) * 2.0**-24))
    turn = (b >> 8).to(tl.int32)
    # The angle is 2 pi turn / 2^24: quarters of a turn, and the rest x in half turns, from -1/4 to 1/4 and exact.
    quarter = (turn + 2**21) >> 22
    x = (turn - (quarter << 22)).to(tl.float32) * 2.0**-23
    y = x * x
    # sin(pi x) and cos(pi x); pi in two parts.
    series = -5.16771278 + y * (2.550164040 + y * (-0.5992645293 + y * 0.08214588661))
    sine = x * 3.1415927410125732 + x * (y * series - 8.742278e-8)
    series = 4.058712126 + y * (-1.335262769 + y * (0.2353306304 + y * -0.02580689139))
    cosine = 1 + y * (-4.934802201 + y * series)
    odd = (quarter & 1) == 1
    c, s = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    c = tl.where(((quarter + 1) & 2) == 2, -c, c)
    s = tl.where((quarter & 2) == 2, -s, s)
    return radius * c, radius * s
