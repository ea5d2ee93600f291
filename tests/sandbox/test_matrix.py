"""The recorded cases of the original, replayed by their own runner, as root and as somebody else.

They lie beside the checkout (CI has them). What is theirs is not repeated here; `test_rules` holds the same rules in
our words. Cases marked `detail` are accidents of the original: those in which we differ are listed, with the reason.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import COUNTERSIGN
from tests.sandbox.place import USERS, as_user, with_mounts

SHARED = (Path(__file__).parents[3] / "shared/sandbox").resolve()
RUNNER, MATRIX = SHARED / "run_matrix.py", SHARED / "matrix.json"

pytestmark = pytest.mark.skipif(not MATRIX.is_file(), reason=f"the recorded cases of the original are not at {SHARED}")

WE_DIFFER = {
    "tmp-tmpdir-missing-dir": "a TMPDIR that is not there opens nothing: no reason to refuse",
    "root-extra-file": "a file can be a writable root; the original fails to make directories in it",
    "nest-none-missing": "what is denied and missing cannot be read either; the original puts a readable file there",
    "exec-legacy-landlock-refused": "asked for by name, Landlock holds what a legacy policy can say",
}
AS_ROOT = {"iso-proc-sys-writable": "the kernel's settings stay read-only for root, too"}

# The runner uses fixed places in /tmp and /var/tmp, and looks at what is left there: it gets its own.
OWN = 'mount -t tmpfs -o mode=1777 none /tmp && mount -t tmpfs -o mode=1777 none /var/tmp && cd / && exec "$@"'


@pytest.mark.parametrize("uid", USERS, ids=lambda uid: f"uid-{uid}")
def test_every_recorded_case_that_is_a_rule_gives_the_recorded_result(uid):
    runner = as_user(uid, sys.executable, str(RUNNER), "--like-codex", COUNTERSIGN)
    environ = {name: value for name, value in os.environ.items() if name not in ("TMPDIR", "CODEX_HOME")}
    replayed = subprocess.run(with_mounts(OWN, *runner), capture_output=True, text=True, env=environ, timeout=110)
    failures = dict(line[5:].split(": ", 1) for line in replayed.stdout.splitlines() if line.startswith("FAIL "))

    details = {case["id"] for case in json.loads(MATRIX.read_text())["cases"] if case.get("detail")}
    assert {name: said for name, said in failures.items() if name not in details} == {}, replayed.stdout
    expected = WE_DIFFER.keys() | (AS_ROOT.keys() if uid == 0 else set())
    assert failures.keys() == expected, replayed.stdout
    assert f" {len(failures)} failed" in replayed.stdout.splitlines()[-1], replayed.stdout + replayed.stderr
