"""What can be typed after ``studio``: every command is a frozen dataclass whose docstrings are its help."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg, subcommand

from studio.errors import StudioError
from studio.priors.training.config import EvaluateConfig, RenderDataConfig, TrainConfig
from studio.recipes.config import MotionName
from studio.recipes.project import Project, read_project
from studio.run.asked import Asked, project_lines, quoted, skeleton_lines

ANICLIPART = "aniclipart"

RunFolder = Annotated[Positional[Path], arg(metavar="RUN", help="The run's folder.")]
PriorName = Annotated[str, arg(metavar="auto|library|small|FOLDER|HUB-ID")]
OtherPrior = Annotated[str | None, arg(metavar="auto|library|small|FOLDER|HUB-ID")]
Steps = Annotated[int | None, arg(metavar="N", help="How many steps, instead of the preset's.")]
Overrides = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUE")]
Offline = Annotated[bool, arg(help="Never use the network: only what is on this machine.")]
Workspace = Annotated[Path, arg(metavar="FOLDER", help="The folder of the queue and its runs.")]


@dataclass(frozen=True)
class OnePrompt:
    """What every command that makes one prompt is told."""

    prompt: Annotated[Positional[str], arg(metavar="PROMPT")]
    """What to make, such as "a teddy bear"."""
    preset: str = "default"
    """A preset ("studio presets list") or the path of a recipe."""
    prior: OtherPrior = None
    """Instead of the preset's: the best that this machine can run, the exact prior, the learned one, a folder
    of your own models or of a diffusers model, or a hub id."""
    steps: Steps = None
    seed: Annotated[int | None, arg(metavar="N")] = None
    """Another seed gives another asset."""
    set: Overrides = ()
    """Any other key of the recipe, such as stages.0.cameras.views_per_step=8; may be given again."""

    def asked(self) -> Asked:
        """The same for the studio's other parts."""
        return Asked(
            self.prompt, self.preset, prior=self.prior, steps=self.steps, seed=self.seed, overrides=self.set
        )


@dataclass(frozen=True)
class OneRun(OnePrompt):
    """What every command that takes one run from its beginning is told."""

    output: Path = Path("runs")
    """Where the run's own folder is made."""
    dry_run: bool = False
    """Print the resolved recipe and the predicted time and memory, and stop."""
    offline: Offline = False


@dataclass(frozen=True)
class Generate(OneRun):
    """Turn a prompt into an asset."""

    video: Annotated[Path | None, arg(metavar="VIDEO")] = None
    """How it moves, filmed from the front before a transparent or plain background: a video file or a folder
    of pictures, for presets such as pla4d-draft."""
    asset: Annotated[Path | None, arg(metavar="FILE")] = None
    """What moves, instead of the still stages of such a preset: a .ply of splats, or a .glb, .obj or .stl."""
    image: Annotated[Path | None, arg(metavar="PICTURE")] = None
    """What the object looks like, for priors that are told a picture, such as zero123's."""
    meshes: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Experimental: a mesh of each frame (.glb, .obj, .ply or .stl), such as an image-to-mesh model makes, to
    which what moves is drawn too."""
    refine: Annotated[int | None, arg(metavar="N")] = None
    """Experimental: so many steps more at the end, in which pictures follow what the prior makes of them."""

    def asked(self) -> Asked:
        """The same for the studio's other parts."""
        return replace(
            super().asked(),
            video=self.video,
            asset=self.asset,
            image=self.image,
            meshes=self.meshes,
            refine=self.refine,
        )


@dataclass(frozen=True)
class OneDrawing:
    """What is told before the prompt."""

    image: Annotated[Positional[str], arg(metavar="IMAGE")]
    """An SVG, PNG or WebP file, a drawing that ships with the studio, such as "crab", or a project
    (clipart.json)."""


