"""The keys of model providers belong to the agent: no command sees them."""

import pytest

from agent.model.provider import OPENAI, Provider
from tests.agent.tools.workbench import Workbench

MINE = Provider(id="mine", name="Mine", env_key="MINE_KEY", env_http_headers={"X-Org": "MINE_ORG"})


@pytest.mark.parametrize(("provider", "seen"), [(MINE, "-- --"), (OPENAI, "-k- -o-")])
def test_a_command_of_the_model_does_not_see_the_keys_of_its_threads_provider(provider, seen, run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path, environ={"MINE_KEY": "k", "MINE_ORG": "o"}) as bench:
            bench.thread.provider = provider
            assert f"said: {seen}" in await bench.command('echo "said: -$MINE_KEY- -$MINE_ORG-"')

    run(scenario())
