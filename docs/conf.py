"""How Sphinx builds the site: `nox -s docs`. Nothing is fetched from anywhere meanwhile.

The theme is furo: it is made for reading, follows light and dark, fits a phone, and brings its few
files along; pydata-sphinx-theme wants Bootstrap and a navigation bar for sites larger than this.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject  # type: ignore[attr-defined]
from sphinx.environment import BuildEnvironment

import precisionbench

ROOT = Path(__file__).parents[1]
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
nitpicky = True
# Names of other libraries: their pages are not asked, so that a build needs no network.
nitpick_ignore_regex = [
    ("py:.*", r"(?!precisionbench).*"),
    ("py:class", r"precisionbench\..*\.[A-Z]"),  # type variables
]

myst_heading_anchors = 4  # links to headings work as on a code host

default_role = "code"
add_module_names = False
python_maximum_signature_line_length = 88
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True

for field in PyObject.doc_field_types:
    if field.name == "variable":
        field.label = "Attributes"  # as the docstrings call them

html_theme = "furo"
html_title = f"precisionbench {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_sourcelink = html_copy_source = False
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}
pygments_dark_style = "monokai"

# Pages that list their folder: a code host shows the list, here it is the navigation as well.
LISTS = ("causes/README", "tutorials/README", "how-to/README", "case-studies/README")


def with_navigation(_: Sphinx, name: str, source: list[str]) -> None:
    """Append to a page that lists its folder what Sphinx needs for the navigation, in its order."""
    pages = re.findall(r"\]\(([\w-]+)\.md\)", source[0]) if name in LISTS else []
    if pages:
        source[0] += "\n\n" + "\n".join(["```{toctree}", ":hidden:", "", *pages, "```", ""])


def with_root_page(_: Sphinx, __: str, source: list[str]) -> None:
    """Put a page from the repository's root in place of its `include`, with links of the site."""
    source[0] = re.sub(
        r"```\{include\} \.\./(\w+\.md)\n```",
        lambda match: with_links_of_the_site((ROOT / match[1]).read_text(encoding="utf-8")),
        source[0],
    )


def with_links_of_the_site(page: str) -> str:
    """Turn links of the root to `docs/` into links within it; what is elsewhere loses its link."""
    elsewhere = r"\[([^\]]+)\]\((?!docs/|https?:|#)[^)]+\)"
    return re.sub(elsewhere, r"\1", page).replace("](docs/", "](")


def with_options_as_code(_: Sphinx, __: Any, lines: list[str]) -> None:
    """Show `--option` in a command's help as code; in a sentence two dashes become a long one."""
    lines[:] = [
        line if ".. " in line else re.sub(r"(?<![\w`-])--[a-z][a-z-]*", r"``\g<0>``", line)
        for line in lines
    ]


def with_example_as_code(_: Sphinx, __: Any, lines: list[str]) -> None:
    """Show the command under `Example:` in a command's help as code."""
    if "| Example:" in lines:
        start = lines.index("| Example:")
        end = next(
            (n for n in range(start, len(lines)) if not lines[n].startswith("|")), len(lines)
        )
        example = [line.removeprefix("|") for line in lines[start + 1 : end]]
        lines[start:end] = ["Example:", "", ".. code-block:: sh", "", *example, ""]


def by_short_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Any) -> Any:
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
        env, node["refdoc"], app.builder, node["reftype"], node["reftarget"], node, content
    )


def setup(app: Sphinx) -> None:
    """Connect these to the build."""
    app.connect("source-read", with_navigation)
    app.connect("source-read", with_root_page)
    app.connect("sphinx-click-process-description", with_example_as_code)
    app.connect("sphinx-click-process-options", with_options_as_code)
    app.connect("missing-reference", by_short_name)
