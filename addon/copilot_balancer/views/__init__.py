"""What people and programs are shown of accounts and requests, the same in the proxy, the commands and the dashboard.

The law of this room: it only looks. A frozen value comes in, text or JSON goes out.
"""
