"""What this process says of the machine it runs on."""

import os

from agent.rpc.handshake import Identity, describe_system, describe_terminal


def identity_of_this_machine(originator: str) -> Identity:
    """The identity of this process, once its first client has named it."""
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            release = file.read()
    except OSError:
        release = ""
    return Identity(originator, describe_system(release, os.uname().machine), describe_terminal(os.environ))
