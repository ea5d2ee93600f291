import json

import pytest

from agent.doctor.findings import Level, Topic, count, has_problem, plain

OK = Topic.ROUTE.ok("a", "b")
WARNING = Topic.TRUST.warning("a", "b", "c")
PROBLEM = Topic.HOME.problem("a", "b", "c")


@pytest.mark.parametrize(
    ("findings", "bad"), [([], False), ([OK, WARNING, Topic.HOME.note("a", "b")], False), ([OK, PROBLEM], True)]
)
def test_only_a_problem_is_a_problem(findings, bad):
    assert has_problem(findings) is bad
    assert plain(findings)["ok"] is not bad


def test_as_plain_data_each_finding_has_all_its_parts():
    data = json.loads(json.dumps(plain([OK, PROBLEM])))
    assert data["findings"][1] == {
        "topic": "home", "level": "problem", "looked_at": "a", "found": "b", "advice": "c",
    }  # fmt: skip
    assert data["counts"] == {"ok": 1, "note": 0, "warning": 0, "problem": 1}


def test_levels_are_counted_also_where_there_is_none_of_them():
    assert count([WARNING, WARNING]) == {str(level): 2 * (level is Level.WARNING) for level in Level}
