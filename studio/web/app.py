"""The app: its pages, its endpoints for programs, and the server that shows them."""

from __future__ import annotations

import ipaddress
import os
import warnings
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from studio.errors import StudioError
from studio.web import animate, api, asset, batch, compare, create, files, gallery, moving, watch
from studio.web.clients import Gate
from studio.web.options import Options
from studio.web.polling import look_seldom
from studio.web.service import Service

_PAGES = {
    "Animate": animate.page,
    "4D": moving.page,
    "Watch": watch.page,
    "Asset": asset.page,
    "Gallery": gallery.page,
    "Batch": batch.page,
    "Compare": compare.page,
}
"""Beside Create, by what the navigation calls them."""
_GOODBYE_S = 2
"""Pages that are open listen for as long as there is a server; it does not wait for them."""
_HEAD = "<script>Object.defineProperty(navigator, 'gpu', {value: undefined});</script>"
"""The model viewer gives up where WebGPU only seems to be there; every browser has WebGL."""
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


def serve(options: Options) -> None:
    """Show the app until stopped with Ctrl-C.

    Raises:
        StudioError: the workspace cannot be written to, or open to the network without passwords.
    """
    config = uvicorn.Config(
        build(options),
        options.host,
        options.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GOODBYE_S,
    )
    print(f"Studio is on http://{options.host}:{options.port}{options.root_path}", flush=True)
    uvicorn.Server(config).run()


def build(options: Options) -> ASGIApp:
    """The whole app behind its gate.

    Raises:
        StudioError: as ``serve``.
    """
    if options.passwords is None and not _is_loopback(options.host):
        raise StudioError(
            f"The app would be open to everyone who reaches {options.host}; expected passwords: --auth FILE."
        )
    service = Service(options)
    # Gradio's own files stay in the workspace, and it tells nobody of us.
    os.environ["GRADIO_TEMP_DIR"] = str(service.queue.workspace / "web")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    app = FastAPI(openapi_url=None)
    files.add_routes(app, service)
    # It warns of what it does not do and was not asked for.
    warnings.filterwarnings("ignore", "SSR mode is not supported")
    gr.mount_gradio_app(
        app,
        _blocks(service),
        path="/",
        root_path=options.root_path or None,
        footer_links=["api"],
        run_history=False,
        show_error=True,
        max_file_size="1kb",
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=_theme(),
        head=_HEAD,
        css_paths=Path(__file__).with_name("style.css"),
    )
    hosts = None if options.root_path or not _is_loopback(options.host) else _LOOPBACK
    return Gate(app, options.passwords, hosts)


def _blocks(service: Service) -> gr.Blocks:
    with gr.Blocks(title="Studio", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as blocks:
        gr.Navbar(main_page_name="Create")
        create.page(service, blocks)
        api.endpoints(service)
    for name, page in _PAGES.items():
        with blocks.route(name) as inner:
            gr.Navbar(main_page_name="Create")
            page(service, inner)
    blocks.queue(max_size=200, default_concurrency_limit=8)
    look_seldom(blocks)
    return blocks


def _theme() -> gr.themes.Base:
    """Fonts that are there, and words that stand out from what is behind them by 4.5 to 1 or more."""
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
