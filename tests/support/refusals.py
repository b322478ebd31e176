"""Files that must be refused, for the tests of all that reads some."""

import pytest
from support import fuzz_files
from support.file_readers import RunFiles


def refused(call, *fragments, kinds=(ValueError, OSError, TypeError)):
    """Calls it; returns the message of its error, which is one line of the usual form with these fragments."""
    with pytest.raises(kinds) as caught:
        call()
    text = str(caught.value)
    assert fuzz_files.FORM.fullmatch(text) and text.isprintable(), text
    assert all(fragment in text for fragment in fragments), text
    return text


class Runs(RunFiles):
    """Two finished runs."""

    name = "runs"

    def is_seed(self, name):
        return True
