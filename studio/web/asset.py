"""The Asset page: what a finished job has made, to be turned, downloaded and made again."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from studio.export.formats import FORMATS
from studio.recipes.config import AssetFormat, ClipartConfig
from studio.recipes.load import to_toml
from studio.run.session import Run
from studio.web import markup
from studio.web.request import GO_AND_WATCH, client_of, job_number, told
from studio.web.service import Service


def page(service: Service, blocks: gr.Blocks) -> None:
    """The components of the page and what they do; its address says which job it shows."""
    title = gr.HTML(elem_id="title")
    with gr.Row():
        mesh = gr.Model3D(label="Mesh", interactive=False, height=360, min_width=280)
        splats = gr.Model3D(label="Splats", interactive=False, height=360, min_width=280)
    pictures = gr.HTML()
    downloads = gr.HTML(elem_id="downloads")
    with gr.Row():
        wanted = gr.Dropdown(list(FORMATS), value="obj", label="Another format", elem_id="format")
        make = gr.Button("Make it", elem_id="make")
    with gr.Row():
        again = gr.Button("Run again")
        vary = gr.Button("Vary the seed")
        tags = gr.Textbox(
            label="Tags", placeholder="with commas between", max_length=300, submit_btn="Keep", elem_id="tags"
        )
    number = gr.Number(visible=False)
    with gr.Accordion("Figures", open=False):
        figures = gr.HTML()
    with gr.Accordion("Recipe", open=False):
        recipe = gr.Code(language=None, interactive=False, elem_id="recipe")
    shown = [title, mesh, splats, pictures, downloads, figures, recipe, tags]

    def show(request: gr.Request) -> tuple[Any, ...]:
        client, asked = client_of(request), job_number(request)
        with told():
            if asked is None:
                jobs = service.jobs(client, others_too=True)
                return markup.cards(jobs, "asset", "Nothing is made yet."), None, None, "", "", "", "", ""
            job = service.job(asked, client)
            asked_for = service.recipe(asked, client)
        is_solid = not isinstance(asked_for.stages[-1].scene, ClipartConfig)
        here = service.formats(job)

        def copy(*names: AssetFormat) -> str | None:
            """The first of these files, put where the viewer may read it: under its digest."""
            found = next((name for name in names if name in here), None)
            if found is None:
                return None
            path: str = save_file_to_cache(service.file(asked, found, client), mesh.GRADIO_CACHE)
            return path

        return (
            markup.title(job),
            gr.Model3D(copy("glb"), visible=is_solid),
            gr.Model3D(copy("ply", "splat"), visible=is_solid),
            markup.pictures(job, here),
            markup.downloads(job, here),
            markup.figures(Run.open(job.folder).metrics() if here else {}),
            to_toml(asked_for),
            ", ".join(job.tags),
        )

    def made(name: str, request: gr.Request) -> None:
        with told():
            service.export(job_number(request) or 0, name, client_of(request))

    def kept(words: str, request: gr.Request) -> str:
        with told():
            return ", ".join(service.tag(job_number(request) or 0, words, client_of(request)).tags)

    tags.submit(kept, tags, tags, api_visibility="private", show_progress="hidden")

    def repeated(other_seed: bool) -> Any:
        def repeat(request: gr.Request) -> int:
            with told():
                return service.again(job_number(request) or 0, client_of(request), other_seed).id

        return repeat

    make.click(made, wanted, None, api_visibility="private", concurrency_limit=1).success(
        show, None, shown, api_visibility="private"
    )
    for button, other_seed in ((again, False), (vary, True)):
        button.click(repeated(other_seed), None, number, api_visibility="private").success(
            None, number, None, js=GO_AND_WATCH
        )
    blocks.load(show, None, shown, api_visibility="private", show_progress="hidden")
