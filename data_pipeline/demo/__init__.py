"""Source videos for `hallo3 demo`: people who talk, and every defect that curation should find.

Portraits and speech come from files inside published Python packages (weights.yaml names them). A
portrait's mouth follows the phones of the speech (speech.py), its head moves and its eyes blink
(performance.py, puppet.py); recipes.py says what is in each file, sources.py makes them.
"""

from data_pipeline.demo.recipes import DemoSource
from data_pipeline.demo.sources import make_sources

__all__ = ["DemoSource", "make_sources"]
