"""Draw pictures/hints.jpg and write hints.schema.json: `python -m docs.make_hints`."""

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from models.colour_wheel import motion_to_colour
from models.hint_motion import apply_hints
from models.hints import HINTS_SCHEMA, Hints, parse_hints
from pipelines.sample_data import draw_scene

HERE = Path(__file__).parent
SIZE = (360, 640)  # height, width


def main() -> None:
    """Write both."""
    (HERE / "hints.schema.json").write_text(json.dumps(HINTS_SCHEMA, indent=1) + "\n")
    hints = example()
    photo = draw_scene("river", seed=3, size=SIZE).photo_HW3
    still = np.zeros(SIZE, np.float32)
    motion, _ = apply_hints(np.zeros((2, *SIZE), np.float32), still, hints, confidence=0.0)
    sheet = Image.new("RGB", (SIZE[1], 2 * SIZE[0] + 8), "white")
    sheet.paste(drawn(Image.fromarray(photo), hints), (0, 0))
    sheet.paste(Image.fromarray(motion_to_colour(motion)), (0, SIZE[0] + 8))
    sheet.save(HERE / "pictures" / "hints.jpg", quality=88)


def example() -> Hints:
    """The hints that how-to/hints.md shows."""
    found = re.search(r"```json\n(.*?)```", (HERE / "how-to" / "hints.md").read_text(), re.S)
    assert found is not None
    return parse_hints(found[1].encode())


def drawn(photo: Image.Image, hints: Hints) -> Image.Image:
    """The photo with arrows and areas over it."""
    over = Image.new("RGBA", photo.size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(over)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return point[0] * photo.width, point[1] * photo.height

    for areas, colour in ((hints.moving, (60, 140, 255)), (hints.frozen, (235, 60, 60))):
        for area in areas:
            pen.polygon([place(point) for point in area], (*colour, 70), (*colour, 255), 2)
    for arrow in hints.arrows:
        start, end = np.array(place(arrow.start)), np.array(place(arrow.end))
        along = (end - start) / np.linalg.norm(end - start)
        across = np.array([-along[1], along[0]])
        pen.line([tuple(start), tuple(end - 8 * along)], (255, 220, 40, 255), 5)
        tip = [end, end - 18 * along + 9 * across, end - 18 * along - 9 * across]
        pen.polygon([tuple(point) for point in tip], (255, 220, 40, 255))
    return Image.alpha_composite(photo.convert("RGBA"), over).convert("RGB")


if __name__ == "__main__":
    main()
