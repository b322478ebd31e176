"""Damage to the content of files: of any bytes, of JSON, of safetensors, of NumPy's and of other containers."""

import copy
import gzip
import io
import json
import random
import struct
import zipfile
import zlib

NUMBERS = (
    0,
    1,
    -1,
    2,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    10**9,
    10**30,
    -(10**9),
)
VALUES = (
    *NUMBERS,
    *(0.5, -0.0, 1e308, -1e308, 1e-320, float("nan"), float("inf"), True, False, None, "", "1", "auto", "a\nb\x1b[31m"),
    *("\u202egnp", "../../etc", "/dev/zero", "x" * 5000, [], {}, [[]], [1, 2], {"model": "pixelcnn"}, "\ud800"),
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Any bytes with some of them changed, lost, repeated, swapped, or an integer among them replaced."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place, size = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8, 64, 1024))
        match rng.randrange(8):
            case 0 | 1 if data:
                data[place % len(data)] ^= 1 << rng.randrange(8)
            case 2 if data:
                data[place % len(data)] = rng.choice((0, 1, 127, 128, 255))
            case 3:
                del data[place:]
            case 4:
                del data[place : place + size]
            case 5:
                data[place:place] = data[: rng.randrange(len(data) + 1)][-size:]
            case 6:
                other = rng.randrange(len(data) + 1)
                data[place : place + size] = data[other : other + size]
            case 7:
                kind = rng.choice("<>") + rng.choice("HIQ")
                width = struct.calcsize(kind)
                data[place : place + width] = struct.pack(kind, rng.choice(NUMBERS) % 256**width)
    return bytes(data)


def places(value, path=()):
    """The paths of all parts of a JSON value."""
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


def changed(value, rng: random.Random):
    """A JSON value with a part replaced, removed, renamed or added."""
    value = copy.deepcopy(value)
    path = rng.choice(list(places(value))[1:] or [()])
    if not path:
        return rng.choice(VALUES)
    part = value
    for key in path[:-1]:
        part = part[key]
    match rng.randrange(6):
        case 0:
            del part[path[-1]]
        case 1 if isinstance(part, dict):
            part[rng.choice(("unknown", "", "a\nb", *part))] = part.pop(path[-1])
        case 2 if isinstance(part, dict):
            part[rng.choice(("unknown", "__class__", "x" * 200))] = rng.choice(VALUES)
        case 3 if isinstance(part[path[-1]], (int, float)):
            part[path[-1]] += rng.choice((-1, 1, 0.5, 1e9))
        case _:
            part[path[-1]] = rng.choice(VALUES)
    return value


def json_text(value, rng: random.Random) -> bytes:
    """A JSON value as text, sometimes with what JSON has not, names that occur twice, or far too deep."""
    text = json.dumps(value)
    match rng.randrange(12):
        case 0 if text.startswith("{"):
            text = text[:-1] + (", " if len(text) > 2 else "") + text[1:]
        case 1:
            text = "[" * (depth := rng.choice((40, 1000, 100_000))) + text + "]" * depth
        case 2:
            text = text.replace(": ", ': {"a":' * 50, 1)
        case 3:
            text = text.replace("1", "9" * rng.choice((30, 5000)), 1)
    return damaged(text.encode(), rng) if rng.random() < 0.1 else text.encode("utf-8", "surrogatepass")


def mutated_json(data: bytes, rng: random.Random) -> bytes:
    """The content of a JSON file."""
    value = json.loads(data)
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        value = changed(value, rng)
    return json_text(value, rng)


def mutated_lines(data: bytes, rng: random.Random) -> bytes:
    """The content of a file with a JSON value on each line."""
    lines = data.splitlines()
    for place in rng.sample(range(len(lines)), min(len(lines), rng.choice((1, 2)))):
        lines[place] = mutated_json(lines[place], rng)
    return b"\n".join(lines) + rng.choice((b"\n", b""))


def mutated_tensors(data: bytes, rng: random.Random, sign=None) -> bytes:
    """The content of a safetensors file; `sign` makes the metadata fit changed tensors."""
    import torch
    from safetensors.torch import load, save

    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    metadata = header.get("__metadata__", {})
    if rng.random() < 0.5:
        header = changed(header, rng)
        text = json_text(header, rng)
        return struct.pack("<Q", len(text)) + text + data[8 + size :]
    tensors = load(data)
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    match rng.randrange(8):
        case 0:
            del tensors[name]
        case 1:
            tensors[rng.choice((f"{name}.x", "a\nb", name.replace("0", "999")))] = tensors.pop(name)
        case 2:
            tensors[name] = tensor.to(rng.choice((torch.float64, torch.float16, torch.int64, torch.bool, torch.uint8)))
        case 3:
            tensors[name] = torch.zeros(
                rng.choice(((0,), (1,), (3, 1), (70_000,), (*tensor.shape, 2))), dtype=tensor.dtype
            )
        case 4 if tensor.numel():
            tensor.view(-1)[rng.randrange(tensor.numel())] = rng.choice((0, 1, 100))
        case 5 if tensor.numel() and tensor.is_floating_point():
            number = rng.choice((float("nan"), float("inf"), -1.0, 1e30, -1e30, 1e9, 0.5))
            tensor.view(-1)[rng.randrange(tensor.numel())] = number
        case 6 if "state" in metadata:
            metadata["state"] = mutated_json(metadata["state"].encode(), rng).decode(errors="replace")
        case _:
            other = rng.choice(sorted(tensors))
            tensors[name], tensors[other] = tensors[other], tensor
    if sign is not None and rng.random() < 0.8:
        metadata = sign(tensors, metadata)
    return save({name: tensor.clone() for name, tensor in tensors.items()}, metadata=metadata or None)


def mutated_npz(data: bytes, rng: random.Random) -> bytes:
    """The content of an .npz file."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = rng.choice(sorted(members))
    array = members.pop(name)
    match rng.randrange(6):
        case 0:
            array = damaged(array, rng)
        case 1:
            start = len(array) if rng.random() < 0.1 else 128
            array = damaged(array[:start], rng) + array[start:]
        case 2:
            number = str(rng.choice(NUMBERS)).encode()
            array = array.replace(b"(", b"(" + number + b", ", 1)
        case 3:
            kinds = (
                b"'|O'",
                b"'<f8'",
                b"'<f2'",
                b"'<c16'",
                b"'>i8'",
                b"'<U5'",
                b"'|V9'",
                b"'M8[s]'",
                b"[('a', '<f4')]",
            )
            array = array.replace(b"'|u1'", rng.choice(kinds), 1)
        case 4:
            name = rng.choice(("../a.npy", "labels.npy", "levels.npy", "test.npy", "a\nb.npy", "x", "images.npy", ""))
        case 5:
            shape = rng.choice(
                ("(70000, 64, 64)", "(2147483647, 1, 1)", "(0, 8, 8)", "()", "(-1, 8)", "(" * 300, "(8,)" * 3)
            )
            header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
            array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(rng.choice((0, 64, 10**6)))
    members[name] = array
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))) as file:
        for member, content in members.items():
            file.writestr(member or " ", content)
    return damaged(buffer.getvalue(), rng) if rng.random() < 0.2 else buffer.getvalue()


def mutated_idx(data: bytes, rng: random.Random) -> bytes:
    """The content of an IDX file, gzipped or not."""
    array = bytearray(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    match rng.randrange(4):
        case 0:
            array[2:4] = bytes((rng.choice((8, 9, 13, 14, 0)), rng.choice((0, 1, 3, 4, 64, 255))))
        case 1:
            place = 4 + 4 * rng.randrange(3)
            array[place : place + 4] = struct.pack(">I", rng.choice(NUMBERS) % 2**32)
        case 2:
            array = array[:16] + bytes(rng.choice((0, 10**6, 10**7)))
        case 3:
            array = bytearray(damaged(bytes(array), rng))
    if rng.random() < 0.5:
        array = gzip.compress(bytes(array), 1)
        array = array if rng.random() < 0.7 else damaged(array, rng)
    return bytes(array)


def signed(data: bytes) -> bytes:
    """The same bytes with the CRC-32 of all but the last four at the end."""
    return data[:-4] + struct.pack(">I", zlib.crc32(data[:-4]))
