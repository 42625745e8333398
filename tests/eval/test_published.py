import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from eval.published import COLUMNS, FILE, Published, incomparable, published, show, table

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "baselines.yaml"


def value(system, benchmark, metric, zero_shot=True):
    rows = published(benchmark, zero_shot)
    return [row.value for row in rows if (row.system, row.metric) == (system, metric)]


def test_the_numbers_everyone_compares_with():
    assert value("Make-A-Video", "msrvtt", "clipsim") == [0.3049]
    assert value("Make-A-Video", "msrvtt", "fid_unspecified") == [13.17]
    assert value("Make-A-Video", "ucf101", "is") == [33.0] and value("Make-A-Video", "ucf101", "fvd") == [367.23]
    assert value("Make-A-Video", "ucf101", "is", False) == [82.55]
    assert value("CogVideo (English)", "ucf101", "fvd") == [701.59]
    assert value("NUWA", "msrvtt", "clipsim", False) == [0.2439]


def test_vdm_has_no_zero_shot_number():
    for benchmark in COLUMNS:
        assert not [row for row in published(benchmark, zero_shot=True) if row.system == "VDM"]
    empty = next(line for line in table("msrvtt").splitlines() if line.startswith("VDM "))
    assert empty.split()[1:] == ["-"] * len(COLUMNS["msrvtt"])


def test_every_metric_is_explained_and_has_a_column():
    meanings = yaml.safe_load(FILE.read_text())["metrics"]
    for benchmark, columns in COLUMNS.items():
        assert {row.metric for row in published(benchmark)} <= set(columns) <= set(meanings)
        assert all(row.source for row in published(benchmark))


def test_papers_that_disagree_stand_in_one_cell():
    line = next(line for line in table("msrvtt").splitlines() if line.startswith("ModelScopeT2V  "))
    assert "550 / 683 / 868" in line


def test_a_measured_number_stands_beside_a_published_one_only_under_the_same_protocol():
    row = next(r for r in published("ucf101", True) if (r.system, r.metric) == ("Make-A-Video", "fvd"))
    assert incomparable(row, "ucf_mav", 10_000) is None
    assert incomparable(row, "ucf_mav", 64) == "n = 64 against 10,000"
    assert incomparable(row, "ucf_pyoco", 10_000) == "protocol ucf_pyoco against ucf_mav"
    unknown = Published("a", "ucf101", "fvd", 1.0, True, "primary", "b")
    assert incomparable(unknown, "ucf_mav", 64) == "its protocol is not stated"


def test_the_command_answers_without_hydra():
    found = subprocess.run([sys.executable, "-m", "eval", "baselines"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0 and found.stdout.strip() == show()


def test_the_commands_of_eval_start_without_torch():
    code = "import sys, eval.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED}: not there; the facts that these rows were taken from")
def test_no_fact_was_lost_or_changed():
    facts, ours = yaml.safe_load(SHARED.read_text()), yaml.safe_load(FILE.read_text())
    assert [{k: v for k, v in row.items() if k not in ("n", "protocol")} for row in ours["rows"]] == facts["rows"]
    assert all(ours[key] == facts[key] for key in facts if key != "rows")
