"""A protocol analyser: what goes over a replication connection, message by message.

It is made of the codec, fed with bytes: those of a running primary, of a capture, or of a
FileStorage's file. `zrs dump` shows what it finds.
"""

from .analyser import Analyser, Entry
from .words import as_json, as_text

__all__ = ["Analyser", "Entry", "as_json", "as_text"]
