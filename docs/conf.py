"""How the documentation becomes a site: `make docs`. Every warning is an error there, broken links among them."""

import tomllib
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = _PROJECT["name"]
release = _PROJECT["version"]
html_title = f"{project} {release}"

extensions = ["myst_parser"]
# The same anchors as where the repository's files are shown.
myst_heading_anchors = 4
highlight_language = "none"
exclude_patterns = ["elasticity/*"]

# Its fonts are the reader's own, and it loads nothing from elsewhere.
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