@dataclass(frozen=True)
class Animate(OneRun, OneDrawing):
    """Set a drawing in motion, as a prompt such as "the crab is dancing" says, or as a video shows."""

    prompt: Annotated[Positional[str], arg(metavar="PROMPT")] = ""
    """How it moves, such as "the crab is dancing". It may be left out with --reference."""
    preset: str = ANICLIPART
    """A preset of clipart, or the path of a recipe; with --reference, "reference"."""
    reference: Annotated[Path | None, arg(metavar="VIDEO")] = None
    """A video to follow, instead of a prompt: the drawing in motion, where it is in the studio's canvas. It
    begins at rest."""
    motion_strength: Annotated[float | None, arg(metavar="S")] = None
    """How far it moves: 0.5 is half as far as usual."""
    keypoints: Annotated[Path | None, arg(metavar="FILE")] = None
    """A project, or any JSON file with "keypoints" and "bones", from which only these are taken; or an SVG of
    circles at the keypoints, on a page like the drawing's, and of lines between them."""

    def asked(self) -> Asked:
        """The same for the studio's other parts.

        Raises:
            StudioError: a project cannot be read, or names no drawing.
        """
        image = self.image
        lines: tuple[str, ...] = ()
        if image.lower().endswith(".json"):
            project = read_project(Path(image))
            if not project.drawing or self.keypoints is not None:
                wrong = "has keypoints of its own" if project.drawing else "names no drawing"
                raise StudioError(f"{image} {wrong}; try: studio animate DRAWING PROMPT --keypoints FILE")
            image, lines = project.drawing, project_lines(project)
        elif self.keypoints is not None:
            lines = skeleton_lines(_skeleton(self.keypoints, image))
        asked = super().asked()
        lines = (f"stages.0.scene.path={quoted(image)}", *lines)
        if self.reference is not None:
            prompt = self.prompt or f"{Path(image).stem} as in {self.reference.stem}"
            preset = "reference" if self.preset == ANICLIPART else self.preset
            asked = replace(asked, prompt=prompt, preset=preset)
            lines += (f"stages.0.guidance.0.method.target.path={quoted(str(self.reference))}",)
        lines += asked.overrides
        return replace(asked, motion_strength=self.motion_strength, overrides=lines)


def _skeleton(file: Path, image: str) -> Project:
    """The keypoints and bones in a file, for a drawing."""
    if file.suffix.lower() != ".svg":
        return read_project(file)
    # Here, as what reads drawings loads torch, and no other command has need of it to be understood.
    from studio.clipart.markers import read_markers
    from studio.scenes.clipart import drawing_file

    markers = read_markers(file, drawing_file(image))
    return Project(keypoints=markers.keypoints, bones=markers.bones)


@dataclass(frozen=True)
class Resume:
    """Go on with a run that was stopped."""

    run: RunFolder
    offline: Offline = False


@dataclass(frozen=True)
class Compare:
    """Set guidance methods side by side: a run for each, then one HTML page."""

    prompts: Annotated[Positional[tuple[str, ...]], arg(metavar="PROMPT")]
    """What to make, such as "a teddy bear" "a chair"."""
    methods: Annotated[str, arg(metavar="all|A,B,...")] = "all"
    """Which methods, such as sds,vsd,ism."""
    preset: str = "draft"
    """What they share: a preset ("studio presets list") or the path of a recipe."""
    prior: OtherPrior = None
    """Instead of the preset's, as for "studio generate"."""
    seeds: Annotated[int, arg(metavar="N")] = 1
    """How many seeds, counted up from the preset's."""
    steps: Steps = None
    cfg_scale: Annotated[str | None, arg(metavar="S[,S...]")] = None
    """Classifier-free guidance of all methods that have it; a run for each value. By default the preset's for
    the exact prior and the learned one, and each method's own for others."""
    clip: Annotated[str | None, arg(metavar="FOLDER|HUB-ID")] = None
    """A CLIP network on this machine that scores the results. By default a usual one, if the hub's cache has
    it; nothing is downloaded."""
    output: Path = Path("comparison")
    """The folder of the page and the runs; what is finished there is not taken again."""
    set: Overrides = ()
    """Any other key of the recipe but the method's own; may be given again."""
    offline: Offline = False


@dataclass(frozen=True)
class Export:
    """Write a run's asset to files of your choice."""

    run: RunFolder
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE")]
    """What to write, such as bear.glb bear.spz turn.gif: the suffix says the format."""


@dataclass(frozen=True)
class Render:
    """Draw a run's scene, or a mesh, from one side."""

    source: Annotated[Positional[Path], arg(metavar="RUN|MESH")]
    """A run's folder, or a .glb, .obj, .ply or .stl mesh."""
    output: Path = Path("render.png")
    """The picture to write."""
    azimuth: float = 30.0
    """Degrees, counter-clockwise seen from above; 0 is the front."""
    elevation: float = 15.0
    """Degrees above the horizon."""
    size: int = 512
    """Width and height in pixels."""


@dataclass(frozen=True)
class PresetsList:
    """Name the presets."""


@dataclass(frozen=True)
class PresetsShow:
    """Print a preset with every key that can be set."""

    preset: Annotated[Positional[str], arg(metavar="PRESET")] = "default"
    """Its name, or the path of a recipe."""


PresetsCommand = (
    Annotated[PresetsList, subcommand(name="list")] | Annotated[PresetsShow, subcommand(name="show")]
)


@dataclass(frozen=True)
class Presets:
    """The recipes that ship with the studio."""

    command: PresetsCommand


@dataclass(frozen=True)
class PriorInfo:
    """Say what a prior is and where it comes from."""

    prior: Annotated[Positional[PriorName], arg(metavar="PRIOR")] = "auto"
    """auto, library, small, a folder or a hub id."""
    offline: Offline = False


