"""Small pixel programs written by hand, each with the forward pass it stands for, in float64 by torch's own ops."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import conv2d, elu, pad

from genfast.engine.program import Buffer, Instruction, Program, Read
from genfast.engine.protocols import ImageSpec
from genfast.engine.request import SampleRequest
from genfast.likelihoods import Bernoulli, Categorical, LogisticMixture


@dataclass
class Case:
    """`forward(x, labels)`: pixels float64 [n, C, H, W] as they enter the network -> all parameters [n, P, H, W]."""

    name: str
    program: Program
    forward: object

    def __str__(self):
        return self.name

    def pixels(self, images):
        p = self.program
        return images.double() * p.scale + p.shift


def random(*shape, seed=0, scale=0.7):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def linear(buffer, count, domain, reads, weight, bias, **rest):
    """`weight` [count, depth], as a convolution has it."""
    return Instruction("linear", buffer, 0, count, domain, reads, weight.T.contiguous().numpy(), bias.numpy(), **rest)


def elementwise(kind, buffer, count, domain, *reads, feature=0, **rest):
    return Instruction(kind, buffer, feature, count, domain, list(reads), **rest)


def masked():
    """Two masked 3x3 convolutions, the rows above of the second in `row`; Bernoulli."""
    height, width, f = 4, 3, 5
    whole = (0, height, 0, width)
    w1, b1, w2, b2 = random(f, 1, 3, 3), random(f, seed=1), random(f, f, 3, 3, seed=2), random(f, seed=3)
    w3, b3 = random(1, f, seed=4), random(1, seed=5)
    w1[:, :, 1, 1:] = w1[:, :, 2] = 0
    w2[:, :, 1, 2:] = w2[:, :, 2] = 0

    def taps(w, row, *columns):
        """[F, columns * features]: the features of a column lie next to each other."""
        return torch.cat([w[:, :, row + 1, column + 1] for column in columns], 1)

    buffers = [
        Buffer(1, width, rows=2, left=1, right=1),
        Buffer(f, width, rows=2, left=1, right=1),
        Buffer(f, width),
        Buffer(f, width),
        Buffer(1, width),
    ]
    above = linear(2, f, whole, [Read(1, -1, -1, 0, 3 * f)], taps(w2, -1, -1, 0, 1), torch.zeros(f))
    seen, weight = (
        [Read(0, -1, -1, 0, 3), Read(0, 0, -1, 0, 1)],
        torch.cat((taps(w1, -1, -1, 0, 1), taps(w1, 0, -1)), 1),
    )
    first = linear(1, f, whole, seen, weight, b1, activation="tanh")
    rest = {"adds": [Read(2, 0, 0, 0, f)], "activation": "relu"}
    second = linear(3, f, whole, [Read(1, 0, -1, 0, 2 * f)], taps(w2, 0, -1, 0), b2, **rest)
    last = linear(4, 1, whole, [Read(3, 0, 0, 0, f)], w3, b3)
    program = Program(
        ImageSpec(1, height, width, 2),
        Bernoulli(1, 2),
        width,
        2.0,
        -1.0,
        0,
        buffers,
        [above],
        [[first, second, last], []],
        [Read(4, 0, 0, 0, 1)],
    )

    def forward(x, labels):
        w = [t.double() for t in (w1, b1, w2, b2, w3, b3)]
        h = conv2d(x, w[0], w[1], padding=1).tanh()
        h = conv2d(h, w[2], w[3], padding=1).relu()
        return conv2d(h, w[4][:, :, None, None], w[5])

    return Case("masked convolutions", program, forward)


def colors():
    """Three draws of a pixel, each of which sees those before it; categorical, with labels."""
    height, width, levels, f, classes = 3, 4, 5, 6, 2
    whole = (0, height, 0, width)
    w, b = random(f, 3, 2, 2), random(classes, f, seed=1, scale=2.0)
    w[:, :, 1, 1] = 0
    heads = [random(levels, f + k, seed=2 + k, scale=1.2) for k in range(3)]
    zero = torch.zeros(levels)
    buffers = [Buffer(3, width, rows=2, left=1), Buffer(f, width), *(Buffer(levels, width) for _ in range(3))]
    taps = torch.cat((w[:, :, 0, 0], w[:, :, 0, 1], w[:, :, 1, 0]), 1)
    pixel = [
        [linear(1, f, whole, [Read(0, -1, -1, 0, 6), Read(0, 0, -1, 0, 3)], taps, b, activation="elu")],
        [],
        [],
        [],
    ]
    for k in range(3):
        reads = [Read(1, 0, 0, 0, f)] + ([Read(0, 0, 0, 0, k)] if k else [])
        pixel[k].append(linear(2 + k, levels, whole, reads, heads[k], zero))
    parameters = [Read(2 + k, 0, 0, 0, levels) for k in range(3)]
    scale = 2 / (levels - 1)
    program = Program(
        ImageSpec(3, height, width, levels, classes),
        Categorical(3, levels),
        width,
        scale,
        -1.0,
        0,
        buffers,
        [],
        pixel,
        parameters,
    )

    def forward(x, labels):
        h = elu(conv2d(pad(x, (1, 0, 1, 0)), w.double()) + b.double()[labels][:, :, None, None])
        every = [torch.einsum("of,nfhw->nohw", heads[k].double(), torch.cat((h, x[:, :k]), 1)) for k in range(3)]
        return torch.cat(every, 1)

    return Case("three draws", program, forward)


def cell(gates, before):
    i, f, g, o = gates.chunk(4, -1)
    after = f.sigmoid() * before + i.sigmoid() * g.tanh()
    return o.sigmoid() * after.tanh(), after


def scans():
    """An LSTM from the right over the finished row above, and one from the left, on a virtual column too; learned
    states outside the image, no first row for the one from the right; categorical."""
    height, width, levels, f = 3, 3, 4, 2
    right_w, right_b = random(4 * f, 1 + f), random(4 * f, seed=1)
    left_w, left_b = random(4 * f, 1 + f + f, seed=2), random(4 * f, seed=3)
    head_w, head_b = random(levels, 2 * f, seed=4, scale=2.0), random(levels, seed=5)
    h_out, c_out, l_out = random(f, seed=6), random(f, seed=7), random(f, seed=8)
    grid = width + 1
    everywhere, below_first = (0, height, 0, grid), (1, height, 0, grid)
    buffers = [
        Buffer(1, grid, rows=2, left=1),
        Buffer(4 * f, grid),  # gates from the right
        Buffer(f, grid, right=1, fill=h_out.numpy()),
        Buffer(f, grid, right=1, fill=c_out.numpy()),
        Buffer(4 * f, grid),  # gates from the left
        Buffer(f, grid, left=1, rows=2, fill=l_out.numpy()),
        Buffer(f, grid, left=1),
        Buffer(2 * f, grid, fill=torch.cat((h_out, torch.zeros(f))).numpy()),  # both hidden states
        Buffer(levels, grid),
    ]
    gates_and_cell = (
        [Read(1, 0, 0, 0, 4 * f), Read(3, 0, 1, 0, f)],
        [Read(4, 0, 0, 0, 4 * f), Read(6, 0, -1, 0, f)],
    )
    from_right = [
        linear(1, 4 * f, below_first, [Read(0, -1, 0, 0, 1), Read(2, 0, 1, 0, f)], right_w, right_b, sweep=-1),
        Instruction("lstm", 2, 0, f, below_first, gates_and_cell[0], cell=(3, 0), visible=(7, 0), sweep=-1),
    ]
    reads = [Read(0, 0, -1, 0, 1), Read(5, 0, -1, 0, f), Read(5, -1, 0, 0, f)]
    pixel = [
        linear(4, 4 * f, everywhere, reads, left_w, left_b),
        Instruction("lstm", 5, 0, f, everywhere, gates_and_cell[1], cell=(6, 0), visible=(7, f)),
        linear(8, levels, (0, height, 0, width), [Read(7, 0, 0, 0, 2 * f)], head_w, head_b),
    ]
    program = Program(
        ImageSpec(1, height, width, levels),
        Categorical(1, levels),
        grid,
        2 / 3,
        -1.0,
        0,
        buffers,
        from_right,
        [pixel, []],
        [Read(8, 0, 0, 0, levels)],
    )

    def forward(x, labels):
        n = len(x)
        w = [t.double() for t in (right_w, right_b, left_w, left_b, head_w, head_b, h_out, c_out, l_out)]
        x = pad(x[:, 0], (0, 1))  # the virtual column of the image is zero
        out = x.new_zeros(n, height, width, levels)
        lefts = [w[8].expand(n, grid, f)]
        for i in range(height):
            rights = [w[6].expand(n, f)] * grid
            if i:
                h, c = w[6].expand(n, f), w[7].expand(n, f)
                for j in reversed(range(grid)):
                    h, c = cell(torch.cat((x[:, i - 1, j, None], h), 1) @ w[0].T + w[1], c)
                    rights[j] = h
            h, c, states = w[8].expand(n, f), x.new_zeros(n, f), []
            for j in range(grid):
                side = x[:, i, j - 1, None] if j else x.new_zeros(n, 1)
                h, c = cell(torch.cat((side, h, lefts[-1][:, j]), 1) @ w[2].T + w[3], c)
                states.append(h)
            lefts.append(torch.stack(states, 1))
            for j in range(width):
                out[:, i, j] = torch.cat((rights[j], states[j]), 1) @ w[4].T + w[5]
        return out.permute(0, 3, 1, 2)

    return Case("scans", program, forward)


def strided():
    """Down to half the resolution over finished rows, at the left too, and up again; all element-wise kinds; a mixture
    of `channels` colours."""
    height, width, levels, f, classes, size = 5, 6, 7, 4, 3, 2
    whole, half = (0, height, 0, width), (0, 3, 0, 3)
    down_w, down_b = random(f, 1, 2, 2), random(f, seed=1)
    left_w, left_b = random(f, 2, seed=2), random(f, seed=3)
    up_w, up_b = random(f, f, seed=4), random(f, seed=5)
    scales, shifts, table = random(1, f, seed=6), random(f, seed=7), random(classes, f, seed=8)
    head_w, head_b = random(3 * size, 3 * f, seed=9), random(3 * size, seed=10) - 1
    buffers = [
        Buffer(1, width, rows=3, left=2),
        Buffer(f, 3, stride=2, rows=2),  # 1: down, in row
        Buffer(f, 3, stride=2, rows=2),  # 2: at the left, in pixel; even rows only
        Buffer(f, width),  # 3: up
        Buffer(8 * f, width),  # 4: element by element
        Buffer(3 * f, width),  # 5
        Buffer(3 * size, width),
    ]

    def at(k):
        return Read(4, 0, 0, k * f, f)

    up, side = Read(3, 0, 0, 0, f), Read(2, 0, 0, 0, f)
    above, coarse = [Read(0, -2, 0, 0, 2), Read(0, -1, 0, 0, 2)], {"row_modulus": 2, "column_modulus": 2}
    row = [
        linear(1, f, half, above, down_w.flatten(1), down_b, activation="sigmoid", **coarse),
        linear(3, f, whole, [Read(1, 0, 0, 0, f)], up_w, up_b),
        elementwise("elu", 4, f, whole, up),
        elementwise("affine", 4, f, whole, up, feature=f, weight=scales.numpy(), bias=shifts.numpy()),
        elementwise("constant", 4, f, whole, feature=2 * f, bias=table.numpy()),
    ]
    pixel = [
        linear(2, f, half, [Read(0, 0, -2, 0, 2)], left_w, left_b, row_modulus=2, column_modulus=2),
        elementwise("gate", 4, f, whole, at(0), side, feature=3 * f),
        elementwise("mul", 4, f, whole, at(1), at(2), feature=4 * f),
        elementwise("neg", 4, f, whole, at(1), feature=5 * f),
        elementwise("relu", 4, f, whole, at(5), feature=6 * f),
        elementwise("tanh", 4, f, whole, at(2), feature=7 * f),
        elementwise("add", 5, f, whole, at(3), at(4)),
        elementwise("sigmoid", 5, f, whole, at(6), feature=f),
        elementwise("copy", 5, f, whole, at(7), feature=2 * f),
        linear(6, 3 * size, whole, [Read(5, 0, 0, 0, 3 * f)], head_w, head_b),
    ]
    program = Program(
        ImageSpec(1, height, width, levels, classes),
        LogisticMixture(1, levels, size),
        width,
        1 / 3,
        -1.0,
        0,
        buffers,
        row,
        [pixel, []],
        [Read(6, 0, 0, 0, 3 * size)],
    )

    def forward(x, labels):
        x = pad(x, (0, 0, 0, 1))  # to an even height
        # Row r of the half resolution sees the two rows before it.
        down = conv2d(pad(x, (0, 0, 2, 0))[:, :, :6], down_w.double(), down_b.double(), stride=2).sigmoid()
        up = torch.einsum("of,nfhw->nohw", up_w.double(), down) + up_b.double()[:, None, None]
        up = up.repeat_interleave(2, 2).repeat_interleave(2, 3)
        side = conv2d(
            pad(x, (2, 0, 0, 0))[:, :, ::2, :6], left_w.double()[:, None, None], left_b.double(), stride=(1, 2)
        )
        side = side.repeat_interleave(2, 2).repeat_interleave(2, 3)
        constant = table.double()[labels][:, :, None, None].expand_as(up)
        affine = up * scales.double()[0, :, None, None] + shifts.double()[:, None, None]
        parts = elu(up).tanh() * side.sigmoid() + affine * constant, affine.neg().relu().sigmoid(), constant.tanh()
        out = torch.einsum("of,nfhw->nohw", head_w.double(), torch.cat(parts, 1)) + head_b.double()[:, None, None]
        return out[:, :, :height]

    return Case("strided", program, forward)


def mixed_colors():
    """One draw of all three colours of a pixel."""
    height, width, levels, size = 2, 3, 16, 2
    whole, count = (0, height, 0, width), 10 * size
    w, b = random(count, 6, scale=0.4), random(count, seed=1)
    b[7 * size // 2 :] -= 0.5
    buffers = [Buffer(3, width, rows=2, left=1), Buffer(count, width)]
    head = linear(1, count, whole, [Read(0, -1, 0, 0, 3), Read(0, 0, -1, 0, 3)], w, b)
    program = Program(
        ImageSpec(3, height, width, levels),
        LogisticMixture(3, levels, size),
        width,
        2 / 15,
        -1.0,
        0,
        buffers,
        [],
        [[head], []],
        [Read(1, 0, 0, 0, count)],
    )

    def forward(x, labels):
        above, left = pad(x, (0, 0, 1, 0))[:, :, :height], pad(x, (1, 0))[..., :width]
        seen = torch.cat((above, left), 1)
        return torch.einsum("of,nfhw->nohw", w.double(), seen) + b.double()[:, None, None]

    return Case("mixture of colours", program, forward)


def ones(*shape):
    """A constant of the last of these numbers, and the shape of the others."""
    return np.full(shape[:-1], shape[-1], np.float32)


def fields_of_labels(classes, count):
    return random(classes, count, seed=9)


def known_before():
    """Tables that levels select, and fields: by row, column, label and request, on a part of a map, and of stride 2."""
    height, width, levels, f, classes = 5, 6, 7, 3, 4
    whole, part, coarse = (0, height, 0, width), (1, 4, 2, 5), (1, 3, 0, 2)
    first, second, third = (random(levels, f, seed=k) for k in range(3))
    grid, rows, columns = random(1, height, width, f, seed=3), random(classes, height, 1, f, seed=4), (1, 3)
    places = random(1, 3, 3, f, seed=5)
    count = 2 * 2 * f + columns[1] * f + f
    wanted, start = fields_of_labels(classes, count), (0, 4 * f, 7 * f)
    w, b, fill = random(levels, 9 * f, seed=6), random(levels, seed=7), random(f, seed=8)
    buffers = [
        Buffer(1, width, rows=2, left=1),
        Buffer(9 * f, width, fill=fill.repeat(9).numpy()),
        Buffer(f, 3, stride=2, fill=fill.numpy()),
        Buffer(1, width),
        Buffer(levels, width),
    ]

    def at(place, domain=whole, kind="field", *reads, **rest):
        return elementwise(kind, 1, f, domain, *reads, feature=place * f, **rest)

    other = {"row_modulus": 2, "column_modulus": 2}
    row = [
        at(0, whole, "lookup", Read(0, -1, 0, 0, 1), weight=first.numpy()),
        at(1, table=grid.numpy()),
        at(2, part, table=places.numpy()),
        elementwise("field", 2, f, coarse, offset=start[0], grid=(2, 2), **other),
        at(3, whole, "copy", Read(2, 0, 0, 0, f)),
    ]
    pixel = [
        at(4, whole, "lookup", Read(0, 0, -1, 0, 1), weight=second.numpy()),
        elementwise("affine", 3, 1, whole, Read(0, 0, -1, 0, 1), weight=ones(1, 1, 2.0), bias=ones(1, -3.2)),
        at(5, whole, "lookup", Read(3, 0, 0, 0, 1), weight=third.numpy()),
        at(6, table=rows.numpy()),
        at(7, part, offset=start[1], grid=columns),
        at(8, offset=start[2], grid=(1, 1)),
        linear(4, levels, whole, [Read(1, 0, 0, 0, 9 * f)], w, b),
    ]
    program = Program(
        ImageSpec(1, height, width, levels, classes),
        Categorical(1, levels),
        width,
        1.0,
        0.0,
        0,
        buffers,
        row,
        [pixel, []],
        [Read(4, 0, 0, 0, levels)],
        count,
    )

    def forward(x, labels):
        n = len(x)
        above, left = pad(x[:, 0], (0, 0, 1, 0))[:, :-1], pad(x[:, 0], (1, 0))[..., :-1]
        maps = fill.double().repeat(9).expand(n, height, width, 9 * f).clone().unflatten(3, (9, f))
        given = wanted.double()[labels]
        maps[:, :, :, 0] = first.double()[above.long()]
        maps[:, :, :, 1] = grid.double()
        maps[:, 1:4, 2:5, 2] = places.double()
        fine = given[:, : start[1]].view(n, 2, 2, f).repeat_interleave(2, 1).repeat_interleave(2, 2)
        maps[:, 2:5, :4, 3] = fine[:, :3]
        maps[:, :, :, 4] = second.double()[left.long()]
        maps[:, :, :, 5] = third.double()[(2 * left - 3).clamp(0, levels - 1).long()]
        maps[:, :, :, 6] = rows.double()[labels]
        maps[:, 1:4, 2:5, 7] = given[:, start[1] : start[2]].view(n, 1, 3, f)
        maps[:, :, :, 8] = given[:, start[2] :].view(n, 1, 1, f)
        return (maps.flatten(3) @ w.double().T + b.double()).permute(0, 3, 1, 2)

    return Case("known before", program, forward)


def functions():
    """The elementwise functions, of the left pixel and of the row above; one of each in `row`."""
    height, width, levels, f = 4, 5, 6, 3
    whole = (0, height, 0, width)
    w, b, head_w, head_b = random(2 * f, 1), random(2 * f, seed=1), random(levels, 12 * f, seed=2), random(levels)
    kinds = "exp log1p log sqrt reciprocal abs erf softplus max min greater where".split()
    buffers = [Buffer(1, width, rows=2, left=1), Buffer(2 * f, width), Buffer(12 * f, width), Buffer(2 * f, width)]
    buffers.append(Buffer(levels, width))
    a, other = Read(1, 0, 0, 0, f), Read(1, 0, 0, f, f)
    # The logarithm, the root and the reciprocal are those of exponentials.
    first = {"log1p": Read(2, 0, 0, 0, f), "log": Read(2, 0, 0, 0, f), "sqrt": Read(2, 0, 0, 0, f)}
    first |= {"reciprocal": Read(2, 0, 0, 0, f), "where": Read(2, 0, 0, 10 * f, f)}

    def instruction(k, kind):
        rest = {"max": [other], "min": [other], "greater": [other], "where": [a, other]}.get(kind, [])
        return elementwise(kind, 2, f, whole, first.get(kind, a), *rest, feature=k * f)

    above = [
        linear(3, 2 * f, whole, [Read(0, -1, 0, 0, 1)], w, b),
        elementwise("erf", 3, f, whole, Read(3, 0, 0, 0, f)),
    ]
    pixel = [linear(1, 2 * f, whole, [Read(0, 0, -1, 0, 1)], w, b, adds=[Read(3, 0, 0, 0, 2 * f)])]
    pixel += [instruction(k, kind) for k, kind in enumerate(kinds)]
    pixel.append(linear(4, levels, whole, [Read(2, 0, 0, 0, 12 * f)], head_w, head_b))
    program = Program(
        ImageSpec(1, height, width, levels),
        Categorical(1, levels),
        width,
        0.4,
        -1.0,
        0,
        buffers,
        above,
        [pixel, []],
        [Read(4, 0, 0, 0, levels)],
    )

    def forward(x, labels):
        one, side = (t.double() for t in (w, b))
        up, left = pad(x, (0, 0, 1, 0))[:, 0, :-1, :, None], pad(x, (1, 0))[:, 0, :, :-1, None]
        above = up @ one.T + side
        a, b2 = (left @ one.T + side + torch.cat((above[..., :f].erf(), above[..., f:]), 3)).chunk(2, 3)
        e = a.exp()
        parts = [e, e.log1p(), e.log(), e.sqrt(), 1 / e, a.abs(), a.erf(), (1 + e).log(), a.maximum(b2), a.minimum(b2)]
        parts += [(a > b2).double(), torch.where(a > b2, a, b2)]
        return (torch.cat(parts, 3) @ head_w.double().T + head_b.double()).permute(0, 3, 1, 2)

    return Case("functions", program, forward)


CASES = [masked(), colors(), scans(), strided(), known_before(), functions(), mixed_colors()]


def run(engine, program, n, **settings):
    """What an engine, `eager` or `cpp`, makes of a request of `n` images."""
    fields = fields_of(program, settings.get("labels"))
    return engine.run(program, SampleRequest(n, **({"fields": fields} | settings)))


def fields_of(program, labels):
    """The fields of images of these labels; None for a program that reads none."""
    return fields_of_labels(program.spec.classes, program.fields)[labels] if program.fields else None


def labels_of(program, n):
    return torch.arange(n) % program.spec.classes if program.spec.classes else None


def images_of(program, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(program.spec.levels, (n, *program.spec.shape), generator=generator, dtype=program.spec.dtype)


def known_of(program, n):
    """A random half of the values; where the channels of a pixel are coupled, of the pixels."""
    mask = np.random.default_rng(0).random((n, *program.spec.shape)) < 0.5
    if program.likelihood.couples_channels:
        mask = np.repeat(mask[:, :1], program.spec.channels, 1)
    return torch.from_numpy(mask)
