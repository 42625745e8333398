"""``pytest --table=FILE``: the fault matrix as a page, each row with its tests and their result.

The run fails if a row has no test that passes.
"""

from collections import Counter, defaultdict

import pytest

from tests.faults.matrix import FAULTS, ROWS

HEAD = """\
# What can go wrong, and what comes of it

Written by `make faults`, which runs every test below. A fault is real: a process is killed, a disk is full, a file is
broken. What is wanted is the same everywhere: the right exit code (2 configuration, 3 data, 4 checkpoint, 5 machine,
6 numbers, 130 and 143 signals), one line that names the file or key and what to do, and nothing lost that was good.
`--debug` shows the traceback.

*Result* counts the cases of all tests of a row. A skipped case needs something that this machine lacks; its test says
what.
"""


class Table:
    """Collects which tests cover which rows, and how they end."""

    def __init__(self, path):
        self.path = path
        self.rows_of = {}
        self.outcome_of = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        for item in items:
            rows = [str(number) for mark in item.iter_markers("row") for number in mark.args]
            if unknown := set(rows) - FAULTS.keys():
                raise pytest.UsageError(f"{item.nodeid}: no row {', '.join(unknown)} in tests/faults/matrix.py")
            if rows:
                self.rows_of[item.nodeid] = rows

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            worse = self.outcome_of.get(report.nodeid) == "failed"
            self.outcome_of[report.nodeid] = "failed" if worse else report.outcome

    def pytest_sessionfinish(self, session):
        self.path.write_text(self.page(), encoding="utf-8")
        if self.open_rows():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        rows = self.open_rows()
        terminalreporter.write_line(
            f"fault matrix: {len(FAULTS) - len(rows)} of {len(FAULTS)} rows passed; {self.path}"
            + (f"; not {', '.join(rows)}" if rows else "")
        )

    def cases(self):
        """Return row -> name of its test -> how often it ended in which way."""
        found = defaultdict(lambda: defaultdict(Counter))
        for nodeid, rows in self.rows_of.items():
            for row in rows:
                found[row][nodeid.partition("[")[0]][self.outcome_of.get(nodeid, "not run")] += 1
        return found

    def open_rows(self):
        """Return the rows of which no test passed, or one failed."""
        totals = {row: sum(tests.values(), Counter()) for row, tests in self.cases().items()}
        return [row for row in FAULTS if not totals.get(row, {}).get("passed") or totals[row]["failed"]]

    def page(self):
        """Return the matrix in Markdown."""
        cases, lines = self.cases(), [HEAD]
        for title, rows in ROWS.items():
            lines += [f"## {title}", "", "| row | fault | result | tests |", "|---|---|---|---|"]
            for row, fault in rows.items():
                tests = cases.get(row, {})
                total = sum(tests.values(), Counter())
                result = ", ".join(f"{num} {outcome}" for outcome, num in sorted(total.items())) or "not run"
                names = "<br>".join(f"`{name.removeprefix('tests/')}`" for name in tests)
                lines.append(f"| {row} | {fault} | {result} | {names} |")
            lines.append("")
        return "\n".join(lines)
