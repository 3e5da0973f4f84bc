"""One file a figure: numbers in, matplotlib Figure out; save it with `figure.savefig("name.pdf")`.

Every function also draws into axes that it is given, so that a figure can be part of a larger one.
"""

from vitreous.figures.distance import draw_attention_distance
from vitreous.figures.entropy import draw_entropy
from vitreous.figures.filters import draw_filters
from vitreous.figures.heads import draw_class_attention
from vitreous.figures.mass import draw_prefix_mass
from vitreous.figures.rollout import draw_rollout
from vitreous.figures.similarity import draw_position_similarity

__all__ = [
    "draw_attention_distance",
    "draw_class_attention",
    "draw_entropy",
    "draw_filters",
    "draw_position_similarity",
    "draw_prefix_mass",
    "draw_rollout",
]
