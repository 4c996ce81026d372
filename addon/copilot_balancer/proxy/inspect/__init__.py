"""The content view "Copilot": an answer as text, in mitmweb and in mitmproxy's console.

The law of this room: it only looks, within bounds, and never raises.
"""
