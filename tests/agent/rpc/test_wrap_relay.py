"""The relay between two pairs of pipes, with nobody but the test at the other ends.

Longer than most modules: the ends and what is held in the pipes between them are the same for all.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import select
import threading

import pytest

from agent.rpc.jsonrpc import RequestFailed
from agent.rpc.server import ClientGone
from agent.rpc.wrap_relay import MOST_FOR_CHILD_BYTES, READ_BYTES, Relay
from tests.loops import DEADLINE_S, on_each_loop

INITIALIZE = (
    b'{"id":1,"method":"initialize","params":{"clientInfo":{"name":"d","version":"1"},'
    b'"capabilities":{"requestAttestation":true}}}\n'
)
ACCEPTED = b'{"id":1,"result":{}}\n'
# More than all that a relay and two pipes hold.
TOO_MUCH = 16 * 1024 * 1024
# Who has taken nothing for so long reads nothing.
STUCK_MS = 200


class Ends:
    """The desktop's and the child's ends of the pipes; `desktop_*` are named as the desktop sees them."""

    def __init__(self):
        self.relay_in, self.desktop_out = os.pipe()
        self.desktop_in, self.relay_out = os.pipe()
        self.child_in, self.to_child = os.pipe()
        self.from_child, self.child_out = os.pipe()
        self.relay = Relay(self.relay_in, self.relay_out)

    def close(self, *names):
        for name in names:
            descriptor = getattr(self, name)
            setattr(self, name, -1)
            if descriptor >= 0:
                os.close(descriptor)

    async def read(self, name, count):
        """Exactly so many bytes, or those up to the end of file; off the loop."""
        return await asyncio.to_thread(read_exactly, getattr(self, name), count)

    async def write(self, name, content):
        """All of it; off the loop."""
        await asyncio.to_thread(write_all, getattr(self, name), content)

    async def write_until_stuck(self, name):
        """As many bytes as are taken while nobody reads at the other end."""
        descriptor, written, room = getattr(self, name), 0, select.poll()
        room.register(descriptor, select.POLLOUT)
        os.set_blocking(descriptor, False)
        while written < TOO_MUCH and await asyncio.to_thread(room.poll, STUCK_MS):
            with contextlib.suppress(BlockingIOError):
                written += os.write(descriptor, b"x" * READ_BYTES)
        os.set_blocking(descriptor, True)
        return written

    async def introduce(self):
        """The handshake, as both ends see it."""
        await self.write("desktop_out", INITIALIZE)
        assert await self.read("child_in", len(INITIALIZE)) == INITIALIZE
        await self.write("child_out", ACCEPTED)
        assert await self.read("desktop_in", len(ACCEPTED)) == ACCEPTED
        assert self.relay.attests

    def ask(self):
        """A question that is on its way."""
        return asyncio.create_task(self.relay.request("attestation/generate", {}))

    async def next_question(self):
        """The id of the question that the desktop reads next."""
        content = b""
        while not content.endswith(b"\n"):
            content += await self.read("desktop_in", 1)
        asked = json.loads(content)
        assert asked == {"method": "attestation/generate", "id": asked["id"], "params": {}}
        return asked["id"]


def read_exactly(descriptor, count):
    content = b""
    while len(content) < count:
        piece = os.read(descriptor, count - len(content))
        if not piece:
            break
        content += piece
    return content


def write_all(descriptor, content):
    while content:
        content = content[os.write(descriptor, content) :]


def answer(request_id, token="t"):
    return json.dumps({"id": request_id, "result": {"token": token}}).encode() + b"\n"


@contextlib.asynccontextmanager
async def ends(*, started=True):
    """A relay at work; whatever the test leaves open is closed, and the relay is over."""
    here = Ends()
    try:
        if started:
            here.relay.start(here.to_child, here.from_child)
        yield here
    finally:
        here.relay.give_up()
        if started:
            async with asyncio.timeout(DEADLINE_S):
                await here.relay.over()
        here.relay.close()
        here.close("desktop_in", "desktop_out", "child_in", "child_out", "relay_in", "relay_out")
        for thread in threading.enumerate():
            if thread.name == "relay":
                thread.join(DEADLINE_S)


@on_each_loop
@pytest.mark.parametrize("source, sink", [("desktop_out", "child_in"), ("child_out", "desktop_in")])
def test_bytes_arrive_as_they_were_written(run, source, sink):
    content = os.urandom(300_000) + b"\n" + os.urandom(3000) + b"\r\n\n\n" + b"z" * 3_000_000 + b"\nlast"

    async def scenario():
        async with ends() as here:
            writing = asyncio.create_task(here.write(source, content))
            if source == "desktop_out":
                writing.add_done_callback(lambda _: here.close(source))
            arrived = await here.read(sink, len(content))
            await writing
            assert arrived == content

    run(scenario())


@on_each_loop
def test_a_question_is_put_and_its_answer_does_not_reach_the_child(run):
    async def scenario():
        async with ends() as here:
            await here.introduce()
            asked = here.ask()
            request_id = await here.next_question()
            assert isinstance(request_id, str) and request_id.startswith(here.relay.questions.prefix)
            await here.write("desktop_out", b"before\n" + answer(request_id) + b"after\n")
            assert await asked == {"token": "t"}
            assert await here.read("child_in", len(b"before\nafter\n")) == b"before\nafter\n"

    run(scenario())


def test_an_error_is_told_as_one(run):
    async def scenario():
        async with ends() as here:
            await here.introduce()
            asked = here.ask()
            error = {"id": await here.next_question(), "error": {"code": -32001, "message": "overloaded"}}
            await here.write("desktop_out", json.dumps(error).encode() + b"\n")
            with pytest.raises(RequestFailed) as failed:
                await asked
            assert (failed.value.code, failed.value.message) == (-32001, "overloaded")

    run(scenario())


def test_no_two_questions_and_no_two_runs_have_an_id_in_common(run):
    async def scenario():
        ids = set()
        for _ in range(3):
            async with ends() as here:
                await here.introduce()
                for _ in range(3):
                    asked = here.ask()
                    ids.add(await here.next_question())
                    asked.cancel()
                    await asyncio.wait((asked,))
        assert len(ids) == 9

    run(scenario())


def test_late_double_and_unasked_answers_reach_nobody(run):
    async def scenario():
        async with ends() as here:
            await here.introduce()
            asked = here.ask()
            request_id = await here.next_question()
            asked.cancel()
            await asyncio.wait((asked,))
            unasked = here.relay.questions.prefix + "999"
            await here.write("desktop_out", answer(request_id) + answer(request_id) + answer(unasked) + b"next\n")
            assert await here.read("child_in", len(b"next\n")) == b"next\n"
            again = here.ask()
            await here.write("desktop_out", answer(await here.next_question(), "second"))
            assert await again == {"token": "second"}
            assert here.relay.questions.late == 3

    run(scenario())


@on_each_loop
def test_a_question_waits_for_the_end_of_the_childs_line(run):
    async def scenario():
        async with ends() as here:
            await here.introduce()
            await here.write("child_out", b'{"half":')
            assert await here.read("desktop_in", 8) == b'{"half":'
            asked = here.ask()
            await asyncio.wait((asked,), timeout=0.1)
            await here.write("child_out", b"1}\nwhole\n")
            assert await here.read("desktop_in", 3) == b"1}\n"
            request_id = await here.next_question()
            assert await here.read("desktop_in", 6) == b"whole\n"
            await here.write("desktop_out", answer(request_id))
            assert await asked == {"token": "t"}

    run(scenario())


def test_a_question_that_was_given_up_before_it_could_be_put_is_not_put(run):
    async def scenario():
        async with ends() as here:
            await here.introduce()
            await here.write("child_out", b"half")
            assert await here.read("desktop_in", 4) == b"half"
            for _ in range(10):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await here.relay.request("attestation/generate", {})
            await here.write("child_out", b"\nnext\n")
            assert await here.read("desktop_in", 6) == b"\nnext\n"

    run(scenario())


@on_each_loop
def test_a_desktop_that_does_not_read_holds_the_child_up_and_is_still_heard(run):
    async def scenario():
        async with ends() as here:
            await here.introduce()
            taken = await here.write_until_stuck("child_out")
            # Two pipes of 64 KiB, what was read, and a piece under way.
            assert taken <= 2 * 64 * 1024 + 2 * READ_BYTES
            await here.write("desktop_out", b"heard\n")
            assert await here.read("child_in", 6) == b"heard\n"
            # Nothing of what cannot be put is kept: neither of ours.
            for _ in range(300):
                asked = here.ask()
                await asyncio.sleep(0)
                asked.cancel()
                await asyncio.wait((asked,))
            writing = asyncio.create_task(here.write("child_out", b"\n"))
            assert await here.read("desktop_in", taken + 1) == b"x" * taken + b"\n"
            await writing
            asked = here.ask()
            await here.write("desktop_out", answer(await here.next_question()))
            assert await asked == {"token": "t"}

    run(scenario())


@on_each_loop
def test_a_child_that_does_not_read_holds_the_desktop_up_and_the_answer_behind_is_heard(run):
    async def scenario():
        async with ends() as here:
            await here.introduce()
            backlog = b'{"method":"note"}\n' * 100_000  # more than the child's pipe, less than what is kept
            await here.write("desktop_out", backlog)
            asked = here.ask()
            await here.write("desktop_out", answer(await here.next_question()))
            assert await asked == {"token": "t"}
            taken = await here.write_until_stuck("desktop_out")
            assert len(backlog) + taken <= MOST_FOR_CHILD_BYTES + 2 * 64 * 1024 + 20 * READ_BYTES
            await here.write("child_out", b"still there\n")
            assert await here.read("desktop_in", 12) == b"still there\n"
            writing = asyncio.create_task(here.write("desktop_out", b"\n"))
            expected = backlog + b"x" * taken + b"\n"
            assert await here.read("child_in", len(expected)) == expected
            await writing

    run(scenario())


def test_the_desktops_end_of_file_is_the_childs(run):
    async def scenario():
        async with ends() as here:
            await here.introduce()
            asked = here.ask()
            await here.next_question()
            await here.write("desktop_out", b"last words without an end")
            here.close("desktop_out")
            assert await here.read("child_in", 1000) == b"last words without an end"
            with pytest.raises(ClientGone):
                await asked
            assert not here.relay.attests
            with pytest.raises(ClientGone):
                await here.relay.request("attestation/generate", {})
            # The other direction goes on.
            await here.write("child_out", b"answer\n")
            assert await here.read("desktop_in", 7) == b"answer\n"

    run(scenario())


def test_a_desktop_that_closed_its_reading_end_breaks_the_childs_pipe_as_without_us(run):
    async def scenario():
        async with ends() as here:
            await here.introduce()
            asked = here.ask()
            await here.next_question()
            here.close("desktop_in")
            with pytest.raises(BrokenPipeError):
                while True:
                    await here.write("child_out", b"x" * 1000)
            with pytest.raises(ClientGone):
                await asked
            assert not here.relay.attests
            await here.write("desktop_out", b"heard\n")
            assert await here.read("child_in", 6) == b"heard\n"

    run(scenario())


def test_a_child_that_closed_its_reading_end_loses_what_comes_and_tokens_are_still_made(run):
    async def scenario():
        async with ends() as here:
            await here.introduce()
            here.close("child_in")
            await here.write("desktop_out", b"lost\n" * 100_000)
            asked = here.ask()
            await here.write("desktop_out", answer(await here.next_question()))
            assert await asked == {"token": "t"}

    run(scenario())


@on_each_loop
def test_all_that_the_child_left_reaches_a_slow_desktop_before_it_is_over(run):
    async def scenario():
        async with ends() as here:
            left = b"x" * (64 * 1024) + b"the end"
            await here.write("child_out", left)
            here.close("child_out")
            finishing = asyncio.create_task(here.relay.finish())
            await asyncio.wait((finishing,), timeout=0.05)
            assert await here.read("desktop_in", len(left)) == left
            await finishing

    run(scenario())


@pytest.mark.parametrize("count", [0, 50_000])
def test_a_process_that_the_child_left_behind_does_not_hold_the_end_up(run, count):
    async def scenario():
        async with ends(started=False) as here:
            await here.write("child_out", b"x" * count)
            finishing = asyncio.create_task(here.relay.finish())  # and child_out stays open
            await asyncio.sleep(0)
            here.relay.start(here.to_child, here.from_child)  # so that it finds all of it, and the end
            assert await here.read("desktop_in", count) == b"x" * count
            await finishing

    run(scenario())


def test_a_desktop_that_reads_nothing_of_what_the_child_left_can_be_given_up(run):
    async def scenario():
        async with ends() as here:
            await here.write("child_out", b"x" * 100_000)
            here.close("child_out")
            finishing = asyncio.create_task(here.relay.finish())
            done, _ = await asyncio.wait((finishing,), timeout=0.1)
            assert not done
            here.relay.give_up()
            await finishing

    run(scenario())


def test_our_own_descriptors_keep_their_flags_and_stay_open(run):
    """They are shared with the parent's terminal, which must not find itself non-blocking afterwards."""

    async def scenario():
        async with ends() as here:
            descriptors = (here.relay_in, here.relay_out)
            before = [fcntl.fcntl(descriptor, fcntl.F_GETFL) for descriptor in descriptors]
            await here.introduce()
            assert [fcntl.fcntl(descriptor, fcntl.F_GETFL) for descriptor in descriptors] == before
            here.relay.give_up()
            await here.relay.over()
            assert [fcntl.fcntl(descriptor, fcntl.F_GETFL) for descriptor in descriptors] == before

    run(scenario())


