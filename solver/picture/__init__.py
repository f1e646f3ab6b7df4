"""A batch as a picture: who gives what, through which pools, and who gets what.

:mod:`.flow` says what flows, in exact integers; :mod:`.layout` where it is drawn; :mod:`.render`
alone knows the plotting library, which is an optional extra.
"""

from solver.picture.flow import Tokens, flow_of
from solver.picture.layout import layout_of
from solver.picture.render import ENDINGS, NoLibrary, Scene, draw, load

__all__ = ["ENDINGS", "NoLibrary", "Scene", "Tokens", "draw", "flow_of", "layout_of", "load"]
