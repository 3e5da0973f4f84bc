"""One file a figure: numbers in, matplotlib Figure out; save it with `figure.savefig("name.pdf")`.

A figure of one thing can also be drawn into axes that are given, so that it can be part of a larger one.
"""

from vitreous.figures.distance import draw_attention_distance
from vitreous.figures.entropy import draw_entropy
from vitreous.figures.filters import draw_filter_sets, draw_filters
from vitreous.figures.flow import draw_flow
from vitreous.figures.heads import draw_class_attention
from vitreous.figures.mass import draw_prefix_mass
from vitreous.figures.overlay import draw_overlay
from vitreous.figures.rollout import draw_rollout
from vitreous.figures.rollouts import draw_rollouts
from vitreous.figures.similarity import draw_position_similarities, draw_position_similarity
from vitreous.figures.training import draw_over_epochs, draw_training_frame

__all__ = [
    "draw_attention_distance",
    "draw_class_attention",
    "draw_entropy",
    "draw_filter_sets",
    "draw_filters",
    "draw_flow",
    "draw_over_epochs",
    "draw_overlay",
    "draw_position_similarities",
    "draw_position_similarity",
    "draw_prefix_mass",
    "draw_rollout",
    "draw_rollouts",
    "draw_training_frame",
]
