"""A process that is told what to do, a line of JSON at a time, and answers in the same way.

python -m benchmarks.nodes ROLE IMPLEMENTATION TRANSPORT
"""

from __future__ import annotations

import json
import sys
import traceback

from .implementations import load
from .primary import PrimaryNode
from .readers import ReadersNode
from .secondary import SecondaryNode


def main(role: str, implementation: str, transport: str) -> None:
    roles = {"primary": PrimaryNode, "secondary": SecondaryNode, "readers": ReadersNode}
    node = roles[role](load(implementation, transport))
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            answer = {"result": getattr(node, method)(**arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


main(*sys.argv[1:])