@dataclass(frozen=True)
class PriorVocab:
    """List the names that the exact prior knows, or say how it reads a prompt."""

    models: Path | None = None
    """A folder of your own captioned models, instead of the catalogue."""
    prompt: Annotated[str | None, arg(metavar="TEXT")] = None
    """Say which models this prompt means, instead."""


@dataclass(frozen=True)
class PriorBuildCatalogue:
    """Build the exact prior's catalogue from furniture libraries (.sh3f files)."""

    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    """A folder that holds the libraries, at any depth."""
    catalogue: Annotated[Positional[Path], arg(metavar="CATALOGUE")]
    """The folder to write; its selection.csv says which models to take."""
    workers: int = 2
    """Processes."""


@dataclass(frozen=True)
class PriorRenderData:
    """Draw the pictures that the learned prior trains on."""

    output: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """The folder to write."""
    models: Path | None = None
    """A folder of your own captioned models, instead of the catalogue."""
    only: Path | None = None
    """Only the models whose ids this text file lists, one a line; ``assets/prior/models.txt`` is what the
    learned prior was trained on."""
    pictures: RenderDataConfig = field(default_factory=RenderDataConfig)


@dataclass(frozen=True)
class PriorTrain:
    """Train the learned prior; goes on where it was stopped."""

    training: TrainConfig


@dataclass(frozen=True)
class PriorEvaluate:
    """Sample a learned prior and count how often the picture is nearest to what was asked for."""

    views: Annotated[Positional[Path], arg(metavar="VIEWS")]
    """A folder made by "studio prior render-data"."""
    prior: PriorName = "small"
    """The prior."""
    output: Path = Path("evaluation")
    """The folder for the table and the sample sheet."""
    sampling: EvaluateConfig = field(default_factory=EvaluateConfig)


@dataclass(frozen=True)
class PriorFilm:
    """Make a video that "studio generate --video" can follow: a known motion of the exact prior's models, or
    what a video diffusion model draws."""

    prompt: Annotated[Positional[str], arg(metavar="PROMPT")]
    """What to show; of a diffusion model also how it moves, before a plain background."""
    video: Annotated[Positional[Path], arg(metavar="VIDEO.mp4")]
    """The file to write."""
    prior: PriorName = "library"
    """The exact prior, a folder of your own models or of a video diffusion model, or the latter's hub id."""
    motion: MotionName = "bend"
    """Of the exact prior's models."""
    size: Annotated[int, arg(metavar="PIXELS")] = 256
    """Width and height, of the exact prior's pictures; a diffusion model has its own."""
    frames: Annotated[int, arg(metavar="N")] = 16
    frames_per_second: Annotated[float, arg(metavar="RATE")] = 8.0
    negative: str = ""
    """What a diffusion model is to avoid."""
    steps: Annotated[int, arg(metavar="N")] = 50
    """Of a diffusion model, two calls each."""
    guidance_scale: Annotated[float, arg(metavar="SCALE")] = 7.5
    """Of classifier-free guidance."""
    seed: Annotated[int, arg(metavar="N")] = 0
    offline: Offline = False


PriorCommand = (
    Annotated[PriorInfo, subcommand(name="info")]
    | Annotated[PriorVocab, subcommand(name="vocab")]
    | Annotated[PriorFilm, subcommand(name="film")]
    | Annotated[PriorBuildCatalogue, subcommand(name="build-catalogue")]
    | Annotated[PriorRenderData, subcommand(name="render-data")]
    | Annotated[PriorTrain, subcommand(name="train")]
    | Annotated[PriorEvaluate, subcommand(name="evaluate")]
)


@dataclass(frozen=True)
class Prior:
    """Look at priors, and make your own."""

    command: PriorCommand


@dataclass(frozen=True)
class Batch:
    """Make every row of a table of prompts; started again, it does what is left."""

    table: Annotated[Positional[Path], arg(metavar="TABLE.csv")]
    """Columns: prompt, and as wished negative, seed, preset, prior, steps, or any key of a recipe such as
    stages.0.resolution. Empty cells leave the preset's own."""
    out: Path = Path("batch")
    """The folder of the runs, of manifest.jsonl and of errors.jsonl."""
    preset: str = "default"
    """Of rows that name none."""
    formats: Annotated[str | None, arg(metavar="A,B,...")] = None
    """Which files every row leaves, such as glb,mp4; left out, the preset's own."""
    workers: Annotated[int | None, arg(metavar="N")] = None
    """Processes on this machine; left out, one for each GPU, or for each core."""
    ray: Annotated[str | None, arg(metavar="auto|local|HOST:PORT")] = None
    """Instead, the machines of a Ray cluster that share the folder."""
    slurm: Annotated[int | None, arg(metavar="N")] = None
    """Instead, so many jobs at a time of a Slurm cluster whose machines share the folder; Slurm's own
    variables, such as SBATCH_PARTITION and SBATCH_GPUS, say what they ask for."""
    retries: Annotated[int, arg(metavar="N")] = 2
    """How often a row is tried again when its worker dies."""
    offline: Offline = False


