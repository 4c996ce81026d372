"""A mitmproxy script for tests alone: the process may have no more than 256 files and connections open."""

import resource

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
