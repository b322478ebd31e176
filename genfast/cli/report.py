"""The pictures and the page of the demo, and the plot of an adversarial training."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

from torch import Tensor

from genfast.data.grid import grid

INK, ACCENT, MUTED = "#1d2733", "#d9582b", "#8a94a0"


def beside(real: Tensor, drawn: Tensor, levels: int) -> bytes:
    """A PNG: held-out images on the left, the model's samples on the right."""
    figure, axes = _figure(9, 4.9, columns=2)
    for axis, images, title in zip(
        axes, (real, drawn), ("real digits (held out)", "samples of the model"), strict=True
    ):
        picture = grid(images, levels)
        axis.imshow(picture[..., 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=255)
        axis.set_title(title, color=INK)
        axis.axis("off")
    return _png(figure)


def curves(records: list[dict[str, Any]], lines: dict[str, float]) -> bytes:
    """A PNG: training and validation NLL over the steps, and baselines as `lines`, {label: nats}."""
    figure, (axis,) = _figure(9, 3.6)
    valid = [r for r in records if "valid_nats" in r]
    axis.plot([r["step"] for r in records], [r["train_nats"] for r in records], color=MUTED, lw=1, label="training")
    axis.plot([r["step"] for r in valid], [r["valid_nats"] for r in valid], color=ACCENT, lw=2, label="validation")
    for label, nats in lines.items():
        axis.axhline(nats, color=INK, lw=1, ls="--", label=label)
    best = min(valid, key=lambda r: r["valid_nats"])
    axis.plot(best["step"], best["valid_nats"], "o", color=ACCENT, label="kept weights")
    shown = [best["valid_nats"], valid[0]["valid_nats"], *lines.values()]
    axis.set_ylim(0.97 * min(shown), 1.03 * max(shown))
    axis.set(xlabel="step", ylabel="nats per image")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return _png(figure)


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


def page(facts: dict[str, Any], pictures: dict[str, bytes]) -> str:
    """The report as one self-contained HTML page."""
    scan = facts["scan"]
    rows = "".join(
        f"<tr><td>{'PixelRNN' if name == 'model' else html.escape(name)}</td><td>{nats:.2f}</td>"
        f"<td>{facts['test_bits_per_dim'][name]:.3f}</td></tr>"
        for name, nats in facts["test_nats_per_image"].items()
    )
    tiles = "".join(
        f"<div><b>{value}</b><span>{html.escape(text)}</span></div>"
        for value, text in (
            (f"{facts['test_bits_per_dim']['model']:.3f}", "bits per dimension on the test set"),
            (f"{facts['training_seconds']:.0f} s", f"of training, {facts['steps']} steps"),
            (f"{facts['samples_per_second']:.0f}", "samples per second"),
            (
                f"{scan['pure_pytorch_ms'] / scan['native_ms']:.1f}x",
                f"{scan['backend']} scan against pure PyTorch",
            ),
        )
    )
    captions = {
        "samples.png": "Every pixel of the samples was drawn from the model, one after the other.",
        "filled.png": "Held-out digits, their upper halves, and six lower halves that the model drew to each.",
        "loss.png": "Averaged weights are judged on the validation images; the best are kept.",
        "mnist.png": "The PixelRNN that comes with the package, trained on binary MNIST: genfast sample mnist",
    }
    figures = "".join(
        f'<figure><img alt="{name}" src="{_inline(data)}">'
        f"<figcaption>{html.escape(captions[name])}</figcaption></figure>"
        for name, data in pictures.items()
    )
    machine = facts["machine"]
    small = (
        f"{scan['case']}: {scan['native_ms']:.2f} ms by {scan['backend']}, "
        f"{scan['pure_pytorch_ms']:.1f} ms by pure PyTorch, {machine['threads']} threads. "
        f"genfast {machine['genfast']}, torch {machine['torch']}. "
        f"gzip and PNG are the sizes of the whole test set, compressed."
    )
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    return template.format(
        tiles=tiles,
        rows=rows,
        figures=figures,
        data=html.escape(facts["data"]),
        small=html.escape(small),
        parameters=f"{facts['parameters']:,}",
    )


def _inline(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


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
