"""What the commands share that take a model and held-out images and write a file."""

from genfast.cli.options import DATA_OPTIONS, add_data, add_device, add_split, add_target
from genfast.train.inputs import inputs
from genfast.train.run_folder import open_model
from genfast.train.session import data_of, held_out_data
from genfast.train.trainer import pick_device


def held_out_options(parser, metavar, text):
    add_target(parser)
    add_data(parser)
    add_split(parser)
    parser.add_argument("--out", required=True, metavar=metavar, help=text)
    add_device(parser)


def data_options(args):
    return {name: getattr(args, name) for name in DATA_OPTIONS}


def held_out(args, check=None):
    """The model on its device, the held-out data, and their labels for a conditional model.

    `check(model)` refuses a model before its data are read.
    """
    model = open_model(args.target).to(pick_device(args.device))
    if check is not None:
        check(model)
    data = held_out_data(data_of(args.target, data_options(args)), args.split)
    return model, data, labels_for(model, data)


def labels_for(model, data):
    """The labels that a conditional model takes, else None; data that are not the model's are refused."""
    found = inputs(model, data)
    return found[1] if len(found) > 1 else None
