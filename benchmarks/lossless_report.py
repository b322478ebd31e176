"""The results of lossless.py as a page of the results folder."""

from __future__ import annotations

NOTES = (
    "Bits a dimension of the whole file, headers included, in blocks of 256 images, of a VAE of 4096. The negative "
    "log-likelihood is the model's own, of the same images, that of a VAE its bound; what the streams have above it, "
    "and the whole file, is told in bits a block. Other codecs get the same images, as a file each and all as one: a "
    "mosaic for those of pictures. Then the file with the weights in it, and from how many such images on it is "
    "smaller than the best of the others."
)


def markdown(result: dict) -> str:
    """The whole of a result as a page."""
    m = result["machine"]
    lines = [f"# Lossless compression, {m['cpu']}", ""]
    lines += [
        f"{m['threads']} threads on {m['cores']} cores, instruction set {m['isa']}; genfast {m['genfast']}, torch "
        f"{m['torch']}, Python {m['python']}; {m['date']}; load before the run {m['load_before']}.",
        "",
        NOTES,
        "",
    ]
    header = [
        "images",
        "model",
        "number",
        "bits/dim",
        "its NLL",
        "above it, a block",
        "best other",
        "all as one",
        "a file each",
    ]
    header += ["with the model", "pays from", "measured"]
    lines += [_line(*header), "|---" * len(header) + "|"]
    lines += [_line(*_cells(row)) for row in result["files"]]
    header = ["images/s", "encoding", "decoding", "sampling", "share of sampling", "share of the coder"]
    lines += ["", "## Speed, binary images of 28x28", "", _line(*header), "|---" * len(header) + "|"]
    for row in result["rates"]:
        rates = row["images_per_s"]
        shares = [f"{rates['decode'] / rates['sampling']:.0%}", f"{row['coder_share']:.0%}"]
        lines.append(_line(row["name"], *(f"{rates[key]:.0f}" for key in ("encode", "decode", "sampling")), *shares))
    lines += ["", *(f"{row['name']}: {row['ms']:.1f} ms." for row in result["alone"])]
    return "\n".join([*lines, ""])


def printed(row: dict) -> str:
    """A row for the terminal."""
    speed = f"{row['encode_per_s']:.0f} images/s to the file, {row['decode_per_s']:.0f} back"
    return "  ".join([*map(str, _cells(row)), speed])


def _cells(row):
    values = row["images"] * row["shape"][0] * row["shape"][1] * row["shape"][2]
    bits = {key: 8 * size["size"] / values for key, size in row["others"].items() if size["size"]}
    one = {key: value for key, value in bits.items() if key.endswith(" one")}
    each = {key: value for key, value in bits.items() if key.endswith(" each")}
    best = min(bits, key=bits.get)
    nll = ["", ""]
    if row["nll_bits_per_dim"] is not None:
        whole = (8 * row["bytes"] - row["nll_bits_per_dim"] * values) / row["blocks"]
        nll = [f"{row['nll_bits_per_dim']:.4f}", f"{row['stream_bits_above_nll']:.0f} bits, {whole:.0f} in all"]
    return [
        row["name"],
        row["model"],
        f"{row['images']:,}",
        f"{row['bits_per_dim']:.4f}",
        *nll,
        f"{bits[best]:.4f} ({best})",
        _listed(one),
        _listed(each),
        f"{8 * row['with_model_bytes'] / values:.4f}" if row["with_model_bytes"] else "",
        f"{row['model_pays_from']:,} images" if row["model_pays_from"] else "",
        row["date"][:10],
    ]


def _listed(bits):
    return ", ".join(f"{key.rpartition(' ')[0]} {value:.3f}" for key, value in bits.items())


def _line(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
