"""Sprite atlases: the same nouns drawn in nine free emoji styles.

The atlases are committed under `training/artwork/`, so nothing here is needed to use the scenes. To rebuild them, fetch
the sources (their licences are in `training/artwork/LICENSES.md`) and run this module:

    apt-get download fonts-noto-color-emoji && dpkg -x fonts-noto-color-emoji_*.deb noto
    npm install @twemoji/svg @iconify-json/{fluent-emoji-flat,fluent-emoji,noto-v1,emojione,fxemoji}
    npm install @iconify-json/{streamline-emojis,openmoji,twemoji}       # the last one for the emojis' names
    pip install resvg-py
    python -m training.artwork --noto noto/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf --npm node_modules
"""

from __future__ import annotations

import argparse
import io
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ARTWORK_FOLDER = Path(__file__).with_name("artwork")
SPRITE_SIZE = 128  # pixels, side of one atlas cell
ATLAS_COLUMNS = 12

COMPLETE_STYLES: tuple[str, ...] = ("noto", "fluent", "twemoji", "gradient")
TRAIN_STYLES: tuple[str, ...] = (
    *COMPLETE_STYLES,
    "noto1",
    "emojione",
    "fxemoji",
    "streamline",
)  # these lack some nouns
UNSEEN_STYLE = "openmoji"  # never trained on: it measures how far the models go beyond the styles they know
STYLES: tuple[str, ...] = (*TRAIN_STYLES, UNSEEN_STYLE)

# Nouns whose drawings disagree between styles (the "egg" that is a frying pan) are left out.
EMOJI_OF_NOUN: dict[str, str] = {
    "red apple": "🍎",
    "green apple": "🍏",
    "banana": "🍌",
    "strawberry": "🍓",
    "pineapple": "🍍",
    "watermelon": "🍉",
    "grapes": "🍇",
    "cherries": "🍒",
    "lemon": "🍋",
    "carrot": "🥕",
    "broccoli": "🥦",
    "mushroom": "🍄",
    "avocado": "🥑",
    "hamburger": "🍔",
    "pizza": "🍕",
    "doughnut": "🍩",
    "dog": "🐕",
    "cat": "🐈",
    "horse": "🐎",
    "cow": "🐄",
    "pig": "🐖",
    "elephant": "🐘",
    "tiger": "🐅",
    "rabbit": "🐇",
    "turtle": "🐢",
    "frog": "🐸",
    "owl": "🦉",
    "penguin": "🐧",
    "duck": "🦆",
    "parrot": "🦜",
    "flamingo": "🦩",
    "fish": "🐟",
    "octopus": "🐙",
    "crab": "🦀",
    "butterfly": "🦋",
    "bee": "🐝",
    "ladybug": "🐞",
    "snail": "🐌",
    "red car": "🚗",
    "blue car": "🚙",
    "bus": "🚌",
    "tractor": "🚜",
    "motorcycle": "🏍",
    "airplane": "✈",
    "helicopter": "🚁",
    "rocket": "🚀",
    "sailboat": "⛵",
    "train": "🚂",
    "soccer ball": "⚽",
    "basketball": "🏀",
    "balloon": "🎈",
    "umbrella": "☂",
    "guitar": "🎸",
    "camera": "📷",
    "alarm clock": "⏰",
    "key": "🔑",
    "scissors": "✂",
    "backpack": "🎒",
    "crown": "👑",
    "red heart": "❤",
    "blue heart": "💙",
    "green heart": "💚",
    "blue book": "📘",
    "green book": "📗",
    "sunflower": "🌻",
    "rose": "🌹",
    "cactus": "🌵",
    "palm tree": "🌴",
    "teddy bear": "🧸",
    "robot": "🤖",
    "ghost": "👻",
    "snowman": "⛄",
}
NOUNS: tuple[str, ...] = tuple(EMOJI_OF_NOUN)

ICONIFY_PACKAGES: dict[str, str] = {
    "fluent": "fluent-emoji-flat",
    "gradient": "fluent-emoji",
    "noto1": "noto-v1",
    "emojione": "emojione",
    "fxemoji": "fxemoji",
    "streamline": "streamline-emojis",
    "openmoji": "openmoji",
}
# Icons with a name of their own, and None for drawings that another style's do not agree with: a pink "red heart".
OWN_NAMES: dict[str, dict[str, str | None]] = {
    "noto1": {"red car": None, "blue car": None, "basketball": None, "red heart": None},
    "emojione": {"robot": "robot-face", "basketball": None, "motorcycle": None},
    "fxemoji": {
        "pizza": "sliceofpizza",
        "train": "steamlocomotive",
        "scissors": "blackscissors",
        "umbrella": None,
        "sailboat": None,
    },
    "streamline": {
        "strawberry": "strawberry-1",
        "watermelon": "watermelon-1",
        "hamburger": "hamburger-1",
        "pizza": "pizza-1",
        "doughnut": "doughnut-1",
        "robot": "robot-face-1",
        "sunflower": "sunflower-1",
        "cactus": "cactus-1",
        "frog": "frog-face",
        "backpack": "school-backpack",
        "penguin": None,
        "guitar": None,
    },
}


