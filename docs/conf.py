"""How Sphinx builds the site: `nox -s docs`. Nothing is fetched from anywhere meanwhile.

The theme is furo: it is made for reading, follows light and dark, fits a phone, and brings its few
files along; pydata-sphinx-theme wants Bootstrap and a navigation bar for sites larger than this.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import precisionbench

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples/precisionbench-float64/src"))

project = "precisionbench"
author = "The precisionbench authors"
project_copyright = "The precisionbench authors, MIT licence"
version = release = precisionbench.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_click",
]
exclude_patterns = ["images/*.md"]
nitpicky = True
# Names of other libraries: their pages are not asked, so that a build needs no network.
nitpick_ignore_regex = [("py:.*", r"(?!precisionbench).*")]

myst_heading_anchors = 4  # links to headings work as on a code host
myst_enable_extensions = ["attrs_block"]

default_role = "code"
add_module_names = False
python_maximum_signature_line_length = 88
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"precisionbench {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"

# Pages that list their folder: a code host shows the list, here it is the navigation as well.
LISTS = ("causes/README", "tutorials/README", "how-to/README", "case-studies/README")


def with_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Append to a page that lists its folder what Sphinx needs for the navigation."""
    if name in LISTS:
        pages = sorted(page.stem for page in (app.srcdir / name).parent.glob("*.md"))
        pages.remove("README")
        source[0] += "\n\n" + "\n".join(["```{toctree}", ":hidden:", "", *pages, "```", ""])


def by_short_name(_: Sphinx, env: BuildEnvironment, node: pending_xref, content: Any) -> Any:
    """Find `SpecError`, as docstrings write it, where only one public name ends so."""
    domain = env.domains.python_domain
    target = node.get("reftarget", "").rpartition(".")[2]
    names = {
        entry.node_id: name
        for name, entry in domain.objects.items()
        if name.rpartition(".")[2] == target and not entry.aliased
    }
    if node.get("refdomain") != "py" or len(names) != 1:
        return None
    node["reftarget"] = next(iter(names.values()))
    return domain.resolve_xref(
        env, node["refdoc"], env.app.builder, node["reftype"], node["reftarget"], node, content
    )


def setup(app: Sphinx) -> None:
    """Connect both to the build."""
    app.connect("source-read", with_navigation)
    app.connect("missing-reference", by_short_name)
