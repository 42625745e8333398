import pytest

from lightning_mav.data.resuming import claim, read_claim
from lightning_mav.errors import DataError


def test_a_folder_goes_on_with_the_same_and_refuses_anything_else(tmp_path):
    file = tmp_path / "new" / "record.json"
    claim(file, {"source": 3}, "shards of another source")
    claim(file, {"source": 3}, "shards of another source")
    assert read_claim(file) == {"source": 3}
    with pytest.raises(DataError, match="new: holds shards of another source; choose an empty folder"):
        claim(file, {"source": 4}, "shards of another source")
    assert read_claim(file) == {"source": 3}


def test_a_damaged_record_is_named(tmp_path):
    file = tmp_path / "record.json"
    file.write_text('{"source": ')
    with pytest.raises(DataError, match=r"record\.json: damaged"):
        claim(file, {"source": 3}, "shards of another source")
