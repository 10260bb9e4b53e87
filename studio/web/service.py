"""What a client may do with the jobs of a workspace; pages and programs ask here, and nowhere else."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Literal

from studio.errors import StudioError
from studio.evaluate.compare import recipes_to_compare
from studio.export.formats import FORMATS, asset_paths
from studio.jobs.disk import shortage
from studio.jobs.queue import OVER, Job, Queue, State
from studio.prompts import slug
from studio.recipes.config import AssetFormat, Recipe
from studio.run.folder import RECIPE, latest_preview
from studio.video import SUFFIXES as FILM_SUFFIXES
from studio.web.clients import RateLimit
from studio.web.drawings import Drawings
from studio.web.forms import Form
from studio.web.inspection import START_SUFFIXES
from studio.web.options import Options
from studio.web.packing import pack
from studio.web.tables import recipes_of
from studio.web.uploads import NAME, Look, Uploads

Action = Literal["cancel", "pause", "resume", "retry"]
Kind = Literal["drawing", "film", "start"]
"""Of file that a browser may send."""
_LONGEST_S = 900.0
_SUBMISSIONS_A_MINUTE = 30
_EXPORTS_A_MINUTE = 10
_UPLOADS_A_MINUTE = 20
_TIDY_EVERY_S = 3600.0
_LONGEST_LOOK_S = 60.0
"""At a file that came."""


class Service:
    """The jobs of a workspace, each client's own ones.

    Another's job looks like one that is not there, unless the queue is shared: then all may be looked at, and
    still only one's own be touched.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.queue = Queue(options.workspace.absolute(), most_waiting=options.most_waiting)
        self._submissions = RateLimit(_SUBMISSIONS_A_MINUTE, 60.0, "submissions")
        self._exports = RateLimit(_EXPORTS_A_MINUTE, 60.0, "exports")
        self._uploads = RateLimit(_UPLOADS_A_MINUTE, 60.0, "files")
        self._busy = threading.Lock()
        self._tidy_at = 0.0
        folder = self.queue.workspace
        self.drawings = Drawings(folder / "drawings", self._looked_at("drawing"))
        self.films = Uploads(folder / "films", "video", FILM_SUFFIXES, self._looked_at("film"))
        self.starts = Uploads(folder / "starts", "file", START_SUFFIXES, self._looked_at("start"))

    # --------------------------------------------------------------------------------------------- looking

    def job(self, number: int, client: str | None) -> Job:
        """One job.

        Raises:
            StudioError: there is none that this client may see.
        """
        job = self.queue.job(number)
        if job.client != client and not self.options.shared_queue:
            raise StudioError(f"There is no job {number} of yours.")
        return job

    def recipe(self, number: int, client: str | None) -> Recipe:
        """What a job makes.

        Raises:
            StudioError: as ``job``.
        """
        return self.queue.recipe(self.job(number, client).id)

    def jobs(
        self,
        client: str | None,
        words: str = "",
        tag: str | None = None,
        others_too: bool = False,
        most: int = 60,
        skip: int = 0,
    ) -> list[Job]:
        """The jobs that a client may see, those that are not over first.

        Args:
            words: that the prompt contains.
            tag: that they have.
            others_too: also those of others, where the queue is shared.
            most, skip: a page of the list.
        """
        if others_too and self.options.shared_queue:
            return self.queue.jobs(words=words, tag=tag, most=most, skip=skip)
        if client is None:
            return []
        return self.queue.jobs(client=client, words=words, tag=tag, most=most, skip=skip)

    def tags(self, client: str | None) -> list[str]:
        """The tags of a client's jobs, the newest first."""
        return [] if client is None else self.queue.tags(client)

    def tagged(self, tag: str, client: str | None) -> list[Job]:
        """All jobs of a client that have a tag, in the order in which they were submitted.

        Raises:
            StudioError: there are none.
        """
        jobs = self.jobs(client, tag=tag, most=-1)
        if not jobs:
            raise StudioError(f"No job of yours has the tag {slug(tag)!r}.")
        return sorted(jobs, key=lambda job: job.id)

    def file(self, number: int, wanted: str, client: str | None) -> Path:
        """A file of a job's run: one of the asset's formats, ``preview``, or a whole recipe.

        Raises:
            StudioError: no such job or kind of file, or it is not there.
        """
        folder = self.job(number, client).folder
        if wanted == "preview":
            found = latest_preview(folder)
        elif wanted == "recipe":
            found = folder / RECIPE
        else:
            (found,) = asset_paths(folder / "assets", [_format(wanted)])
        # A link that somebody put into a run leads nowhere.
        if found is None or not found.is_file() or not found.resolve().is_relative_to(folder.resolve()):
            raise StudioError(f"Job {number} has no {wanted} yet.")
        return found

    def formats(self, job: Job) -> tuple[AssetFormat, ...]:
        """The formats that a job's asset is there in."""
        return tuple(name for name in FORMATS if asset_paths(job.folder / "assets", [name])[0].is_file())

    # ---------------------------------------------------------------------------------------------- acting

    def submit(self, form: Form, client: str | None) -> Job:
        """Put what a form asks for at the end of the queue.

        Raises:
            StudioError: a field does not fit, it is too soon, or too many jobs of this client's wait.
        """
        return self.submit_all([form.recipe(self.options)], client)[0]

    def submit_table(self, data: bytes, name: str, client: str | None) -> str:
        """Put every row of a CSV file into the queue, or none; returns the tag that the jobs have in common.

        Raises:
            StudioError: a row does not fit, or as ``submit``.
        """
        tag = f"batch-{slug(Path(name).stem)[:30]}-{secrets.token_hex(2)}"
        self.submit_all(recipes_of(data, name, self.options), client, [tag])
        return tag

    def compare(self, form: Form, methods: Sequence[str], client: str | None) -> str:
        """Put a run for each guidance method into the queue; returns the tag that they have in common.

        Raises:
            StudioError: there are fewer than two methods, or as ``submit``.
        """
        methods = list(dict.fromkeys(methods))
        if len(methods) < 2:
            raise StudioError(f"{len(methods)} methods are chosen; expected two or more.")
        tag = f"compare-{slug(form.prompt)[:30]}-{secrets.token_hex(2)}"
        self.submit_all(recipes_to_compare(form.recipe(self.options), methods), client, [tag])
        return tag

    def comparison(self, tag: str, client: str | None) -> Path:
        """The page that shows a tag's runs side by side, written now if it is not there.

        Raises:
            StudioError: there are none, some are not over, or it is too soon.
        """
        jobs = self.tagged(tag, client)
        path = self.queue.workspace / "comparisons" / f"{slug(tag)}.html"
        if not path.is_file():
            left = sum(job.state not in OVER for job in jobs)
            folders = [job.folder for job in jobs if job.folder.is_dir()]
            if left or not folders:
                raise StudioError(f"{left} of {len(jobs)} runs are not over; wait for them, or cancel them.")
            self._exports.take(jobs[0].client)
            self._elsewhere("Writing the page", "studio.web.comparison_page", path, *folders)
        return path

    def again(self, number: int, client: str | None, other_seed: bool) -> Job:
        """Make the same once more, from another seed if wished.

        Raises:
            StudioError: as ``job`` and ``submit``.
        """
        recipe = self.recipe(number, client)
        if other_seed:
            recipe = replace(recipe, seed=secrets.randbelow(2**31))
        return self.submit_all([recipe], client)[0]

    def archive(self, tag: str, client: str | None) -> IO[bytes]:
        """What all jobs with a tag have made so far, as a zip file.

        Raises:
            StudioError: as ``tagged``, or it is too soon.
        """
        jobs = self.tagged(tag, client)
        self._exports.take(jobs[0].client)
        return pack(jobs)

    def act(self, action: Action, number: int, client: str | None) -> Job:
        """Cancel, pause, resume or retry a job.

        Raises:
            StudioError: it is not this client's, or in no state for that.
        """
        number = self._own(number, client).id
        match action:
            case "cancel":
                return self.queue.cancel(number)
            case "pause":
                return self.queue.pause(number)
            case "resume":
                return self.queue.resume(number)
            case "retry":
                return self.queue.retry(number)

    def tag(self, number: int, words: str, client: str | None) -> Job:
        """Give a job the tags that stand in a text with commas between.

        Raises:
            StudioError: it is not this client's, or there are too many.
        """
        tags = [word for word in words.split(",") if word.strip()]
        return self.queue.tag(self._own(number, client).id, tags)

    def delete(self, number: int, client: str | None) -> None:
        """Forget a job that is over, and remove its run.

        Raises:
            StudioError: it is not this client's, or not over.
        """
        job = self._own(number, client)
        self.queue.delete(number)
        shutil.rmtree(job.folder, ignore_errors=True)

    def export(self, number: int, wanted: str, client: str | None) -> Path:
        """A job's asset in a format, written now if it is not there: by another process, one at a time.

        Raises:
            StudioError: no such job or format, it has not begun, it is too soon, or the scene cannot be
                written so.
        """
        job = self._own(number, client)
        (path,) = asset_paths(job.folder / "assets", [_format(wanted)])
        if path.is_file():
            return path
        if job.state is State.RUNNING or not job.folder.is_dir():
            raise StudioError(f"Job {number} is {job.state.value}; expected one that is over or paused.")
        self._exports.take(job.client)
        self._elsewhere(f"Writing .{wanted}", "studio.cli", "export", job.folder, path)
        return path

    def keep(self, kind: Kind, data: bytes, name: str, client: str | None) -> str:
        """Keep a drawing to be animated, a video to be followed or what begins to move; returns what it is
        called from now on.

        Raises:
            StudioError: it is none, or it is too soon.
        """
        self._uploads.take(_known(client))
        if (reason := shortage(self.queue.workspace)) is not None:
            raise StudioError(f"{reason} Whoever runs the server has to make room.")
        self._tidy()
        match kind:
            case "drawing":
                return self.drawings.keep(data, name)
            case "film":
                return self.films.keep(data, name)
            case "start":
                return self.starts.keep(data, name)

    def _tidy(self) -> None:
        """Let go of uploads that no job names, now and then; a job's stay until it is deleted: its run may be
        resumed, exported or made again.
        """
        if time.monotonic() < self._tidy_at:
            return
        self._tidy_at = time.monotonic() + _TIDY_EVERY_S
        named = self.queue.mentioned(NAME)
        self.drawings.tidy(named)
        self.films.tidy(named)
        self.starts.tidy(named)

    def _looked_at(self, kind: Kind) -> Look:
        def look(file: Path, folder: Path) -> None:
            words = kind, file, folder
            self._elsewhere(
                f"Looking at the {kind}", "studio.web.inspection", *words, longest_s=_LONGEST_LOOK_S
            )

        return look

    def _elsewhere(self, what: str, module: str, *words: str | Path, longest_s: float = _LONGEST_S) -> None:
        """Let another process do what takes long, one at a time; no word of its command is a client's."""
        command = [sys.executable, "-m", module, *map(str, words)]
        with self._busy:
            try:
                done = subprocess.run(  # noqa: S603  (our own program)
                    command, capture_output=True, text=True, timeout=longest_s, check=False
                )
            except subprocess.TimeoutExpired as error:
                raise StudioError(f"{what} took over {longest_s:g} s; it was ended.") from error
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it gave no reason"]
            raise StudioError(f"{what} failed: {said[-1].removeprefix('studio: ')}")

    def submit_all(
        self, recipes: Sequence[Recipe], client: str | None, tags: Sequence[str] = ()
    ) -> list[Job]:
        """Put recipes at the end of the queue, all or none.

        Raises:
            StudioError: nobody has said whose they are, it is too soon, or too many would wait.
        """
        client = _known(client)
        self._submissions.take(client)
        return self.queue.submit(recipes, client, tags)

    def _own(self, number: int, client: str | None) -> Job:
        job = self.job(number, client)
        if job.client != client:
            raise StudioError(f"Job {number} is somebody else's; it can only be looked at.")
        return job


def _known(client: str | None) -> str:
    if client is None:
        raise StudioError(
            "A job needs somebody whose it is: send a header X-Studio-Client with a secret of your own, "
            "22 letters and digits or more."
        )
    return client


def _format(wanted: str) -> AssetFormat:
    for known in FORMATS:
        if wanted == known:
            return known
    raise StudioError(f"There is no format {wanted[:20]!r}; expected one of {', '.join(FORMATS)}.")
