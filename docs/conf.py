"""How Sphinx builds the documentation: ``make docs``, then open docs/_build/html/index.html."""

from __future__ import annotations

import shutil
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

project = "poyo-ssl"
author = "The poyo-ssl developers"
version = release = version_of("poyo-ssl")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = "poyo-ssl"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
html_sidebars = {"index": []}
html_show_sourcelink = False
copyright = "the poyo-ssl developers, MIT licence"

toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 1800
nb_execution_raise_on_error = True
"""Notebooks run in folders of their own, again only where they changed; docs/_build keeps what they
printed and drew."""
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
"""Types stand beside the meaning of an argument, as in the docstrings' sections."""

_RESULTS = "../benchmarks/results"
_COPY = "measured"
"""Sphinx reads nothing outside its folder, so the pages of results are copied into it."""


def setup(app: Sphinx) -> None:
    """Adds the results of benchmarks/ to the site, and leads links to them there."""
    shutil.copytree(app.srcdir / _RESULTS, app.srcdir / _COPY, dirs_exist_ok=True)
    app.connect("source-read", _adapt)


def _adapt(_: Sphinx, page: str, source: list[str]) -> None:
    """Links to results lead to their copies, and results without a heading get one."""
    for up in ("", "../"):
        source[0] = source[0].replace(f"]({up}{_RESULTS}/", f"]({up}{_COPY}/")
    if page.startswith(_COPY) and not source[0].startswith("# "):
        title = page.removeprefix(f"{_COPY}/").replace("_", " ").capitalize()
        source[0] = f"# {title}\n\n{source[0]}"
