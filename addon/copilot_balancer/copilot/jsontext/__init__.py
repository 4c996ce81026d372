"""JSON as text: read a slice at a time, cut so that every other byte stays, read without trust in its types.

The law of this room: it knows JSON, not Copilot.
"""
