"""How the documentation is built: `make docs`, into docs/_build/html."""

from importlib import metadata

project = "tmm-core"
author = "The tmm-core maintainers"
try:
    release = metadata.version("tmm-core")
except metadata.PackageNotFoundError:
    release = ""

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

numpydoc_show_class_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's Parameters say it with the unit
# Links to files outside docs are right on the page of the repository; Pygments knows no CSV.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
nitpicky = False

html_theme = "pydata_sphinx_theme"
html_title = "tmm-core"
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "use_edit_page_button": False,
    "header_links_before_dropdown": 4,
}
html_sidebars = {"**": []}  # one level of pages: the header names them all
html_show_sourcelink = False
