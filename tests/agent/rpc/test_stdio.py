import asyncio
import contextlib
import fcntl
import json
import os
import threading

import pytest

from agent.rpc.greeting import Greeting, greet
from agent.rpc.handshake import Identity, initialize_result
from agent.rpc.lines import Lines
from agent.rpc.stdio import HIGH_WATER_BYTES, MOST_LINES, StdioStream
from tests.agent.rpc.memory import IDENTITY_SYSTEM, IDENTITY_TERMINAL, served
from tests.loops import DEADLINE_S, on_each_loop


class Pipes:
    """The client's ends of a server's stdin and stdout, and the server's."""

    def __init__(self):
        self.stdin, self.to_server = os.pipe()
        self.from_server, self.stdout = os.pipe()

    def close(self, *names):
        for name in names or ("stdin", "to_server", "from_server", "stdout"):
            descriptor = getattr(self, name)
            setattr(self, name, -1)
            if descriptor >= 0:
                os.close(descriptor)

    def write(self, content):
        os.write(self.to_server, content)

    def write_all(self, text):
        content = text.encode()
        while content:
            content = content[os.write(self.to_server, content) :]

    async def read(self, count):
        """Exactly so many bytes, off the loop."""
        content = b""
        while len(content) < count:
            content += await asyncio.to_thread(os.read, self.from_server, count - len(content))
        return content


@pytest.fixture
def pipes():
    """The client leaves first and the stream's threads end; then nobody uses the server's ends, whose numbers go on."""
    pipes = Pipes()
    yield pipes
    pipes.close("to_server", "from_server")
    for thread in threading.enumerate():
        if thread.name in ("stdin", "stdout"):
            thread.join(DEADLINE_S)
    pipes.close()


@contextlib.asynccontextmanager
async def stream_of(pipes, greeting=None):
    stream = StdioStream(pipes.stdin, pipes.stdout, greeting)
    try:
        yield stream
    finally:
        await stream.aclose()


async def next_text(texts):
    return await anext(texts)


@on_each_loop
def test_lines_come_in_and_go_out(run, pipes):
    async def scenario():
        async with stream_of(pipes) as stream:
            texts = aiter(stream)
            pipes.write(b'{"id":1}\n{"id"')
            assert await next_text(texts) == '{"id":1}'
            pipes.write(b":2}\r\n")
            assert await next_text(texts) == '{"id":2}\r'
            await stream.send('{"é":"😀"}')
            expected = '{"é":"😀"}\n'.encode()
            assert await pipes.read(len(expected)) == expected

    run(scenario())


@on_each_loop
def test_the_end_of_stdin_ends_the_texts_and_an_unfinished_line_is_none(run, pipes):
    async def scenario():
        async with stream_of(pipes) as stream:
            pipes.write(b"a\nb\nunfinished")
            pipes.close("to_server")
            assert [text async for text in stream] == ["a", "b"]

    run(scenario())


@on_each_loop
def test_a_client_that_does_not_read_holds_the_sender_up_and_nothing_is_lost(run, pipes):
    async def scenario():
        async with stream_of(pipes) as stream:
            lines = [str(number) * 50_000 for number in range(10) for _ in range(10)]

            sent = []

            async def send_all():
                for line in lines:
                    await stream.send(line)
                    sent.append(line)

            sender = asyncio.create_task(send_all())
            expected = "".join(line + "\n" for line in lines).encode()
            for _ in range(50):  # it goes as far as it can without the reader
                await asyncio.sleep(0)
            assert HIGH_WATER_BYTES // 2 < sum(map(len, sent)) < 2 * HIGH_WATER_BYTES < len(expected)
            assert await pipes.read(len(expected)) == expected
            await sender

    run(scenario())


@on_each_loop
def test_a_client_that_writes_faster_than_it_is_served_loses_nothing(run, pipes):
    async def scenario():
        lines = [f"line {number}" for number in range(3 * MOST_LINES)]
        async with stream_of(pipes) as stream:
            writing = asyncio.create_task(asyncio.to_thread(pipes.write_all, "".join(f"{line}\n" for line in lines)))
            texts = aiter(stream)
            assert [await next_text(texts) for _ in lines] == lines
            await writing

    run(scenario())


