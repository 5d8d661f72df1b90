"""The WordPiece vocabulary of the bundled nano detector.

A BERT tokenizer over a few thousand pieces: every word the scenes can name, everyday words that people type in
prompts, frequent word beginnings and endings, and every letter, digit and sign, so that any word splits into known
pieces. The ids that Grounding DINO fixes ([PAD] 0, [UNK] 100, [CLS] 101, [SEP] 102, [MASK] 103, "." 1012 and "?"
1029) are those of BERT's own vocabulary.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from transformers import BertTokenizer

FIXED_IDS: dict[str, int] = {
    "[PAD]": 0,
    "[UNK]": 100,
    "[CLS]": 101,
    "[SEP]": 102,
    "[MASK]": 103,
    ".": 1012,
    "?": 1029,
}
FIRST_FREE_ID = 104
MIN_PIECE_COUNT = 3  # a beginning or ending is a piece when it occurs in this many words
PIECE_LENGTHS = range(2, 6)
MAX_PROMPT_TOKENS = 256

OBJECT_WORDS: tuple[str, ...] = tuple(
    """
    accordion acorn ambulance anchor angel ant antelope arrow axe baby bag bagel ball bamboo bandage banjo barn
    barrel baseball basket bat bathtub battery beach beaver bed bell belt bench bicycle bike bird biscuit blanket
    board boat bone book boot bottle bowl box boy bread brick bridge briefcase broom brush bucket buffalo building
    bulb bull bunny burger burrito bush button cabin cable cage cake calculator calendar camel candle candy canoe
    cap cape card carpet cart castle caterpillar ceiling cello chain chair chalk cheese cheetah chef chess chest
    chicken child chimney chocolate church cigarette clip cloak clock cloud clown coat cockroach coconut coffee
    coin comb compass computer laptop cone container cookie couch cracker crane crocodile corn crayon cricket
    croissant crow crystal cucumber cup cupboard curtain cushion cutlery deer desk diamond dice dinosaur dish doll
    dolphins donkey donut door dragon drawer dress drill drink driver drum eagle ear earring egg engine envelope
    eraser eye face factory fairy falcon fan faucet feather fence fern ferry field finger fire firefighter flag
    flashlight floor flower flute fly folder food foot football fork fountain fox frame fridge fruit fry game
    garage garden garlic gate gem gift ginger giraffe girl glass glasses globe glove goat gorilla grass
    grasshopper guard gun hair hammer hamster hand handbag handle harp hat hawk headphone hedgehog helmet hen
    hippo hockey honey hook hose hospital hotel house hydrant ice icecream cream cherry iron island jacket jar
    jeans jeep jellyfish jewel juice kangaroo kayak kettle keyboard kite kitten kiwi knife koala ladder lamb lamp
    lantern leaf leg lettuce lighthouse lightning lion lipstick lizard llama lobster lock log lollipop luggage
    magnet mailbox man mango map mask mat meat medal melon microphone microscope microwave milk mirror monitor
    monkey moon mop mosquito moth mountain mouse mouth muffin mug nail neck necklace needle nest net newspaper
    noodle nose notebook nut oar olive onion orange ostrich oven ox package paddle paint palette pan pancake panda
    panther paper parachute park pasta paw peach peacock peanut pear pebble pelican pen pencil pepper person phone
    piano picture pie pigeon pill pillow pin pipe plant plate player plug plum pole pond popcorn porcupine postbox
    pot potato powder present pretzel printer pumpkin puppet puppy purse puzzle rabbits raccoon racket radio rail
    rain rainbow rat raven refrigerator remote rhino ribbon rice ring river road robe rock roof room rooster root
    rope rug ruler sack saddle sail salad salmon sand sandal sandwich saucer sausage saw saxophone scale scarf
    school scooter scorpion screen screw screwdriver sea seagull seal seat shark sheep shelf shell shield ship
    shirt shoe shop shovel shower shrimp sign sink skateboard skeleton skirt skull sky sled sloth smartphone smoke
    snow snake zebra dolphin soap sock sofa soup spaghetti sparrow spider sponge spoon squid squirrel stairs stamp
    star statue stick stone stool store stove strawberries street sugar suit suitcase sun sushi swan sweater swim
    swing switch sword syringe table tablet taco tank tape taxi tea teapot teeth telephone telescope television
    tennis tent thread tie tire toast toaster toilet tomato tongue tool toothbrush torch towel tower town toy
    trash tray tree triangle trolley trophy trumpet turkey tv vacuum van vase vegetable vehicle vest violin
    volcano wagon waiter wall wallet walrus wardrobe washer watch water wave web well whale wheat wheel wheelchair
    whistle wig window wine wing wire witch wolf woman wood worm wrench yacht yogurt
    """.split()  # noqa: SIM905
)
DESCRIBING_WORDS: tuple[str, ...] = tuple(
    """
    red green blue yellow orange purple pink brown black white grey gray golden silver dark light bright striped
    spotted big small large little tiny tall short long round square old young new wooden metal plastic open
    closed left right top bottom front back a an the of on in with and at by his her running sitting standing
    flying sleeping happy sad hot cold one two three
    """.split()  # noqa: SIM905
)


def frequent_pieces(words: Sequence[str]) -> list[str]:
    """Beginnings, and endings with their "##", that occur in at least `MIN_PIECE_COUNT` of the words; alphabetical."""
    counts: Counter[str] = Counter()
    for word in set(words):
        for length in PIECE_LENGTHS:
            if length < len(word):
                counts[word[:length]] += 1
                counts["##" + word[-length:]] += 1
    return sorted(piece for piece, count in counts.items() if count >= MIN_PIECE_COUNT)


def build_vocabulary(phrases: Sequence[str], later_phrases: Sequence[str] = ()) -> dict[str, int]:
    """Give every piece its id.

    Args:
        phrases: lower-case phrases whose words must each be one piece.
        later_phrases: the same, but their new words stand behind all others, so that the ids of a vocabulary without
            them stay as they are and its weights can be trained on.

    Returns:
        Piece to id; ids are 0 … V − 1 without gaps, the unused ones below 1030 named "[unusedN]" as in BERT's
        vocabulary.
    """
    words = sorted({word for phrase in phrases for word in re.findall(r"[a-z0-9]+", phrase)})
    everyday = sorted(set(OBJECT_WORDS) | set(DESCRIBING_WORDS))
    characters = string.ascii_lowercase + string.digits
    pieces = [*string.punctuation, *characters, *("##" + character for character in characters)]
    pieces += [*words, *everyday, *frequent_pieces([*words, *everyday])]
    vocabulary = dict(FIXED_IDS)
    taken = set(FIXED_IDS.values())
    next_id = FIRST_FREE_ID
    later_words = sorted({word for phrase in later_phrases for word in re.findall(r"[a-z0-9]+", phrase)})
    for piece in dict.fromkeys([*pieces, *later_words]):
        if piece in vocabulary:
            continue
        while next_id in taken:
            next_id += 1
        vocabulary[piece] = next_id
        taken.add(next_id)
    for unused in set(range(max(taken) + 1)) - taken:
        vocabulary[f"[unused{unused}]"] = unused
    return dict(sorted(vocabulary.items(), key=lambda item: item[1]))


def build_tokenizer(phrases: Sequence[str], folder: Path, later_phrases: Sequence[str] = ()) -> BertTokenizer:
    """Write the vocabulary into `folder` and return the lower-casing tokenizer that reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = build_vocabulary(phrases, later_phrases)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=MAX_PROMPT_TOKENS)
    tokenizer.save_pretrained(folder)
    return tokenizer
