"""What waits for a client: its order, and its bounds."""

import asyncio

from agent.rpc.outbox import REQUEST_CHARACTERS, Outbox


class Reader:
    """A client that reads as many texts as it is let."""

    def __init__(self):
        self.read = []
        self._may = asyncio.Semaphore(0)

    def let(self, texts):
        for _ in range(texts):
            self._may.release()

    async def __call__(self, text):
        await self._may.acquire()
        self.read.append(text)


async def settled():
    """Until whoever can go on has."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_texts_are_sent_in_order_and_then_it_is_drained(run):
    async def scenario():
        outbox, reader = Outbox(), Reader()
        for text in ("a", "b", "c"):
            outbox.put(text)
        sending = asyncio.create_task(outbox.send_all(reader))
        reader.let(3)
        await outbox.drained()
        assert reader.read == ["a", "b", "c"] and outbox.waiting == 0
        outbox.close()
        await sending

    run(scenario())


def test_there_is_room_again_once_enough_was_read_and_first_come_is_first_served(run):
    async def scenario():
        outbox, reader = Outbox(high_water=10), Reader()
        served = []

        async def request(number):
            await outbox.room(1)
            served.append(number)
            outbox.put("x" * 11)  # too much again

        outbox.put("x" * 11)
        sending = asyncio.create_task(outbox.send_all(reader))
        asking = [asyncio.create_task(request(number)) for number in range(3)]
        await settled()
        assert served == []
        for expected in ([0], [0, 1], [0, 1, 2]):
            reader.let(1)
            await settled()
            assert served == expected
        sending.cancel()
        await asyncio.gather(sending, *asking, return_exceptions=True)

    run(scenario())


def test_one_text_may_be_of_any_length_and_the_next_overflows(run):
    async def scenario():
        outbox = Outbox(high_water=10, most=100)
        outbox.put("x" * 1000)
        assert not outbox.overflowed.is_set()
        outbox.put("x")
        assert outbox.overflowed.is_set() and outbox.waiting == 1000

    run(scenario())


def test_requests_that_wait_count_too(run):
    async def scenario():
        outbox = Outbox(high_water=10, most=3 * REQUEST_CHARACTERS)
        outbox.put("x" * 11)
        waiting = [asyncio.create_task(outbox.room(1)) for _ in range(5)]
        await settled()
        assert outbox.overflowed.is_set()
        outbox.close()
        await asyncio.gather(*waiting)
        assert outbox.waiting == 11

    run(scenario())


def test_closing_lets_everybody_go_on(run):
    async def scenario():
        outbox = Outbox(high_water=10)
        outbox.put("x" * 11)
        waiting = asyncio.create_task(outbox.room(1))
        await settled()
        outbox.close()
        await waiting
        await outbox.drained()
        outbox.put("late")
        reader = Reader()
        await outbox.send_all(reader)
        assert reader.read == [], "nothing is sent to who is gone"

    run(scenario())
