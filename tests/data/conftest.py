"""What stands in for processes where a test is not about them."""

import io

import pytest
from PIL import Image

from lightning_mav.errors import DataError


def png(level=0):
    """Return the file of a small gray picture."""
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (level, level, level)).save(file, "PNG")
    return file.getvalue()


class InThisProcess:
    """A crew that is none, for speed; it answers in another order than it is asked."""

    def __init__(self, work, num, deadline):
        self.work = work

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def map(self, tasks):
        for number in reversed(range(len(tasks))):
            try:
                yield number, self.work(tasks[number])
            except DataError as error:
                yield number, error


@pytest.fixture
def crew_in_this_process():
    return InThisProcess
