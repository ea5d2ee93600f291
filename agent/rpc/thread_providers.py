"""Which model provider a thread is at: when it begins, and when it is taken up again."""

from collections.abc import Mapping
from typing import Any

from agent.home import laid_over
from agent.model.provider import Provider
from agent.providers import ProviderError, ProviderNotFound, provider_of
from agent.rpc.jsonrpc import INVALID_REQUEST, RequestFailed


def new_provider(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> Provider:
    """The provider of a thread that begins: the one that is wanted, or the default one.

    Raises:
        RequestFailed: There is none of that name, or one of them is not in order.
    """
    try:
        return provider_of(laid_over(config, wanted.get("config") or {}), wanted.get("modelProvider"))
    except ProviderError as exc:
        raise _not_loaded(exc) from exc


def former_provider(config: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> Provider:
    """The provider that a thread was begun with, which it keeps.

    Raises:
        RequestFailed: It is gone, another one is wanted, or one of them is not in order; the texts are the original's.
    """
    own = wanted.get("config") or {}
    other = wanted.get("modelProvider") or laid_over({}, own).get("model_provider") or name
    if other != name:
        raise _not_loaded(f"Cannot change this thread's model provider from `{name}` to `{other}` on resume.")
    try:
        return provider_of(laid_over(config, own), name)
    except ProviderNotFound as exc:
        text = (
            f"This chat uses model provider “{name}”, which is no longer configured. "
            "Restore this provider’s configuration to continue."
        )
        about = {"type": "modelProviderNotConfigured", "modelProvider": name}
        raise RequestFailed(INVALID_REQUEST, text, about) from exc
    except ProviderError as exc:
        raise _not_loaded(exc) from exc


def _not_loaded(reason: object) -> RequestFailed:
    return RequestFailed(INVALID_REQUEST, f"failed to load configuration: {reason}")
