"""The terminal dashboard: who served what, why, what is left, and what rests until when; live from the store's files.

Rooms, top to bottom::

    app       keys and clicks become edits
    looking   the screen: paints what ``seen`` saw; filter, and ways from pane to pane
    texts     what is read in dialogs; ``themes`` the colours
    panes     the parts of the screen, each with its keys
    dialogs   questions on top of it: a name, a yes, a choice, one row of the matrix, help
    joining   a login by code inside the dashboard
    rows      the list that a pane shows: its cursor outlives every repaint
    seen      one look at the files, off the event loop
    details   everything about the chosen account, request or route, as lines
    view      an overview as rows
    history   what was left of each quota since the dashboard began
    lines     text in tones, tables, bars and countdowns

Laws of this package:

1. ``lines``, ``view``, ``details`` and ``history`` know neither Textual nor a clock: they are plain functions.
2. The screen paints a frozen overview; it remembers only the cursor, the filter and the history.
3. Every edit is one ``Store.edit_decisions``, and disk and network are touched in threads only.
4. No token is shown; foreign words go through ``printable`` and never through markup.
5. mitmproxy is not imported: the dashboard starts in under a second.
"""
