"""Modules that are imported beside the loop."""

import asyncio
import sys
import threading

import pytest

from agent.loading import imported

SLOW = """
import threading
STARTED, GO_ON = threading.Event(), threading.Event()
"""


def modules(tmp_path, monkeypatch, **texts):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_modules_are_there_once_they_were_waited_for(run, tmp_path, monkeypatch):
    modules(tmp_path, monkeypatch, loaded_one="", loaded_two="import loaded_one")

    async def scenario():
        await imported(asyncio.get_running_loop(), ["loaded_two"])
        assert {"loaded_one", "loaded_two"} <= sys.modules.keys()
        with pytest.raises(ModuleNotFoundError, match="loaded_three"):
            await imported(asyncio.get_running_loop(), ["loaded_three"])

    run(scenario())


def test_the_process_waits_for_the_module_that_is_being_loaded_and_for_no_other(run, tmp_path, monkeypatch):
    """`countersign exec` that failed at once ended with SIGABRT or SIGSEGV now and then: its importer was a daemon."""
    waiting = "import loaded_gates\nloaded_gates.STARTED.set()\nassert loaded_gates.GO_ON.wait(10)\n"
    modules(tmp_path, monkeypatch, loaded_gates=SLOW, loaded_slow=waiting, loaded_later="")

    async def scenario():
        import loaded_gates  # type: ignore[import-not-found]

        loading = asyncio.create_task(imported(asyncio.get_running_loop(), ["loaded_slow", "loaded_later"]))
        await asyncio.to_thread(loaded_gates.STARTED.wait, 10)
        (thread,) = [one for one in threading.enumerate() if one.name == "import"]
        assert not thread.daemon
        loading.cancel()
        await asyncio.wait((loading,))
        loaded_gates.GO_ON.set()
        await asyncio.to_thread(thread.join, 10)
        assert "loaded_slow" in sys.modules and "loaded_later" not in sys.modules

    run(scenario())
