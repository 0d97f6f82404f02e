"""The kinds of facts that can be hidden in prose.

A small model that confuses two facts has still read both. So openings differ in more than one
word, no answer belongs to two kinds, and no answer occurs in the prose itself. Openings that name
the kind of thing that follows work best, as measured with a model of 135M parameters at the far
end of 8,192 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class NeedleKind(Struct, frozen=True, kw_only=True):
    """The beginning of a sentence, and the answers that can complete it."""

    opening: str
    answers: Sequence[str]


_FACTS: dict[str, str | range] = {
    "The ship in the harbour is called the": "Aurora Phoenix Esmeralda Valiant Nautilus Endeavour",
    "The hero of the play dies of": "poison fever thirst hunger grief cholera",
    "The festival takes place in the month of": "February November August October April June",
    "The meeting is always held on a": "Thursday Tuesday Wednesday Saturday Monday Friday",
    "The name of the captain is": "Marlow Fenwick Tobias Ingrid Quentin Beatrix Lorenzo Matilda",
    "The heir is studying": "chemistry astronomy botany theology law geometry",
    "The pass key is": range(10_000, 100_000),
    "The telescope is pointed at the planet": "Saturn Jupiter Neptune Venus Mercury Uranus",
    "The uncle made his fortune in the country of": "Argentina Egypt Canada Australia Peru Norway",
    "The choir won its prize in the year": range(1_800, 2_000),
    "The night train goes to the city of": "Lisbon Vienna Helsinki Prague Toronto Nairobi",
    "The boys play nothing but": "cricket hockey tennis basketball chess golf",
    "The guests were served roast": "goose duck venison rabbit turkey pheasant",
    "The bus to the airport is number": range(100, 1_000),
    "The prisoner escaped by": "balloon submarine tractor helicopter canoe motorboat",
    "The coat is lined with": "fur satin leather fleece flannel sheepskin",
    "The witness came to court by": "taxi sledge bicycle tram ferry motorcycle",
    "The patient is allergic to": "peanuts shellfish pollen honey mushrooms almonds",
    "The thief stole a": "necklace painting violin clock carpet vase",
    "The sign above the inn shows a": "dragon mermaid unicorn rooster dolphin griffin",
    "The window has the shape of a": "hexagon triangle circle star square crescent",
    "The letter is written in the language": "Portuguese Hungarian Icelandic Korean Turkish",
    "The tree in the courtyard is a": "walnut chestnut willow maple cedar birch",
    "The knight broke his": "elbow shoulder ankle wrist collarbone thumb",
    "The door of the mill is painted in the colour": "orange purple turquoise crimson yellow",
    "The orchestra began with a": "waltz march polka tango overture lullaby",
    "The curtains are made of": "velvet linen silk wool cotton denim",
    "The pie is filled with": "cherries pears plums rhubarb apricots figs",
    "The soup is seasoned with": "saffron ginger cinnamon mustard pepper basil",
    "The stone in the ring is a": "sapphire diamond pearl topaz garnet ruby",
    "The bridge is built of": "granite marble limestone bamboo concrete bricks",
    "The statue holds a": "hammer sword lantern shovel compass trident",
    "The parcel contains a": "teapot microscope wig saddle doll typewriter",
    "The flowers on the grave are": "tulips daffodils lilies roses orchids violets",
    "The medicine for the king is": "quinine morphine aspirin insulin penicillin camphor",
}
NEEDLE_KINDS = tuple(
    NeedleKind(
        opening=opening,
        answers=tuple(map(str, answers if isinstance(answers, range) else answers.split())),
    )
    for opening, answers in _FACTS.items()
)
"""Enough for the facts of seven sizes, the longest ladder; the easiest to recall come first."""
