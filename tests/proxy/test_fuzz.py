"""R12 end to end: good requests with a few bytes changed; whatever arrives stamped reads as a scoped request."""

import asyncio
import contextlib
import random
import re

import pytest

from proxy.scope import Target
from tests.proxy.heads import may_carry_a_stamp
from tests.proxy.origin import Origin, echoing
from tests.proxy.wire import ConnectionEnded, post, tunnel, upgrade

FORGED = b"x-oai-attestation: forged"
NASTY = [
    b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"#", b"?", b"/", b"\\", b"%2e", b"%2f", b"\x0b",
    b"\xff", b"\r\n ", b"\r\n\r\n", FORGED + b"\r\n", b"Host: evil.example\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 0\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n", b" HTTP/1.1", b"POST ",
]  # fmt: skip
EXAMPLES, AT_ONCE = 160, 20

# A body that a changed length makes too short keeps the connection waiting; nothing more comes of it then.
PATIENCE_S = 1.0


def variation(chance):
    """A POST or a handshake with one to three changes, many of them inside its head's lines."""
    text = chance.choice([post(headers=[FORGED.decode()]), upgrade(headers=[FORGED.decode()]), post(), upgrade()])
    for _ in range(chance.randint(0, 3)):
        lines = text.split(b"\r\n")
        position = chance.randrange(len(text))
        match chance.randrange(6):
            case 0:
                text = text[:position] + chance.choice(NASTY) + text[position:]
            case 1:
                text = text[:position] + text[position + chance.randint(1, 4) :]
            case 2:
                text = text[:position] + bytes([chance.randrange(256)]) + text[position + 1 :]
            case 3:  # at the start of a line, where it can become one
                before = next((i for i, line in enumerate(lines) if line == FORGED), chance.randrange(1, len(lines)))
                ending = chance.choice(
                    [b"\r\n", b"\r", b"\n", b"\0", b"\r\n ", b"\r\n\t", b"\r\n" + chance.choice(NASTY)]
                )
                text = b"\r\n".join(lines[:before]) + ending + b"\r\n".join(lines[before:])
            case 4:
                doubled = chance.randrange(len(lines))
                text = b"\r\n".join([*lines[: doubled + 1], *lines[doubled:]])
            case 5:
                chance.shuffle(lines)
                text = b"\r\n".join(lines)
    return text


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_arrives_stamped_reads_as_a_scoped_request_and_nothing_forged_arrives(run, stage, seed):
    async def scenario():
        chance = random.Random(seed)
        async with stage(Origin(echoing)) as it:
            turns = asyncio.Semaphore(AT_ONCE)

            async def attempt(text):
                async with turns, tunnel(it.proxy) as wire:
                    with contextlib.suppress(ConnectionEnded, TimeoutError, ValueError, IndexError):
                        async with asyncio.timeout(PATIENCE_S):
                            await wire.send(text)
                            await wire.answer()

            await asyncio.gather(*(attempt(variation(chance)) for _ in range(EXAMPLES)))
        stamped = 0
        for request in it.origin.requests:
            # However an upstream ends its lines: the only one that could be taken for the header is the stamp.
            lines = [line.strip().lower() for line in re.split(rb"[\r\n\0]", request.head)]
            headers = [line for line in lines if re.match(rb"x-oai-attestation[^!#-'*+.^_`|~0-9a-z-]", line)]
            assert [b'"t":"token-' in line for line in headers] == [True] * len(request.attestation)
            if request.attestation:
                stamped += 1
                line = b"x-oai-attestation: " + request.attestation[0].encode() + b"\r\n"
                assert may_carry_a_stamp(request.head.replace(line, b""), Target("chatgpt.com", 443), "chatgpt.com")
        assert stamped >= EXAMPLES // 6  # else it would show little
        assert stamped <= it.tokens.asked

    run(scenario())
