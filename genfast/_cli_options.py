"""Options that several commands of the command line share, and the kinds of their values."""

import argparse

DATA_OPTIONS = ("data", "data_root", "size", "levels", "strict")


def count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1; got {text}")
    return value


def counted(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0; got {text}")
    return value


def positive(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0; got {text}")
    return value


def labels(text):
    return [int(part) for part in text.split(",")]


def add_target(parser):
    parser.add_argument("target", metavar="RUN", help="run folder, model folder, or mnist")


def add_data(parser):
    parser.add_argument("--data", metavar="DATA", help="digits, photos, mnist-binary, a folder, or an .npz file")
    parser.add_argument("--data-root", metavar="PATH", help="where mnist-binary is: file, folder or dataset name")
    parser.add_argument("--size", type=count, help="N x N pixels: patches of photos, a folder's images", metavar="N")
    parser.add_argument("--levels", type=count, help="levels to keep of photos, folder or .npz", metavar="L")
    parser.add_argument("--strict", action="store_true", help="refuse a folder with a broken image")


def add_split(parser):
    parser.add_argument("--split", choices=("train", "valid", "test"), help="default: test, or valid if there is none")


def add_device(parser):
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu or cuda (auto)")
