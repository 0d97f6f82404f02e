"""Plain prose without end: nothing in it can be mistaken for a fact of `pytest_lmstrix.facts`."""

from __future__ import annotations

from random import Random

_TIMES = """
In the evening|Before breakfast|After the rain|At noon|Late in the summer|When the wind turned|
Towards midnight|During the harvest|On the way home|As usual|For a long while|Every now and then|
Not long ago|In those days|At the end of the week
"""
_PEOPLE = """
farmer|shepherd|gardener|fisherman|miller|traveller|neighbour|old woman|young man|carpenter|
postman|teacher|weaver|ferryman|widow|schoolboy|watchman|innkeeper
"""
_WALKED = "walked|wandered|strolled|hurried|went slowly|rode|came|ran"
_PLACES = """
along the river|through the village|across the fields|up the hill|beside the pond|over the meadow|
towards the forest|past the orchard|down the lane|around the barn|near the well|behind the church
"""
_THOUGHTS = """
the weather|the price of corn|an old quarrel|the coming winter|a long journey|the noise of a wheel|
the work still to be done|a song from childhood|the roof that leaked|the sheep on the far side|
the news that never came|nothing in particular
"""
_ADJECTIVES = """
quiet|narrow|muddy|gentle|heavy|distant|pleasant|crooked|warm|damp|broken|empty
"""
_THINGS = """
path|wall|fence|cart|roof|bench|basket|rope|ladder|bucket|gate|stove|table|blanket
"""
_STATES = """
had been mended again|was still wet from the rain|stood where it always had|was hardly ever used|
looked older than before|needed a little care|was covered with dust|lay forgotten in the grass|
could be seen from far away|creaked a little in the wind
"""
_NATURE = "clouds|swallows|crickets|leaves|bees|frogs|shadows|smells of hay|sheep|sparrows"
_MOVED = """
moved slowly over the land|could be heard everywhere|came and went|filled the air|
were about as always|seemed in no hurry
"""
_SAID = "said|thought|remembered|believed|told everybody|noticed|hoped"
_SAYINGS = """
that the road would be dry soon|that nobody knew the reason|that there was time enough|
that the bread was good that day|that the winter would be mild|that the dogs had barked again|
that somebody ought to mend the fence|that it was better to wait
"""
_POOLS = {
    name: pool.replace("\n", "").split("|")
    for name, pool in {
        "time": _TIMES,
        "who": _PEOPLE,
        "walked": _WALKED,
        "place": _PLACES,
        "thought": _THOUGHTS,
        "adjective": _ADJECTIVES,
        "thing": _THINGS,
        "state": _STATES,
        "nature": _NATURE,
        "moved": _MOVED,
        "said": _SAID,
        "saying": _SAYINGS,
    }.items()
}
_SENTENCES = (
    "{time} the {who} {walked} {place} and thought of {thought}.",
    "There was the {who} who {said} {saying}.",
    "Some {adjective} {thing} {place} {state}.",
    "{time} the {nature} {moved}.",
    "{time} the {who} {said} {saying}, and the {thing} {state}.",
    "Some {nature} {moved} while the {who} {walked} {place}.",
)


def sentence(rng: Random) -> str:
    """A sentence without numbers, colours or names."""
    return rng.choice(_SENTENCES).format_map({name: rng.choice(p) for name, p in _POOLS.items()})
