"""What the tests of the scope share."""

from proxy.scope import Scope
from tests.proxy.heads import changed

SCOPE = Scope.of()


def at(head, path):
    return changed(head, target=path)