@on_each_loop
def test_while_the_client_does_not_read_it_can_still_be_heard(run, pipes):
    async def scenario():
        async with stream_of(pipes) as stream:
            await stream.send("x" * 200_000)  # more than a pipe holds
            pipes.write(b"heard\n")
            assert await next_text(aiter(stream)) == "heard"

    run(scenario())


@on_each_loop
def test_a_client_that_closed_its_end_is_a_connection_error(run, pipes):
    async def scenario():
        async with stream_of(pipes) as stream:
            pipes.close("from_server")
            await stream.send("first")
            with pytest.raises(ConnectionError, match="stdout is closed"):
                await stream.send("second")

    run(scenario())


@on_each_loop
def test_a_sender_that_was_held_up_is_freed_when_the_client_closes_its_end(run, pipes):
    async def scenario():
        async with stream_of(pipes) as stream:
            sender = asyncio.create_task(stream.send("x" * 3_000_000))
            await asyncio.sleep(0)
            assert not sender.done()
            pipes.close("from_server")
            await sender
            with pytest.raises(ConnectionError):
                await stream.send("more")

    run(scenario())


@on_each_loop
def test_the_descriptors_keep_their_flags(run, pipes):
    """They are shared with the parent's terminal, which must not find itself non-blocking afterwards."""

    async def scenario():
        before = [fcntl.fcntl(descriptor, fcntl.F_GETFL) for descriptor in (pipes.stdin, pipes.stdout)]
        async with stream_of(pipes) as stream:
            pipes.write(b"a\n")
            assert await next_text(aiter(stream)) == "a"
            await stream.send("b")
            during = [fcntl.fcntl(descriptor, fcntl.F_GETFL) for descriptor in (pipes.stdin, pipes.stdout)]
        assert before == during
        assert os.fstat(pipes.stdin) and os.fstat(pipes.stdout)  # and closing the stream does not close them

    run(scenario())


@on_each_loop
@pytest.mark.parametrize("content", [b'{"id":1}\n{"id":2}\n', b"", b"unfinished", b"x" * 600_000 + b"\nlast\n"])
def test_stdin_may_be_a_regular_file(run, tmp_path, content):
    """`countersign app-server < requests.jsonl`: a file cannot be polled."""

    async def scenario():
        (tmp_path / "requests.jsonl").write_bytes(content)
        with open(tmp_path / "requests.jsonl", "rb") as stdin, open(tmp_path / "answers.jsonl", "wb") as stdout:
            stream = StdioStream(stdin.fileno(), stdout.fileno())
            texts = [text async for text in stream]
            await stream.send("answer")
            await stream.aclose()
        assert texts == content.decode().split("\n")[:-1]
        assert (tmp_path / "answers.jsonl").read_text() == "answer\n"

    run(scenario())


@on_each_loop
def test_stdin_may_be_dev_null(run):
    async def scenario():
        with open(os.devnull, "r+b", buffering=0) as nothing:
            stream = StdioStream(nothing.fileno(), nothing.fileno())
            assert [text async for text in stream] == []
            await stream.aclose()

    run(scenario())


@on_each_loop
def test_closing_ends_the_texts_while_they_are_awaited(run, pipes):
    async def scenario():
        stream = StdioStream(pipes.stdin, pipes.stdout)

        async def read_all():
            return [text async for text in stream]

        reader = asyncio.create_task(read_all())
        await asyncio.sleep(0)
        await stream.aclose()
        await stream.aclose()
        assert await reader == []

    run(scenario())


# With the server behind it


@on_each_loop
def test_a_line_that_is_not_utf8_leaves_the_next_request_answered(run, pipes):
    """The original's reader fails and the process exits."""

    async def scenario():
        async with served() as it:
            serving = asyncio.create_task(it.server.serve(StdioStream(pipes.stdin, pipes.stdout)))
            pipes.write(b'{"id":1,"method":"\xff"}\n{"id":2,"method":"model/list","params":{}}\n')
            answer = await pipes.read(len(b'{"error":{"code":-32600,"message":"Not initialized"},"id":2}\n'))
            assert json.loads(answer)["id"] == 2
            pipes.close("to_server")
            await serving

    run(scenario())


# The greeting before there is a loop


