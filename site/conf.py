"""Sphinx settings of the site; `make site` builds it."""

project = "MNIST under 8,000 parameters"
author = copyright = "the study's authors"
extensions = ["myst_nb"]
root_doc = "README"
nb_execution_mode = "off"  # the notebooks carry their outputs, which tests compare
nb_merge_streams = True
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]
html_theme = "sphinx_book_theme"
html_title = project
html_show_sphinx = False
html_theme_options = {
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
}
