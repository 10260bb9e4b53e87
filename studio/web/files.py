"""The files that the app shows: each is asked for by a job's number and a known word, none by a path."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Literal

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from studio.errors import StudioError
from studio.prompts import slug
from studio.resources import clipart
from studio.web.clients import client_of
from studio.web.drawings import shipped
from studio.web.inspection import PICTURE
from studio.web.live import answer
from studio.web.preset_pictures import preset_picture
from studio.web.request import job_number, tag_named
from studio.web.service import Kind, Service
from studio.web.tagged_jobs import tagged_now
from studio.web.uploads import Uploads
from studio.web.watch import watched_now

_KEEP_S = 3600
_LONGEST_NAME = 80


def add_routes(app: FastAPI, service: Service) -> None:
    """Let the app answer for a job's pictures and assets, and for the presets' pictures."""

    @app.get("/jobs/{number}/{wanted}", include_in_schema=False)
    def job_file(number: int, wanted: str, request: Request) -> Response:
        try:
            job = service.job(number, client_of(request.scope))
            path = service.file(number, wanted, client_of(request.scope))
        except StudioError as error:
            return PlainTextResponse(str(error), 404)
        name = None
        if "download" in request.query_params or wanted == "recipe":
            # A format may have more to it than a suffix: clipart.json.
            ending = path.suffix if wanted in ("recipe", "preview") else f".{wanted}"
            name = f"{slug(job.prompt)}{ending}"
        if wanted == "obj":
            return _with_its_materials(path, slug(job.prompt))
        headers = {"cache-control": f"private, max-age={_KEEP_S if wanted == 'preview' else 0}"}
        return FileResponse(path, filename=name, headers=headers)

    @app.post("/drawings", include_in_schema=False)
    async def drawing(request: Request) -> Response:
        return await kept("drawing", request)

    @app.post("/films", include_in_schema=False)
    async def film(request: Request) -> Response:
        return await kept("film", request)

    @app.post("/starts", include_in_schema=False)
    async def start(request: Request) -> Response:
        return await kept("start", request)

    async def kept(kind: Kind, request: Request) -> Response:
        data, name = await request.body(), request.query_params.get("name", "")
        try:
            called = await run_in_threadpool(service.keep, kind, data, name, client_of(request.scope))
        except StudioError as error:
            return PlainTextResponse(str(error), 400)
        return PlainTextResponse(called)

    @app.get("/films/{called}/picture", include_in_schema=False)
    def film_picture(called: str) -> Response:
        return picture_of(service.films, called)

    @app.get("/starts/{called}/picture", include_in_schema=False)
    def start_picture(called: str) -> Response:
        return picture_of(service.starts, called)

    def picture_of(sent: Uploads, called: str) -> Response:
        try:
            return FileResponse(sent.path(called).with_name(PICTURE))
        except StudioError as error:
            return PlainTextResponse(str(error), 404)

    @app.get("/drawings/{called}/thumbnail", include_in_schema=False)
    def thumbnail(called: str) -> Response:
        if called not in shipped():
            return PlainTextResponse("There is no such drawing.", 404)
        return FileResponse(clipart(called), headers={"cache-control": f"max-age={_KEEP_S}"})

    @app.get("/drawings/{called}/{wanted}", include_in_schema=False)
    def drawing_file(called: str, wanted: Literal["picture", "project"]) -> Response:
        try:
            return FileResponse(service.drawings.file(called, wanted))
        except StudioError as error:
            return PlainTextResponse(str(error), 404)

    @app.post("/batches", include_in_schema=False)
    async def table(request: Request) -> Response:
        data, name = await request.body(), request.query_params.get("name", "")[:_LONGEST_NAME]
        try:
            tag = await run_in_threadpool(
                service.submit_table, data, name or "the table", client_of(request.scope)
            )
        except StudioError as error:
            return PlainTextResponse(str(error), 400)
        return PlainTextResponse(tag)

    @app.get("/batches/{tag}", include_in_schema=False)
    def archive(tag: str, request: Request) -> Response:
        try:
            packed = service.archive(tag, client_of(request.scope))
        except StudioError as error:
            return PlainTextResponse(str(error), 404)
        headers = {"content-disposition": f'attachment; filename="{slug(tag)}.zip"'}
        return StreamingResponse(packed, media_type="application/zip", headers=headers)

    @app.get("/comparisons/{tag}", include_in_schema=False)
    def comparison(tag: str, request: Request) -> Response:
        try:
            return FileResponse(service.comparison(tag, client_of(request.scope)))
        except StudioError as error:
            return PlainTextResponse(str(error), 404)

    @app.get("/watched", include_in_schema=False)
    def what_is_watched(request: Request) -> Response:
        try:
            return answer(request, watched_now(service, job_number(request), client_of(request.scope)))
        except StudioError as error:
            return PlainTextResponse(str(error), 404)

    @app.get("/tagged/{page}", include_in_schema=False)
    def what_is_tagged(page: Literal["batch", "compare"], request: Request) -> Response:
        try:
            return answer(request, tagged_now(service, page, tag_named(request), client_of(request.scope)))
        except StudioError as error:
            return PlainTextResponse(str(error), 404)

    @app.get("/presets/{name}", include_in_schema=False)
    def preset_file(name: str) -> Response:
        path = preset_picture(name) if name in service.options.presets else None
        if path is None:
            return PlainTextResponse("There is no such picture.", 404)
        return FileResponse(path, headers={"cache-control": f"max-age={_KEEP_S}"})


def _with_its_materials(path: Path, name: str) -> Response:
    """An OBJ and the files that it names, in one."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in sorted(path.parent.glob(f"{path.stem}*")):
            if part.suffix in (".obj", ".mtl", ".png"):
                archive.write(part, part.name)
    headers = {"content-disposition": f'attachment; filename="{name}-obj.zip"'}
    return Response(packed.getvalue(), media_type="application/zip", headers=headers)
