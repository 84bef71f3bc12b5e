"""Copies of the pictures in results/ that load fast: WebP, as large as on a page, and small. Needs Pillow."""

import html
import io
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of the site: its place there, its size, and its bytes."""

    path: str
    width: int
    height: int
    content: bytes

    def html(self, up: str, alt: str, lazy: bool = True) -> str:
        """Its element on a page; `up` leads from the page to the root of the site."""
        size = f'width="{self.width}" height="{self.height}"'
        when = 'loading="lazy" decoding="async"' if lazy else 'fetchpriority="high"'
        return f'<img src="{up}{self.path}" alt="{html.escape(alt)}" {size} {when}>'


def copy(path: Path, to: str, width: int | None = None) -> Picture:
    """A copy on white, no wider than `width`."""
    from PIL import Image  # here: the tests of the rest have no Pillow

    with Image.open(path) as image:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A") if image.mode == "RGBA" else None)
    if width and white.width > width:
        white = white.resize((width, round(white.height * width / white.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    white.save(buffer, "WEBP", quality=80, method=2)
    return Picture(path=to, width=white.width, height=white.height, content=buffer.getvalue())
