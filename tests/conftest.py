"""Fixtures of all tests. Native lanes fail where the native module is missing: nothing here skips them."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _threads():
    """Every test starts with the same threads, whatever the test before it set."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