@cache
def load_sprites(style: str) -> dict[str, np.ndarray]:
    """Read one style's atlas.

    Args:
        style: one of `STYLES`.

    Returns:
        Noun to (h, w, 4) uint8 RGBA drawing, cropped to what is visible; its longer side is at most `SPRITE_SIZE`.
        Nouns that the style does not draw are left out.

    Raises:
        ValueError: `style` is not one of `STYLES`.
    """
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, got {style!r}")
    with Image.open(ARTWORK_FOLDER / f"{style}.webp") as atlas_image:
        atlas = np.asarray(atlas_image.convert("RGBA"))
    sprites = {}
    for position, noun in enumerate(NOUNS):
        top, left = (SPRITE_SIZE * index for index in divmod(position, ATLAS_COLUMNS))
        cell = atlas[top : top + SPRITE_SIZE, left : left + SPRITE_SIZE]
        if cell[..., 3].any():
            sprites[noun] = crop_to_visible(cell)
    return sprites


def crop_to_visible(rgba: np.ndarray) -> np.ndarray:
    """Cut away the border of an (h, w, 4) uint8 RGBA drawing in which nothing is more than faintly visible."""
    visible = rgba[..., 3] > 16
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    return np.ascontiguousarray(rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def write_atlas(drawings: dict[str, Image.Image], path: Path) -> None:
    """Fit each noun's RGBA drawing into a cell and write the grid of all cells as one WebP file; absent nouns leave
    theirs empty."""
    rows = -(-len(NOUNS) // ATLAS_COLUMNS)
    atlas = Image.new("RGBA", (ATLAS_COLUMNS * SPRITE_SIZE, rows * SPRITE_SIZE))
    for position, noun in enumerate(NOUNS):
        if noun not in drawings:
            continue
        drawing = Image.fromarray(crop_to_visible(np.asarray(drawings[noun].convert("RGBA"))))
        ratio = SPRITE_SIZE / max(drawing.size)
        drawing = drawing.resize((max(1, round(drawing.width * ratio)), max(1, round(drawing.height * ratio))))
        row, column = divmod(position, ATLAS_COLUMNS)
        atlas.paste(drawing, (column * SPRITE_SIZE, row * SPRITE_SIZE))
    atlas.save(path, quality=85, alpha_quality=90, method=6)


def draw_noto(font_path: Path) -> dict[str, Image.Image]:
    """Draw every noun with the bitmap font of Noto Color Emoji, whose one size is 109."""
    font = ImageFont.truetype(str(font_path), size=109)
    drawings = {}
    for noun, emoji in EMOJI_OF_NOUN.items():
        canvas = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(canvas).text((8, 8), emoji, font=font, embedded_color=True)
        drawings[noun] = canvas
    return drawings


def draw_iconify(package: Path, names: dict[str, str], own_names: dict[str, str | None]) -> dict[str, Image.Image]:
    """Draw the nouns that an unpacked `@iconify-json/*` package has.

    Args:
        package: the unpacked package.
        names: noun to its usual icon name.
        own_names: the package's exceptions, see `OWN_NAMES`.
    """
    collection = json.loads((package / "icons.json").read_text())
    aliases = collection.get("aliases", {})
    drawings = {}
    for noun, usual in names.items():
        for name in (own_names[noun],) if noun in own_names else (usual, usual.replace("-", "")):
            icon = collection["icons"].get(aliases.get(name, {}).get("parent", name))
            if icon is None:
                continue
            width, height = (icon.get(side, collection.get(side, 16)) for side in ("width", "height"))
            drawings[noun] = draw_svg(
                f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
            )
            break
    return drawings


def draw_twemoji(package: Path) -> dict[str, Image.Image]:
    """Draw every noun from an unpacked `@twemoji/svg` package."""
    return {noun: draw_svg((package / f"{ord(emoji):x}.svg").read_text()) for noun, emoji in EMOJI_OF_NOUN.items()}


def draw_svg(svg: str) -> Image.Image:
    """Render SVG source at about twice the sprite size, so that cropping and fitting only shrink it."""
    import resvg_py

    sized = re.sub(r'(<svg[^>]*?)\s(?:width|height)="[^"]*"', r"\1", svg, count=2)
    png = resvg_py.svg_to_bytes(svg_string=sized, width=2 * SPRITE_SIZE, height=2 * SPRITE_SIZE)
    return Image.open(io.BytesIO(bytes(png)))


def usual_names(twemoji_package: Path) -> dict[str, str]:
    """Noun to the name that icon collections give its emoji, from `@iconify-json/twemoji`."""
    name_of_code = json.loads((twemoji_package / "chars.json").read_text())
    return {
        noun: name_of_code.get(f"{ord(emoji):x}") or name_of_code[f"{ord(emoji):x}-fe0f"]
        for noun, emoji in EMOJI_OF_NOUN.items()
    }


def main() -> None:
    """Rebuild all atlases from their sources."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noto", type=Path, required=True, help="NotoColorEmoji.ttf")
    parser.add_argument("--npm", type=Path, required=True, help="folder of the unpacked npm packages")
    sources = parser.parse_args()
    ARTWORK_FOLDER.mkdir(exist_ok=True)
    write_atlas(draw_noto(sources.noto), ARTWORK_FOLDER / "noto.webp")
    write_atlas(draw_twemoji(sources.npm / "@twemoji/svg"), ARTWORK_FOLDER / "twemoji.webp")
    names = usual_names(sources.npm / "@iconify-json/twemoji")
    for style, package in ICONIFY_PACKAGES.items():
        drawings = draw_iconify(sources.npm / "@iconify-json" / package, names, OWN_NAMES.get(style, {}))
        write_atlas(drawings, ARTWORK_FOLDER / f"{style}.webp")
        print(f"{style}: {len(drawings)} nouns")


if __name__ == "__main__":
    main()
