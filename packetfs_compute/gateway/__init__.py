"""The HTTP face: jobs, the fleet and its health for anyone with a key. Thin: parse, call, render.

:func:`packetfs_compute.gateway.app.create_app` makes the application, ``packetfs gateway`` serves it. A request goes through
these, in order: ``rim`` (what every answer carries, and who may call from a browser), ``gate`` (keys, scopes, rates),
``bodies`` (what is read of a stranger), a route, and on the way out ``problems``. FastAPI is needed by those alone, an extra
(``pip install 'packetfs-unified-compute[gateway]'``); keys are made without it.
"""

from packetfs_compute.gateway.keys import Key, KeyStore, open_keys

__all__ = ["Key", "KeyStore", "open_keys"]
