"""Configuration of the documentation site: `make docs` builds it offline from the pages, the docstrings, the commands and the demo run."""

import importlib
import os
import sys
from pathlib import Path

from nbclient import NotebookClient

from ontogeny import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
build_pages = importlib.import_module("build_pages")

project, author, release = "Ontogeny", "The Ontogeny developers", __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
]
exclude_patterns = ["_build", "**/.ipynb_checkpoints", "conf.py"]
html_theme = "pydata_sphinx_theme"
html_title = "Ontogeny"
html_static_path = ["_static"]
html_css_files = ["ontogeny.css"]
html_theme_options = {
    "show_nav_level": 1,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_context = {"default_mode": "auto"}
html_sidebars = {"_generated/gallery": []}  # it is a section of one page
html_show_sourcelink = False
add_module_names = False  # names are imported from `ontogeny`, wherever they are defined
copyright = "the Ontogeny developers, Apache-2.0"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# GitHub's links to files beside docs/ (CONTRIBUTING.md, src/…) leave the site; the tests of the pages check that they exist.
suppress_warnings = ["myst.xref_missing", "myst.header", "misc.highlighting_failure", "mystnb.unknown_mime_type"]

nb_execution_mode = "force" if os.environ.get("ONTOGENY_DEMO") else "off"
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 180
nb_merge_streams = True

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_mock_imports: list[str] = []
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# Kernels draw charts as SVG: Altair's own output loads scripts from another host.
STARTUP = HERE / "_generated/ipython/profile_default/startup"
STARTUP.mkdir(parents=True, exist_ok=True)
(STARTUP / "charts.py").write_text(
    "import warnings\nwarnings.filterwarnings('ignore', module='tqdm')\nimport altair\naltair.renderers.enable('svg')\n"
)
NotebookClient.startup_timeout = 600  # seconds, on a busy machine
os.environ["IPYTHONDIR"] = str(STARTUP.parents[1])

build_pages.write(HERE / "_generated", run=os.environ.get("ONTOGENY_DEMO"))