def test_the_desktop_may_be_files(run, tmp_path):
    """`countersign wrap -- CMD < requests.jsonl > answers.jsonl`."""

    async def scenario():
        (tmp_path / "requests").write_bytes(INITIALIZE + b"x" * 200_000)
        with open(tmp_path / "requests", "rb") as source, open(tmp_path / "answers", "wb") as sink:
            child_in, to_child = os.pipe()
            from_child, child_out = os.pipe()
            relay = Relay(source.fileno(), sink.fileno())
            relay.start(to_child, from_child)
            expected = INITIALIZE + b"x" * 200_000
            assert await asyncio.to_thread(read_exactly, child_in, 1_000_000) == expected
            await asyncio.to_thread(write_all, child_out, b"y" * 200_000)
            os.close(child_out)
            await relay.finish()
            relay.close()
            os.close(child_in)
        assert (tmp_path / "answers").read_bytes() == b"y" * 200_000

    run(scenario())


def test_before_there_is_a_child_nobody_is_asked(run):
    async def scenario():
        async with ends(started=False) as here:
            assert not here.relay.attests

    run(scenario())


def test_a_disk_that_is_full_ends_what_the_child_can_write_and_nothing_else(run):
    async def scenario():
        child_in, to_child = os.pipe()
        from_child, child_out = os.pipe()
        relay_in, desktop_out = os.pipe()
        with open("/dev/full", "wb", buffering=0) as full:
            relay = Relay(relay_in, full.fileno())
            relay.start(to_child, from_child)
            with pytest.raises(BrokenPipeError):
                while True:
                    await asyncio.to_thread(write_all, child_out, b"x" * 1000)
            await asyncio.to_thread(write_all, desktop_out, b"heard\n")
            assert await asyncio.to_thread(read_exactly, child_in, 6) == b"heard\n"
            await relay.finish()
            relay.close()
        for descriptor in (child_in, child_out, relay_in, desktop_out):
            os.close(descriptor)

    run(scenario())
