"""A mitmproxy script for tests alone: in this process, every connection leads to the fake at $FAKE_PORT.

Hosts in $FAKE_REFUSES refuse to be connected to.
"""

import os

from copilot_balancer.fake import dial

dialling = dial(int(os.environ["FAKE_PORT"]), everything=True, refuse=os.environ.get("FAKE_REFUSES", "").split())
dialling.__enter__()
