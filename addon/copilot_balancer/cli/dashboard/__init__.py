"""The terminal dashboard: who served what, why, what is left, and what rests until when; live from the store's files.

Modules, top to bottom::

    command   ``copilot-balancer dashboard``
    app       keys and clicks become edits
    screen    paints what ``data`` read; filter, and ways from pane to pane
    dialogs   questions on top of it: a name, a yes, a choice, one route, help; ``texts`` is what they say
    login     a login by code inside the dashboard
    panes     the parts of the screen, each with its keys, and the list that a pane shows
    data      one look at the files, off the event loop; what was left of each quota since the dashboard began
    details   everything about the chosen account, request or route, as lines
    rows      an overview as rows
    lines     text in tones, tables, bars and countdowns; ``themes`` the colours

Laws of this room:

1. ``lines``, ``rows`` and ``details`` know neither Textual nor a clock: they are plain functions.
2. The screen paints a frozen overview; it remembers only the cursor, the filter and the history.
3. Every edit is one ``Store.edit_decisions``, and disk and network are touched in threads only.
4. No token is shown; foreign words go through ``printable`` and never through markup.
5. mitmproxy is not imported: the dashboard starts in under a second.
"""
