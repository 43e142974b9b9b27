"""Sphinx settings of the site; `make site` builds it."""

project = "MNIST under 8,000 parameters"
author = copyright = "the study's authors"
extensions = ["myst_nb"]
nb_execution_mode = "off"  # the notebooks carry their outputs, which tests compare
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with tables, which plain Markdown lacks
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_heading_anchors = 3
html_theme = "sphinx_book_theme"
html_title = project
html_show_sphinx = False
html_favicon = "static/icon.svg"
html_context = {"default_mode": "auto"}
html_static_path = ["static"]
html_css_files = ["draw.css"]
html_extra_path = ["../build/site-extra"]
html_theme_options = {
    "navbar_persistent": [],  # the search is in the sidebar
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