INITIALIZE = b'{"id":"i","method":"initialize","params":{"clientInfo":{"name":"n","version":"1"}}}\n'


def describe(wanted):
    return initialize_result(
        Identity(wanted.client.name, IDENTITY_SYSTEM, IDENTITY_TERMINAL), wanted.client, "/home/of/codex", "linux"
    )


def greeted(pipes):
    return greet(describe, pipes.stdin, pipes.stdout)


def test_where_nothing_waits_there_is_no_greeting(pipes):
    assert greeted(pipes) is None


def test_an_initialize_that_waits_is_answered_as_the_server_would(run, pipes):
    pipes.write(INITIALIZE)
    assert greeted(pipes).answered
    at_once = os.read(pipes.from_server, 65536)

    async def scenario():
        async with served() as it:
            client = await it.connect()
            await client.write(INITIALIZE.decode())
            assert (await client.receive_text() + "\n").encode() == at_once

    run(scenario())


@pytest.mark.parametrize(
    "waiting",
    [
        b"",
        b"\n",
        b'{"id":"i","method":"initi',
        b"{not json}\n" + INITIALIZE,
        b"\xff\n",
        b'{"id":1,"method":"model/list","params":{}}\n' + INITIALIZE,
        b'{"method":"initialize","params":{"clientInfo":{"name":"n","version":"1"}}}\n',
        b'{"id":"i","method":"initialize","params":{}}\n',
        b'{"id":"i","method":"initialize","params":{"clientInfo":{"name":"n\\n","version":"1"}}}\n',
    ],
)
def test_everything_else_is_left_to_the_server_whole(pipes, waiting):
    pipes.write(waiting)
    if not waiting:
        pipes.close("to_server")
    greeting = greeted(pipes)
    assert greeting is None or not greeting.answered
    if greeting is not None:
        left = [*greeting.texts, *greeting.lines.receive(b"\n")]
        assert "\n".join(left).encode() == waiting.replace(b"\xff\n", b"")


@on_each_loop
def test_what_was_read_for_the_greeting_is_served_and_the_rest_of_a_line_joins_it(run, pipes):
    pipes.write(INITIALIZE + b'{"id":2,"method":"no/such","params":{}}\n{"id":3,"meth')
    greeting = greeted(pipes)
    assert greeting.answered and os.read(pipes.from_server, 65536).startswith(b'{"id":"i","result"')

    async def scenario():
        async with served() as it:
            stream = StdioStream(pipes.stdin, pipes.stdout, greeting)
            serving = asyncio.create_task(it.server.serve(stream, greeted=greeting.answered))
            pipes.write(b'od":"model/list","params":{}}\n')
            text = b""
            while text.count(b"\n") < 2:
                text += await asyncio.to_thread(os.read, pipes.from_server, 65536)
            pipes.close("to_server")
            await serving
        answers = [json.loads(line) for line in text.splitlines()]
        assert [answer["id"] for answer in answers] == [2, 3]
        assert "not supported" in answers[1]["error"]["message"]  # so it counts as initialised

    run(scenario())


def test_a_stream_without_a_greeting_starts_empty(run, pipes):
    async def scenario():
        async with stream_of(pipes, Greeting(Lines(), [], False)) as stream:
            pipes.write(b"a\n")
            assert await next_text(aiter(stream)) == "a"

    run(scenario())


def test_an_answer_that_cannot_be_written_at_once_is_left_to_the_server(pipes):
    """A traceback of the process, where stdout was full or closed."""
    pipes.write(INITIALIZE)
    os.set_blocking(pipes.stdout, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipes.stdout, b"x" * 4096)
    os.set_blocking(pipes.stdout, True)
    greeting = greeted(pipes)
    assert not greeting.answered and greeting.texts == [INITIALIZE.decode().strip()]


@pytest.mark.parametrize("target", ["closed", "/dev/full"])
def test_an_answer_that_nobody_can_get_is_no_error_of_the_greeting(pipes, target):
    pipes.write(INITIALIZE)
    if target == "closed":
        pipes.close("from_server")
        assert not greeted(pipes).answered
    else:
        with open(target, "wb", buffering=0) as full:
            assert not greet(describe, pipes.stdin, full.fileno()).answered
