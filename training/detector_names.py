"""What the nano detector can name: the nouns of the drawn scenes, the names of real things, and what people also type.

A name is what an object is labelled with; a phrase is what a prompt asks for, and means one or several names. Nouns
that are drawn and names that are photographed are the same where they are spelt the same ("dog").
"""

from __future__ import annotations

# ruff: noqa: SIM905
import numpy as np

from training.artwork import NOUNS
from training.photos import COCO_NAMES

PHOTO_NAMES: tuple[str, ...] = tuple(  # most are not drawn; the frequent ones first
    "person|shoe|bag|sheep|chair|bottle|car|sofa|potted plant|cup|book|dining table|apple|orange|bowl|bear|deer|"
    "monkey|tv|boot|spoon|wine glass|fire truck|bicycle|otter|sink|bird|hat|sunglasses|knife|handbag|sandal|boat|"
    "toilet|oven|traffic light|fork|truck|laptop|suitcase|cake|bench|keyboard|remote|cell phone|sandwich|"
    "tennis racket|refrigerator|vase|mouse|skateboard|giraffe|kite|microwave|clock|tie|stop sign|bed|surfboard|"
    "baseball bat|sports ball|zebra".split("|")
)
NAMES: tuple[str, ...] = (*NOUNS, *(name for name in PHOTO_NAMES if name not in NOUNS))
NAME_INDEX: dict[str, int] = {name: index for index, name in enumerate(NAMES)}
NAME_OF_LABEL: dict[str, str] = {"donut": "doughnut"}  # what the photographs call it, and the name here

FRUIT = ("apple", "red apple", "green apple", "banana", "orange", "strawberry", "pineapple", "watermelon", "lemon")
LAND_ANIMALS = ("dog", "cat", "horse", "sheep", "cow", "bear", "deer", "monkey", "elephant", "tiger", "otter", "zebra")
ANIMALS = (*LAND_ANIMALS, "giraffe", "pig", "rabbit", "turtle", "frog", "bird", "owl", "penguin", "duck", "parrot")
VEHICLES = ("car", "red car", "blue car", "bus", "truck", "fire truck", "motorcycle", "bicycle", "train", "tractor")

DRAWN_ALIASES: dict[str, tuple[str, ...]] = {  # the names a phrase means besides those that are drawn come below
    "apple": ("red apple", "green apple"),
    "ball": ("soccer ball", "basketball", "sports ball"),
    "bear": ("teddy bear",),
    "boat": ("sailboat",),
    "book": ("blue book", "green book"),
    "bunny": ("rabbit",),
    "burger": ("hamburger",),
    "car": ("red car", "blue car"),
    "cherry": ("cherries",),
    "clock": ("alarm clock",),
    "donut": ("doughnut",),
    "flower": ("sunflower", "rose"),
    "football": ("soccer ball",),
    "grape": ("grapes",),
    "heart": ("red heart", "blue heart", "green heart"),
    "motorbike": ("motorcycle",),
    "plane": ("airplane",),
    "tree": ("palm tree",),
}
PHOTO_ALIASES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        "man|woman|boy|girl|kid|child|people|lady|guy|human|pedestrian|persons|men|women|children".split("|"),
        ("person",),
    ),
    **{plural: (plural[:-1],) for plural in ("dogs", "cats", "horses", "cows", "chairs", "bottles", "shoes", "bags")},
    **{plural: (plural[:-1],) for plural in ("birds", "elephants", "cups", "books", "bears", "monkeys", "sofas")},
    "puppy": ("dog",),
    "kitten": ("cat",),
    "pony": ("horse",),
    "lamb": ("sheep",),
    "calf": ("cow",),
    "bull": ("cow",),
    "cattle": ("cow",),
    "couch": ("sofa",),
    "plant": ("potted plant",),
    "houseplant": ("potted plant",),
    "automobile": ("car", "red car", "blue car"),
    "cars": ("car", "red car", "blue car"),
    "bike": ("bicycle",),
    "television": ("tv",),
    "table": ("dining table",),
    "mug": ("cup",),
    "phone": ("cell phone",),
    "smartphone": ("cell phone",),
    "sneaker": ("shoe",),
    "lorry": ("truck",),
    "fridge": ("refrigerator",),
    "strawberries": ("strawberry",),
    "animal": ANIMALS,
    "vehicle": VEHICLES,
    "fruit": FRUIT,
}
ALIASES: dict[str, tuple[str, ...]] = {**DRAWN_ALIASES, **PHOTO_ALIASES}
MEANINGS: dict[str, tuple[str, ...]] = {name: (name,) for name in NAMES}
for _phrase, _names in ALIASES.items():
    MEANINGS[_phrase] = (*((_phrase,) if _phrase in NAME_INDEX else ()), *_names)
