"""A whole audit: what it returns, what is planted in it, what is refused, and its report."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from support.browser import browser, check_page
from support.coloured import coloured

from genfast.audit import audit, balance, column, read_column, weights_csv
from genfast.audit.latents import latents_of
from genfast.data import ImageData
from genfast.models import VAE, VQVAE, VAEConfig, VQVAEConfig

SHAPE = {"channels": 3, "height": 8, "width": 8, "levels": 256, "hidden": 8, "layers": 1}


def vae(**options):
    torch.manual_seed(0)
    return VAE(VAEConfig(**SHAPE, latent=4, **options)).eval()


@pytest.fixture(scope="module")
def planted():
    """400 images with a tie of 80 %, two that are one, and another set in which the digit 3 is more frequent."""
    images, y, *_ = coloured(400, 0.8, seed=1)
    images[11] = images[200]
    others, z, *_ = coloured(1400, 0.8, seed=1)
    rest, digits = others[400:800].clone(), z[400:800]
    rest[:80] = rest[(digits == 3).nonzero()[:, 0]].repeat(20, 1, 1, 1)[:80]
    return images, y, rest


@pytest.fixture(scope="module")
def result(planted):
    images, y, rest = planted
    return audit(vae(), images, against=rest, columns=[column("digit", [str(i) for i in y.tolist()])])


def test_what_is_planted_is_found(result):
    kinds = [finding.kind for finding in result.findings]
    assert {*kinds} == {"tie", "duplicates", "shift"}
    tied = [finding.text for finding in result.findings if finding.kind == "tie"]
    assert any("what the images show" in text for text in tied) and any("column digit" in text for text in tied)
    assert [11, 200] in result.copies[0].found.pairs.tolist()
    assert result.shift.test.p <= 0.01 and result.shift.kinds[0].second > result.shift.kinds[0].first
    assert result.strength > 5


def test_what_is_listed(result, planted):
    _, y, _ = planted
    assert [g.count for g in result.groups[0].groups] == torch.bincount(y).tolist()
    assert all(np.isfinite([g.nats, g.error]).all() and g.nats_half > 0 for g in result.groups[0].groups)
    assert sum(region.count for region in result.regions) == 400
    densities = [region.density for region in result.regions]
    assert densities == sorted(densities) and all(0 <= i < 400 for r in result.regions for i in r.nearest)
    assert result.traversals.shape[1:] == (7, 3, 8, 8) and len(result.traversals) == len(result.latents)
    assert len(result.pairs) == len(result.latents) * (len(result.latents) - 1) / 2
    assert result.power.smallest is None or 0.5 < result.power.smallest <= 0.95
    whole = json.loads(json.dumps(result.to_dict()))
    assert len(whole["findings"]) == len(result.findings) and whole["limits"]


def test_a_clean_set_has_no_finding():
    images, y, *_ = coloured(400, None, seed=2)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    found = audit(vae(), images, columns=[column("shuffled", [str(i) for i in y[order].tolist()])])
    assert not found.findings and found.strength < 5
    assert sum(told.q <= 0.05 for told in found.groups[0].told) == 0


@pytest.fixture(scope="module")
def vqvae():
    """Images, and a VQ-VAE whose codebook has moved to their features, and which is not trained otherwise."""
    images, *_ = coloured(200, 0.9, seed=3)
    torch.manual_seed(0)
    model = VQVAE(VQVAEConfig(**SHAPE, codes=8, features=4, codebook_update="ema", decay=0.5)).train()
    for _ in range(20):
        model.loss(images)
    assert len(model.eval().encode(images).unique()) > 2
    return model, images


def test_a_vq_vae(vqvae):
    found = audit(*vqvae)
    assert found.unit == "share" and 0 < sum(row.information for row in found.latents) <= 1
    assert any(finding.kind == "tie" for finding in found.findings)
    assert found.traversals.isfinite().all()


def test_components_of_codes_are_those_of_their_indicators(vqvae):
    model, images = vqvae
    found = latents_of(model, images)
    hot = torch.nn.functional.one_hot(model.encode(images).flatten(1), 8).flatten(1).double()
    variances = torch.linalg.svdvals(hot - hot.mean(0)).square()
    share = (variances / variances.sum())[: len(found.information)]
    torch.testing.assert_close(found.information, share, rtol=0.02, atol=1e-4)
    torch.testing.assert_close(found.encode(images[:9]), found.values[:9], rtol=1e-3, atol=1e-4)


def test_weights_balance(result, planted):
    images, y, _ = planted
    w = result.weights
    assert w.after < 0.02 * w.before and 0 < w.effective <= 400 and float(w.values.mean()) == pytest.approx(1)
    of_group = torch.zeros(10, dtype=torch.float64).index_add_(0, y, w.values)
    torch.testing.assert_close(of_group, torch.full_like(of_group, 40), rtol=0.1, atol=0)
    rows = list(csv.DictReader(weights_csv(w, [f"a,{i}.png" for i in range(400)]).decode().splitlines()))
    assert rows[3]["file"] == "a,3.png" and float(rows[3]["weight"]) == pytest.approx(float(w.values[3]), rel=1e-4)
    equal = balance("equal", torch.tensor([0, 0, 0, 1]), level=True)
    torch.testing.assert_close(equal.values, torch.tensor([2 / 3, 2 / 3, 2 / 3, 2.0], dtype=torch.float64))


@pytest.mark.parametrize(
    "call, error, message",
    (
        (lambda: audit(vae(), torch.zeros(9, 3, 8, 8, dtype=torch.uint8)), ValueError, "at least 100 images; got 9"),
        (lambda: audit(vae(classes=3), torch.zeros(200, 3, 8, 8, dtype=torch.uint8)), ValueError, "unconditional"),
        (
            lambda: audit(torch.nn.Identity(), torch.zeros(200, 3, 8, 8, dtype=torch.uint8)),
            TypeError,
            "latents or codes",
        ),
        (
            lambda: audit(vae(), torch.zeros(200, 3, 8, 8, dtype=torch.uint8), columns=[column("a", ["x", "y"])]),
            ValueError,
            "column a must have a value for each of 200 images; got 2",
        ),
    ),
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_images_that_are_all_alike():
    """No variance anywhere: nothing is a finding but that they are copies."""
    found = audit(vae(), torch.full((120, 3, 8, 8), 7, dtype=torch.uint8))
    assert {finding.kind for finding in found.findings} <= {"duplicates"} and not found.ties


def data(count, files=()):
    return ImageData(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), 2, "set", files=files)


def test_columns(tmp_path):
    path = tmp_path / "about.csv"
    path.write_text('file,site,age\nb/2.png,x,3\nb/1.png,y,4\n"a,1.png",x,5\nother.png,z,6\n')
    found = read_column(path, "site", data(3, ("a,1.png", "b/1.png", "b/2.png")))
    assert found.codes.tolist() == [0, 1, 0] and found.groups == ("x", "y")
    path.write_text("index,site\n1,x\n0,\n")
    assert read_column(path, "site", data(2)).groups == ("(empty)", "x")
    path.write_text("age\n" + "\n".join(str(i) for i in range(20)))
    ages = read_column(path, "age", data(20))
    assert ages.groups[0] == "0 to 3" and torch.bincount(ages.codes).tolist() == [4, 4, 4, 4, 4]


@pytest.mark.parametrize(
    "text, message",
    (
        ("index,site\n0,x\n", "expected a row for each of 2 images; got none for 1, such as 1"),
        ("index,site\n0,x\n0,y\n1,x\n", "expected one row for each image; got 0 again, row 3"),
        ("index,age\n0,x\n1,y\n", "expected a column site; got only index, age"),
        ("index,site\n0,x\n1,y,z\n", "expected 2 cells in row 3; got 3"),
        ("site\nx\n", "expected a column of file names .* or a row for each of 2 images; got 1 rows"),
        ("index,site\n0,x\n1,x\n", "expected 2 to 100 values in column site, or numbers; got 1 values"),
        ("index,site,site\n0,x,y\n1,y,x\n", "expected heads that differ"),
        ("index,site\n", "expected a line of heads and rows; got 1 lines"),
        ('index,site\n"0,x\n', "expected a CSV file in UTF-8"),
    ),
)
def test_columns_that_are_refused(tmp_path, text, message):
    path = tmp_path / "about.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_column(path, "site", data(2))
    path.write_bytes(b"index,site\n0,\xff\n1,x\n")
    with pytest.raises(ValueError, match="expected a CSV file in UTF-8"):
        read_column(path, "site", data(2))


@pytest.fixture(scope="module")
def written(planted, tmp_path_factory):
    """A model, a file of images, and a folder for reports."""
    folder = tmp_path_factory.mktemp("audit")
    vae().save_pretrained(folder / "vae")
    images, y, rest = planted
    for name, part in (("a", images[:150]), ("b", rest[:120])):
        np.savez(folder / f"{name}.npz", images=part.numpy(), labels=y[: len(part)].numpy(), levels=np.int64(256))
    (folder / "about.csv").write_text("index,<b>site\n" + "".join(f"{i},<i>{i % 3}\n" for i in range(150)))
    return folder


def test_the_command(written, genfast):
    out = written / "report"
    words = (
        "--data",
        written / "a.npz",
        "--against",
        written / "b.npz",
        "--column",
        f"{written / 'about.csv'}:<b>site",
    )
    code, said, error = genfast("audit", written / "vae", *words, "--out", out, "--json", written / "a.json")
    assert code == 0, error
    assert "tie: colour goes with what the images show" in said and "report: " in said
    report = json.loads((out / "report.json").read_text())
    numbers = json.loads((written / "a.json").read_text())
    assert {name: report[name] for name in numbers} == numbers and numbers["images"] == 150
    html = (out / "index.html").read_text()
    assert "&lt;b&gt;site" in html and "<b>site" not in html and "<i>0" not in html
    assert all((out / name).is_file() for name in report["files"]) and len(report["files"]) >= 5
    assert len((out / "weights.csv").read_text().splitlines()) == 151
    code, _, error = genfast("audit", written / "vae", *words, "--out", out)
    assert code == 2 and "--overwrite" in error
    browser()
    shutil.rmtree(written / "shots", ignore_errors=True)
    (written / "shots").mkdir()
    check_page(out / "index.html", written / "shots")


def test_a_model_is_trained_on_the_spot(written, genfast):
    out = written / "trained"
    code, said, error = genfast(
        "audit", "--data", written / "a.npz", "--out", out, "--minutes", 0.02, "--column", "label"
    )
    assert code == 0, error
    assert (out / "run" / "model" / "config.json").is_file() and "report: " in said
    assert json.loads((out / "report.json").read_text())["columns"][0]["column"] == "label"


@pytest.mark.parametrize(
    "words, message",
    (
        (("--out", "x"), "audit: expected RUN, --data DATA or both; got neither"),
        (("{vae}", "--data", "{a}", "--column", "site", "--out", "x"), "column: expected FILE.csv:NAME"),
        (("{vae}", "--data", "{a}", "--column", "none.csv:site", "--out", "x"), "column: expected a file none.csv"),
    ),
)
def test_commands_that_are_refused(written, genfast, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"vae": written / "vae", "a": written / "a.npz"}
    code, _, error = genfast("audit", *(word.format(**places) for word in words))
    assert code == 2 and message in error and not (tmp_path / "x").exists()
