"""The page that Gradio serves: one component, which loads the stage and its panels from /studio/static."""

from __future__ import annotations

import gradio as gr

from studio.api import add_api
from studio.routes import Studio

__all__ = ["build_page"]

LOADER = """
import("/studio/static/main.js".replace(/^\\//, new URL(document.baseURI).pathname.replace(/[^/]*$/, "")))
    .then((main) => main.start(element.querySelector("#studio")))
    .catch((error) => { element.querySelector("#studio").textContent = "The page could not be loaded: " + error; });
"""
# the component takes the whole window, and Gradio's own frame around it goes
STYLE = """
html, body, gradio-app { height: 100%; margin: 0; }
footer { display: none !important; }
#studio { position: fixed; inset: 0; }
"""


def build_page(studio: Studio) -> gr.Blocks:
    """The Blocks with the component and the endpoints for programs in it."""
    with gr.Blocks(title="Studio", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(
            html_template='<div id="studio"></div>',
            js_on_load=LOADER,
            apply_default_css=False,
            elem_id="studio-component",
        )
        add_api(studio)
    return page
