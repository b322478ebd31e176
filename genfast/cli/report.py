"""The page of the demo, and the plot of an adversarial training."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor

from genfast import reports
from genfast.engine.protocols import ImageSpec

INK, ACCENT, MUTED = "#1d2733", "#d9582b", "#8a94a0"
FILLED = 6  # lower halves drawn to each upper half
NAMES = {"model": "PixelRNN", "independent pixels": "each pixel by itself", "gzip": "gzip", "PNG": "PNG"}


def demo_page(
    facts: dict[str, Any],
    records: list[dict[str, Any]],
    spec: ImageSpec,
    real: Tensor,
    drawn: Tensor,
    filled: Tensor,
    mnist: Tensor | None,
    commands: list[tuple[str, str]],
) -> reports.Page:
    """The report of the demo.

    `real`, `drawn`: held-out and drawn images [n, C, H, W]; `filled`: rows of a held-out image, what was given of it,
    and `FILLED` draws, [n * (2 + FILLED), C, H, W]; `mnist`: samples of the shipped model.
    """
    scan = facts["scan"]
    faster = scan["pure_pytorch_ms"] / scan["native_ms"]
    table = reports.Table(
        ("code", "nats per image", "bits per pixel"),
        [(NAMES[name], nats, facts["test_bits_per_dim"][name]) for name, nats in facts["test_nats_per_image"].items()],
        "The 300 test images, which the model never saw: fewer bits are better. gzip and PNG are the sizes of the "
        "whole test set, compressed.",
    )
    options: Any = {"levels": spec.levels, "columns": 8}
    samples = [
        reports.sheet("real.png", real, alt="64 digits of the test set", caption="Real digits, held out.", **options),
        reports.sheet(
            "samples.png",
            drawn,
            alt="64 digits that the PixelRNN drew",
            caption="Digits that the PixelRNN drew, pixel by pixel.",
            **options,
        ),
        reports.sheet(
            "filled.png",
            filled,
            alt="Rows of a held-out digit, its upper half, and six digits completed from that half",
            caption="The model is given the upper half of a digit that it never saw, and draws the lower half.",
            heads=(("digit", 1), ("given", 1), (f"{FILLED} completions", FILLED)),
            **options,
        ),
    ]
    speed = (
        f"The recurrent layer of the model reads an image along its diagonals. Forward, for {scan['shape']}, it takes "
        f"{reports.number(scan['native_ms'], 3)} ms by genfast ({scan['backend']}) and "
        f"{reports.number(scan['pure_pytorch_ms'], 3)} ms in pure PyTorch."
    )
    sections = [
        reports.Section("How well it codes digits", [table, _curves(records, facts)]),
        reports.Section("What it draws", samples),
        reports.Section("How fast it is", [speed]),
    ]
    if mnist is not None:
        alt = "Handwritten digits that the shipped PixelRNN drew"
        caption = "Samples of the PixelRNN that comes with the package, trained on binary MNIST."
        picture = reports.sheet("mnist.png", mnist, 2, alt=alt, caption=caption, columns=5)
        sections.append(reports.Section("The model that comes with genfast", [picture]))
    tiles = (
        (facts["test_bits_per_dim"]["model"], "bits per pixel on the test set"),
        (f"{facts['training_seconds']:.0f} s", f"of training, {facts['steps']:,} steps"),
        (round(facts["samples_per_second"]), "images drawn per second"),
        (f"{faster:.1f} x", "as fast as pure PyTorch in its recurrent layer"),
    )
    lead = f"{facts['data']}. A model of {facts['parameters']:,} parameters."
    return reports.Page("PixelRNN on digits", lead, sections, tiles, commands, facts["machine"])


def _curves(records: list[dict[str, Any]], facts: dict[str, Any]) -> reports.Figure:
    """Training and validation NLL over the steps."""
    valid = [r for r in records if "valid_nats" in r]
    best = min(valid, key=lambda r: r["valid_nats"])
    curves = [
        reports.Line("training", [r["step"] for r in records], [r["train_nats"] for r in records], tone="muted"),
        reports.Line("validation", [r["step"] for r in valid], [r["valid_nats"] for r in valid]),
    ]
    alone = facts["test_nats_per_image"]["independent pixels"]
    return reports.lines(
        "loss.svg",
        curves,
        levels={"each pixel by itself": alone},
        x="step",
        y="nats per image",
        log_y=True,
        alt=f"Training and validation loss over {facts['steps']:,} steps: validation falls to "
        f"{best['valid_nats']:.1f} nats per image at step {best['step']:,}",
        caption=f"Averaged weights are judged on the validation images; those of step {best['step']:,} are kept.",
    )


def completions(images: Tensor, known: Tensor, drawn: Tensor) -> Tensor:
    """Rows of an image, what was given of it (the rest 0), and its draws [n * times, ...], as one set."""
    given = torch.where(known, images, torch.zeros_like(images))
    return torch.cat((images[:, None], given[:, None], drawn.unflatten(0, (len(images), -1))), 1).flatten(0, 1)


def standing(records: list[dict[str, Any]]) -> bytes:
    """A PNG of the state of an adversarial game over the steps: `records` of an `EquilibriumMonitor`, with `step`."""
    covered = [r for r in records if "classes_hit" in r]
    figure, axes = _figure(9, 6.6 if covered else 4.6, columns=1, rows=3 if covered else 2)
    steps = [r["step"] for r in records]
    axes[0].fill_between(
        steps,
        [r["accuracy_low"] for r in records],
        [r["accuracy_high"] for r in records],
        color=ACCENT,
        alpha=0.3,
        lw=0,
    )
    axes[0].plot(steps, [r["accuracy"] for r in records], color=ACCENT, lw=2, label="both, 95 % interval")
    for name, style in (("real", "-"), ("fake", ":")):
        label = {"real": "real", "fake": "generated"}[name]
        axes[0].plot(steps, [r[f"accuracy_{name}"] for r in records], color=MUTED, lw=1, ls=style, label=label)
        axes[1].plot(steps, [r[f"d_{name}"] for r in records], color=ACCENT, lw=2, ls=style, label=label)
    for axis, text in zip(axes, ("discriminator right", "calibrated D"), strict=False):
        axis.axhline(0.5, color=INK, lw=1, ls="--", label="equilibrium")
        axis.set(ylabel=text, ylim=(-0.03, 1.03))
    if covered:
        shares = [r["classes_hit"] / r["classes"] for r in covered]
        axes[2].plot([r["step"] for r in covered], shares, color=ACCENT, lw=2, label="share of the classes generated")
        known = [r for r in covered if "class_kl" in r]
        kl = [r["class_kl"] for r in known]
        axes[2].plot([r["step"] for r in known], kl, color=MUTED, lw=1, label="KL of their histogram, nats")
        axes[2].set(ylabel="modes", ylim=(-0.03, None), xlim=axes[0].get_xlim())
    axes[-1].set(xlabel="step")
    for axis in axes:
        axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        axis.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plot: expected the package matplotlib; pip install matplotlib") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).reshape(-1)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
