"""Make the README's picture of the dashboard, ``.github/images/dashboard.svg``: the same bytes each time.

    PYTHONPATH=tests:scripts .venv/bin/python -m pictures.dashboard [FOLDER] [--light] [--size 152x40]

The store is the made-up one of the tests (``tests/support/dashboards.py``), in a temporary folder, with a clock that
stands still; no account, no network.
"""

import argparse
import asyncio
import os
import re
import tempfile
from pathlib import Path

from copilot_balancer.cli.dashboard.app import Dashboard
from support.dashboards import HOME, NOW, ZONE, Scene

ROOT = Path(__file__).parents[2]

QUOTA = (97, 97, 95, 92, 92, 91, 88, 86, 86, 84, 81, 79, 79, 76, 74, 73, 71, 71, 69, 68)
"""What was left of the home account's quota, every day, in percent."""


async def picture(folder: Path, *, light: bool, size: tuple[int, int]) -> str:
    """The screen with the home account under the cursor, as SVG."""
    os.environ["COLORTERM"] = "truecolor"  # the picture is the same, whatever terminal it is made in
    scene = Scene(folder).filled()
    try:
        app = Dashboard(scene.env, every=None, zone=ZONE, light=light)
        app.animation_level = "none"
        for number, percent in enumerate(QUOTA, 1 - len(QUOTA)):
            app.history.note(HOME, "premium", NOW + 86400 * number, percent)
        async with app.run_test(size=size) as pilot:
            await pilot.press("down")
            for _ in range(20):
                await pilot.pause(0.05)
            return small(app.export_screenshot(title="copilot-balancer dashboard"))
    finally:
        scene.live.close()


def small(svg: str) -> str:
    """`svg` under a name that is the same each time, and without fonts from the network."""
    name = re.search(r"terminal-(\d+)-", svg)
    svg = svg.replace(f"terminal-{name[1]}-", "t") if name else svg
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".github" / "images")
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--size", default="152x40")
    wishes = parser.parse_args()
    columns, rows = map(int, wishes.size.split("x"))
    with tempfile.TemporaryDirectory() as home:
        svg = asyncio.run(picture(Path(home), light=wishes.light, size=(columns, rows)))
    wishes.folder.mkdir(parents=True, exist_ok=True)
    path = wishes.folder / "dashboard.svg"
    path.write_text(svg, encoding="utf-8")
    print(f"{path}: {len(svg.encode()) // 1024} KB")


main()
