"""The one reader of files of other programs."""

import os

import pytest

from copilot_balancer.cli.clients.files import read
from copilot_balancer.errors import InvalidInput


def test_what_cannot_be_read(tmp_path):
    """A folder, a pipe, and a file in the place of a folder are errors, and nobody waits for a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InvalidInput, match="not a regular file"):
        read(pipe)
    with pytest.raises(InvalidInput, match=r"Is a directory|not a regular file"):
        read(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInput, match="cannot be read: Not a directory"):
        read(tmp_path / "file" / "auth.json")
