"""What lower floors call of higher ones: ``wsflow/__init__.py``, which may import every floor, fills it in.

So a method of `Architecture` can read a module, and its file does not import the tracer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# a torch module, an example input and the names of frozen layers -> its architecture
read_module: Callable[..., Any]
# an architecture, a module, inputs, the number of trials and a seed -> the largest change of an output
largest_deviation: Callable[..., float]
# an architecture with a program -> the torch module that runs it
module_of_program: Callable[..., Any]
# an architecture with a program -> True, if its operations fit its parameters
try_program: Callable[..., bool]
# an architecture -> sentences on the parts of networks that are only near one point of their orbits
orbit_approximations: Callable[..., tuple[str, ...]]
# a report -> its `ReportDisplay`
display_of_report: Callable[..., Any]
# a report, further facts and the training curve of the flow -> its page of HTML
page_of_report: Callable[..., str]
