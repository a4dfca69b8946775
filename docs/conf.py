"""Sphinx configuration."""

from importlib.metadata import version as installed_version

project = "rmr_gym"
author = copyright = "the rmr_gym authors"
release = version = installed_version("rmr-gym")
extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
sphinx_gallery_conf = {
    "examples_dirs": "../examples/tutorials",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"\.py",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "write_computation_times": False,
    "show_signature": False,
    "download_all_examples": False,
}
apidoc_modules = [{"path": "../rmr_gym", "destination": "api"}]
apidoc_separate_modules = apidoc_module_first = True
apidoc_automodule_options = {"members", "show-inheritance"}
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_custom_sections = ["Source", "Differs"]
default_role = "literal"
html_theme = "furo"
html_title = "rmr_gym"
exclude_patterns = ["_build", "api/modules.rst"]
