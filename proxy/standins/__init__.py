"""Local peers that speak the real wire: for the demo, for tests, and for users who verify offline.

Product code: they are started by `countersign standin`, record what reached them, and misbehave on request.
"""
