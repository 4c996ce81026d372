"""What mitmproxy runs: ``mitmdump -s "$(copilot-balancer addon-path)"``. It builds the addon object, nothing else.

mitmproxy runs this file again whenever it changes, so each run builds a new object; classes that must stay the same
(the layer's hooks) live in modules that are imported once.
"""

from copilot_balancer.addon import CopilotBalancer

addons = [CopilotBalancer()]