DRAWN_PHRASES: tuple[str, ...] = (*NOUNS, *DRAWN_ALIASES)
LATER_PHRASES: tuple[str, ...] = (*PHOTO_NAMES, *PHOTO_ALIASES)  # their new words stand behind the drawn vocabulary

# An object of the first name may also be one of the others, which its label does not tell.
MAY_ALSO_BE: dict[str, tuple[str, ...]] = {
    "apple": ("red apple", "green apple"),
    "bag": ("handbag", "backpack", "suitcase"),
    "backpack": ("bag", "handbag"),
    "bird": ("owl", "penguin", "duck", "parrot", "flamingo"),
    "boat": ("sailboat",),
    "book": ("blue book", "green book"),
    "boot": ("shoe",),
    "bowl": ("cup",),
    "car": ("red car", "blue car"),
    "clock": ("alarm clock",),
    "cup": ("bowl", "wine glass"),
    "fire truck": ("truck", "red car"),
    "handbag": ("bag", "backpack"),
    "potted plant": ("cactus", "rose", "sunflower", "palm tree", "vase"),
    "sandal": ("shoe",),
    "sandwich": ("hamburger",),
    "shoe": ("boot", "sandal"),
    "sports ball": ("soccer ball", "basketball"),
    "suitcase": ("bag", "handbag"),
    "truck": ("fire truck", "car"),
    "vase": ("potted plant",),
}
MAY_ALSO_BE_MATRIX = np.zeros((len(NAMES), len(NAMES)), bool)  # [name of the object, name asked for]
for _name, _others in MAY_ALSO_BE.items():
    MAY_ALSO_BE_MATRIX[NAME_INDEX[_name], [NAME_INDEX[_other] for _other in _others]] = True

# Names that a photograph may show without a label; it would be labelled if it showed one of the others.
COMMON_NAMES: frozenset[str] = (
    COCO_NAMES.intersection(NAMES)
    - {"elephant", "bear", "zebra", "giraffe", "horse", "sheep", "cow", "airplane", "broccoli", "carrot", "pizza"}
    - {"stop sign", "snowboard", "surfboard", "tennis racket", "baseball bat", "train", "bus", "teddy bear"}
) | frozenset(
    "shoe|boot|sandal|bag|hat|sunglasses|key|camera|fish|rose|sunflower|palm tree|lemon|alarm clock|blue book|"
    "green book|red car|blue car|sailboat|red apple|green apple|soccer ball|basketball|balloon|mushroom|duck|grapes|"
    "cherries|doughnut|butterfly|bee|cactus".split("|")
)
COMMON = np.array([name in COMMON_NAMES for name in NAMES])

# Everyday words for things that photographs of streets, rooms, meadows and zoos hardly ever show.
WORDS_SELDOM_SEEN: tuple[str, ...] = tuple(
    "accordion|anchor|angel|axe|banjo|bathtub|beaver|camel|candle|cannon|castle|caterpillar|cello|chimney|cloak|clown|"
    "cockroach|coconut|compass|crane|cricket|crocodile|diamond|dice|dinosaur|doll|dolphin|donkey|dragon|drill|drum|"
    "eagle|fairy|falcon|feather|ferry|flute|fountain|fox|globe|gorilla|grasshopper|hamster|harp|hedgehog|hippo|iceberg|"
    "jellyfish|kangaroo|kayak|koala|ladder|lantern|lighthouse|lion|lizard|llama|lobster|lollipop|medal|microphone|"
    "microscope|mosquito|moth|mountain|necklace|ostrich|panda|panther|parachute|peacock|pelican|piano|"
    "popcorn|porcupine|puppet|raccoon|rainbow|rhino|rooster|saxophone|scorpion|seal|shark|skeleton|skull|sloth|squid|"
    "statue|sword|syringe|telescope|tent|treasure chest|triangle|trophy|trumpet|violin|volcano|"
    "walrus|wheelchair|witch|wolf|worm|yacht".split("|")
)
# Never trained on in any way; the scores count how often they are found all the same.
UNSEEN_PHRASES: tuple[str, ...] = tuple(
    "xylophone|submarine|pyramid|windmill|lawn mower|chandelier|typewriter|spaceship|mammoth|igloo|gondola|catapult|"
    "excavator|sewing machine".split("|")
)
