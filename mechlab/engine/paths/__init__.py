"""Path patching in the engine: from what senders write, through chosen receivers, to the metric."""

from mechlab.engine.paths.edges import Node, edges_of
from mechlab.engine.paths.plan import Freeze, PathPrompt
from mechlab.engine.paths.receivers import Norms
from mechlab.engine.paths.running import PathReadings, run_paths

__all__ = ["Freeze", "Node", "Norms", "PathPrompt", "PathReadings", "edges_of", "run_paths"]
