"""The kinds of facts that can be hidden in prose.

Each was recalled by a model of 135M parameters from 8,192 tokens. Openings are told apart by more
than a word, no answer belongs to two kinds, and none is what the prose itself is about: what is
confused is not thereby out of reach.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class Kind(Struct, frozen=True, kw_only=True):
    """A sentence beginning, and what may complete it."""

    opening: str
    answers: Sequence[str]


def _numbers(first: int, last: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(first, last + 1))


_WORDS = {
    "The name of the captain is": "Marlow Fenwick Tobias Ingrid Quentin Beatrix Lorenzo Matilda",
    "The door of the mill is painted": "orange purple turquoise crimson scarlet yellow",
    "The bridge is built of": "granite marble limestone bamboo concrete bricks",
    "The pie is filled with": "cherries pears plums rhubarb apricots figs",
    "The night train goes to": "Lisbon Vienna Helsinki Prague Toronto Nairobi",
    "The meeting is always held on a": "Thursday Tuesday Wednesday Saturday Monday Friday",
    "The letter is written in": "Portuguese Hungarian Icelandic Korean Swahili Turkish",
    "The stone in the ring is a": "sapphire diamond pearl topaz garnet ruby",
    "The tree in the courtyard is a": "walnut chestnut willow maple cedar birch",
    "The curtains are made of": "velvet linen silk wool cotton denim",
    "The telescope is pointed at": "Saturn Jupiter Neptune Venus Mercury Uranus",
    "The window has the shape of a": "hexagon triangle circle star square crescent",
    "The boys play nothing but": "cricket hockey tennis basketball chess golf",
    "The soup is seasoned with": "saffron ginger cinnamon mustard pepper basil",
    "The statue holds a": "hammer sword lantern shovel compass trident",
    "The festival takes place in": "February November August October April June",
    "The prisoner escaped by": "balloon submarine tractor helicopter canoe motorboat",
    "The ship in the harbour is called the": "Aurora Phoenix Esmeralda Valiant Nautilus Endeavour",
    "The flowers on the grave are": "tulips daffodils lilies roses orchids violets",
    "The hero of the play dies of": "poison fever thirst hunger grief cholera",
    "The thief stole a": "necklace painting violin clock carpet vase",
    "The coat is lined with": "fur satin leather fleece flannel sheepskin",
    "The bell was cast in": "Dresden Bologna Warsaw Utrecht Seville Zagreb",
    "The parcel contains a": "teapot microscope wig saddle doll typewriter",
    "The patient is allergic to": "peanuts shellfish pollen honey mushrooms almonds",
    "The witness came to court by": "taxi sledge bicycle tram ferry motorcycle",
    "The sign above the inn shows a": "dragon mermaid unicorn rooster dolphin griffin",
    "The guests were served roast": "goose duck venison rabbit turkey pheasant",
    "The doctor prescribed": "quinine morphine aspirin insulin penicillin camphor",
    "The orchestra began with a": "waltz march polka tango overture lullaby",
    "The knight broke his": "elbow shoulder ankle wrist collarbone thumb",
    "The uncle made his fortune in": "Argentina Egypt Canada Australia Peru Ceylon",
    "The heir is studying": "chemistry astronomy botany theology law geometry",
    "The museum is famous for its": "mummies watches meteorites armour porcelain puppets",
}
KINDS = (
    Kind(opening="The pass key is", answers=_numbers(10_000, 99_999)),
    Kind(opening="The choir won its prize in the year", answers=_numbers(1_800, 1_999)),
    Kind(opening="The bus to the airport is number", answers=_numbers(100, 999)),
    *(Kind(opening=opening, answers=answers.split()) for opening, answers in _WORDS.items()),
)
"""Enough for the facts of seven sizes: the longest ladder."""
