"""How Sphinx builds the documentation; its tables and pictures are made at build time."""

from __future__ import annotations

import sys
from pathlib import Path

from wsflow import __version__
from wsflow.evaluation import verdict

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "wsflow"
author = "The wsflow developers"
copyright = "The wsflow developers"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "sphinx_design",
    "made_from_code",
    "made_from_costs",
    "made_from_pages",
    "made_from_results",
    "mathml",
    "plain_mathematics",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
# `name` in a docstring is a link where there is something of that name
default_role = "py:obj"
html_math_renderer = "mathml"
html_title = f"wsflow {version}"
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "tutorial": [], "install": [], "results": [], "api": []}
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_show_sphinx = False
html_show_sourcelink = False

# the numbers behind the verdict, so that what is said of them cannot go stale
rst_epilog = "\n".join(
    f".. |{name}| replace:: {value:g}" for name, value in vars(verdict).items() if isinstance(value, float | int)
)

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1000,
}
