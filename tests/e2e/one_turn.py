"""What the tests of the app-server share."""

from agent.standins.desktop import Desktop, Manner, Script

OK = '{"v":1,"s":0,"t":"%s"}'


async def one_turn(desktop: Desktop, text: str = "hello") -> dict:
    """Handshake, thread and one turn; the completed turn."""
    await desktop.initialize()
    started = await desktop.request("thread/start", {"cwd": "/"})
    return await desktop.turn(started["thread"]["id"], text)


def thread_of(desktop: Desktop) -> str:
    return next(said["params"]["thread"]["id"] for said in desktop.notifications if said["method"] == "thread/started")


def numbered(manner: Manner = Manner.TOKEN, **more: object) -> Script:
    return Script(manner=manner, token=lambda number: f"token-{number}", **more)
