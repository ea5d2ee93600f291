"""The scripted model must notice what a test forgot."""

import pytest

from agent.model.wire import Created
from tests.agent.core import model_says
from tests.agent.core.scripted_model import ScriptedModel


def test_steps_that_nobody_asked_for_fail_the_test():
    with pytest.raises(AssertionError, match="never asked for its last 1 steps"), ScriptedModel([Created("r")]):
        pass


def test_one_question_too_many_fails_the_test_even_if_the_caller_swallows_it(run):
    async def ask(model):
        with pytest.raises(AssertionError, match="more often"):
            async for _ in model.stream(None):
                pass

    with pytest.raises(AssertionError, match="1 times more"), ScriptedModel() as model:
        run(ask(model))


def test_a_stream_that_was_left_open_fails_the_test(run):
    async def ask(model):
        stream = model.stream(None)
        await anext(stream)
        with pytest.raises(AssertionError, match="never closed"):
            model.__exit__(None, None, None)
        await stream.aclose()

    with ScriptedModel(model_says.answer("x")) as model:
        run(ask(model))
