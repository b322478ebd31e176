"""Fixtures of all tests. Native tests fail where the native module is missing: nothing here skips them."""

import os
import signal

import pytest
import torch

from genfast import cli

if os.environ.get("TRITON_INTERPRET"):
    from support.interpreter import guards  # noqa: F401


# A shell starts what it runs in the background with these ignored, and the processes of the tests would inherit that.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items):
    """The slowest first: of several processes none is left with them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True, scope="session")
def _away_from_the_checkout(tmp_path_factory):
    """Processes that the tests start import what is installed; in the checkout they would find genfast without _C."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("empty"))
    yield
    os.chdir(before)


@pytest.fixture(autouse=True)
def _threads_and_seed():
    """Every test starts with the same threads and seed, whatever the test before it did."""
    before = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def genfast(capsys):
    """Run a command in this process; returns (exit code, stdout, stderr)."""

    def run(*argv):
        try:
            code = cli.main([str(word) for word in argv])
        except SystemExit as exit:
            code = exit.code or 0
        return code, *capsys.readouterr()

    return run
