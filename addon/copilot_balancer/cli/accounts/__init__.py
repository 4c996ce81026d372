"""``accounts`` and ``terms``: who may serve."""
