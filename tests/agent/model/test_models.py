"""Which models are offered: the service's list once it was told."""

import asyncio
import json

from agent.model.models import Models
from tests.agent.model.chatgpt_behind_proxy import IDENTITY, ORIGIN, world, write_auth
from tests.proxy.origin import Origin, answering

LISTED = {"models": [{"slug": "gpt-7", "visibility": "list"}]}


def origin(*answers):
    bodies = [json.dumps(answer).encode() for answer in answers]
    return Origin(answering(*(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(b), b) for b in bodies)))


def models(here):
    return Models(ORIGIN, here.client.auth, here.client.http, lambda: IDENTITY, here.client.environ)


def test_the_service_is_asked_once_for_its_list(run, tmp_path):
    async def scenario():
        async with world(tmp_path, service=origin(LISTED)) as here:
            offered = models(here)
            assert offered.known.default == "gpt-6.1-sol"
            assert (await offered.ask()).default == "gpt-7"
            assert (await offered.ask()).default == offered.known.default == "gpt-7"

            request = here.service.only_request
            assert request.head.startswith(b"GET /backend-api/codex/models?client_version=0.169.0 ")
            assert request.values("chatgpt-account-id") == ["acc-1"]
            assert request.values("version") == ["0.169.0"]
            assert request.attestation == [] and here.tokens.asked == 0

    run(scenario())


def test_the_request_names_the_organization_and_the_project_of_the_environment(run, tmp_path):
    async def scenario():
        paid_by = {"OPENAI_ORGANIZATION": "org-a", "OPENAI_PROJECT": "proj-b"}
        async with world(tmp_path, service=origin(LISTED), environ=paid_by) as here:
            await models(here).ask()
            request = here.service.only_request
            assert (request.values("openai-organization"), request.values("openai-project")) == (["org-a"], ["proj-b"])

    run(scenario())


def test_a_service_without_a_list_is_asked_again_the_next_time(run, tmp_path):
    async def scenario():
        async with world(tmp_path, service=origin({"models": []}, LISTED)) as here:
            offered = models(here)
            assert (await offered.ask()).default == "gpt-6.1-sol"
            assert (await offered.ask()).default == "gpt-7"

    run(scenario())


def test_a_service_that_cannot_be_asked_leaves_the_built_in_models(run, tmp_path):
    async def scenario():
        async with world(tmp_path) as here:
            write_auth(here.home, "{not json")
            assert (await models(here).ask()).default == "gpt-6.1-sol"
            (here.home / "auth.json").unlink()
            assert (await models(here).ask()).default == "gpt-6.1-sol"
            write_auth(here.home, {"OPENAI_API_KEY": "sk-x"})
            assert (await models(here).ask()).default == "gpt-6.1-sol"
            assert not here.service.received

    run(scenario())


def test_an_unreachable_service_leaves_the_built_in_models(run, tmp_path):
    async def scenario():
        async with world(tmp_path) as here, asyncio.timeout(10):
            await here.service.__aexit__(None, None, None)
            assert (await models(here).ask()).default == "gpt-6.1-sol"

    run(scenario())