@dataclass(frozen=True)
class JobsSubmit(OnePrompt):
    """Put a prompt at the end of the queue."""

    workspace: Workspace = Path("workspace")


@dataclass(frozen=True)
class JobsList:
    """Name the jobs, those that are not over first."""

    words: Annotated[str, arg(metavar="TEXT")] = ""
    """Only those whose prompt contains this."""
    most: Annotated[int, arg(metavar="N")] = 50
    """How many."""
    workspace: Workspace = Path("workspace")


@dataclass(frozen=True)
class OneJob:
    """What every command about one job is told."""

    job: Annotated[Positional[int], arg(metavar="JOB")]
    """Its number."""
    workspace: Workspace = Path("workspace")


@dataclass(frozen=True)
class JobsShow(OneJob):
    """Say everything about a job."""


@dataclass(frozen=True)
class JobsCancel(OneJob):
    """End a job at its next step."""


@dataclass(frozen=True)
class JobsPause(OneJob):
    """Let a job rest from its next step on."""


@dataclass(frozen=True)
class JobsResume(OneJob):
    """Let a paused job go on."""


@dataclass(frozen=True)
class JobsRetry(OneJob):
    """Put a failed or cancelled job at the end of the queue; it goes on from its last checkpoint."""


@dataclass(frozen=True)
class JobsMove(OneJob):
    """Give a waiting job another turn."""

    before: Annotated[int | None, arg(metavar="JOB")] = None
    """The waiting job that it comes before; left out, it comes last."""


@dataclass(frozen=True)
class JobsWork:
    """Take jobs from the queue until stopped with Ctrl-C: one worker a device."""

    until_empty: bool = False
    """Stop when no job waits."""
    with_parent: bool = False
    """Stop when the process that started this one ends."""
    workspace: Workspace = Path("workspace")


JobsCommand = (
    Annotated[JobsSubmit, subcommand(name="submit")]
    | Annotated[JobsList, subcommand(name="list")]
    | Annotated[JobsShow, subcommand(name="show")]
    | Annotated[JobsCancel, subcommand(name="cancel")]
    | Annotated[JobsPause, subcommand(name="pause")]
    | Annotated[JobsResume, subcommand(name="resume")]
    | Annotated[JobsRetry, subcommand(name="retry")]
    | Annotated[JobsMove, subcommand(name="move")]
    | Annotated[JobsWork, subcommand(name="work")]
)


@dataclass(frozen=True)
class Jobs:
    """A queue of runs that outlives its workers."""

    command: JobsCommand


@dataclass(frozen=True)
class App:
    """Show the studio in a browser, and take its queue's jobs."""

    workspace: Annotated[Path, arg(metavar="FOLDER")] = Path("workspace")
    """The folder of the queue and its runs; nothing else is ever shown."""
    host: str = "127.0.0.1"
    """Where to listen; others than this machine's own address want --auth."""
    port: int = 7860
    """Where to listen."""
    root_path: str = ""
    """What a proxy puts before the app's own paths, such as /studio."""
    auth: Annotated[Path | None, arg(metavar="FILE")] = None
    """Who may come in: a file with a line name:password for each."""
    shared_queue: bool = False
    """Let everyone look at everyone's jobs."""
    most_waiting: Annotated[int, arg(metavar="N")] = 200
    """Jobs that one client may have waiting."""
    preset: Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="RECIPE")] = ()
    """Offer a recipe of your own beside the presets; may be given again."""
    prior: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FOLDER|HUB-ID")] = ()
    """Offer a prior beside the studio's own; may be given again."""
    no_workers: bool = False
    """Only show; "studio jobs work" takes the jobs elsewhere."""


@dataclass(frozen=True)
class Doctor:
    """Say what this machine has, which kernels and priors it runs, and why."""

    output: Path = Path("runs")
    """The folder that runs would be written to."""
    offline: bool = False
    """Do not ask the hub which models it still has."""


@dataclass(frozen=True)
class Cite:
    """Print the papers behind a preset, as BibTeX."""

    preset: Annotated[Positional[str], arg(metavar="PRESET")] = "default"
    """Its name, or the path of a recipe."""


Command = (
    Generate
    | Animate
    | Resume
    | Compare
    | Export
    | Render
    | Presets
    | Prior
    | Batch
    | Jobs
    | App
    | Doctor
    | Cite
)
