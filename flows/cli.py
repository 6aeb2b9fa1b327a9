"""The command line: `stillstream COMMAND …`.

Exit codes: 0 the job completed (failed items are listed and counted), 1 the job itself failed, or items
failed under --strict, 2 the command was wrong, 130 interrupted. Everything heavy is imported inside the
commands, so that `--help` answers at once.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from flows.cli_flows import flows_app
from flows.cli_models import models_app
from flows.command_parts import (
    INTERRUPTED,
    AsJson,
    BeamOption,
    ConfigFile,
    FlinkMaster,
    JobEndpoint,
    LogFormat,
    Out,
    Runner,
    Strict,
    WorkerPool,
    Workers,
    finish,
    is_verbose,
    log_format_first,
    settings_of,
)
from flows.console import error_line, quiet_libraries, stage_progress
from storage.errors import StillstreamError, UsageError
from storage.logs import FORMAT_VARIABLE, redact

__all__ = [
    "animate",
    "app",
    "check_config",
    "choose_logs",
    "crawl",
    "dataset",
    "demo",
    "evaluate",
    "gallery",
    "main",
    "run",
    "status",
    "train",
]

app = typer.Typer(
    name="stillstream",
    help="Turn photo libraries into living pictures: water, clouds and smoke move, all else stays still.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

config_app = typer.Typer(help="Look at the settings.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(models_app, name="models")
app.add_typer(flows_app, name="flows")


@app.callback()
def choose_logs(log_format: LogFormat = None) -> None:
    """Turn photo libraries into living pictures: water, clouds and smoke move, all else stays still."""
    if log_format is not None:
        os.environ[FORMAT_VARIABLE] = log_format
        quiet_libraries(verbose=is_verbose())


@app.command()
def demo(
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Folder for everything the demo makes.")
    ] = "demo",
    videos: Annotated[
        str | None, typer.Option(metavar="URL", help="Own videos instead of drawn sample scenes.")
    ] = None,
    photos: Annotated[
        str | None, typer.Option(metavar="URL", help="Own photos instead of drawn sample scenes.")
    ] = None,
) -> None:
    """See the whole way once: videos, dataset, training, loops, gallery.

    Example:  [bold]stillstream demo --out demo[/bold]
    """
    from flows.demo import run_demo

    with stage_progress() as on_progress:
        outcome = run_demo(out, videos=videos, photos=photos, on_progress=on_progress)
    finish(outcome, strict=False, as_json=False)


@app.command()
def crawl(
    sources: Annotated[
        str,
        typer.Argument(
            metavar="SOURCES",
            help="A list (txt, csv, jsonl, parquet), folder, web page, sitemap, feed, commons:CATEGORY, "
            "or ytdlp:URL.",
        ),
    ],
    out: Out,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST[:PORT]", help="A host that may have a private address; repeatable."),
    ] = None,
    licences: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", help="Only these, such as cc0,cc-by,cc-by-sa.", show_default="all"),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Links to follow away from a page.", show_default="0"),
    ] = None,
    max_pages: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pages to read at most.", show_default="100")
    ] = None,
    config: ConfigFile = None,
    runner: Runner = None,
    workers: Workers = None,
    flink_master: FlinkMaster = None,
    job_endpoint: JobEndpoint = None,
    worker_pool: WorkerPool = None,
    beam_option: BeamOption = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Fetch videos from the web politely, with licence and author; a rerun fetches what is new or failed.

    Example:  [bold]stillstream crawl links.csv --out videos --licences cc0,cc-by[/bold]
    """
    from flows import jobs

    names = [name.strip() for name in licences.split(",") if name.strip()] if licences else None
    looking = {"depth": depth, "max_pages": max_pages}
    settings = settings_of(config).override(
        "runner",
        name=runner,
        workers=workers,
        flink_master=flink_master,
        job_endpoint=job_endpoint,
        worker_pool=worker_pool,
        options=beam_option,
    )
    settings = settings.override(
        "crawl",
        licences=names,
        sources={name: value for name, value in looking.items() if value is not None},
        fetch={"allow_hosts": allow_host} if allow_host else None,
    )
    with stage_progress("crawl", silent=as_json) as on_progress:
        outcome = jobs.crawl_videos(sources, out, settings, on_progress)
    finish(outcome, strict=strict, as_json=as_json)


@app.command()
def dataset(
    videos: Annotated[
        str | None,
        typer.Argument(metavar="VIDEOS", help="A file, folder, glob or fsspec URL.", show_default=False),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="URL", help="The dataset: a new folder, or one to extend.")
    ] = None,
    config: ConfigFile = None,
    runner: Runner = None,
    workers: Workers = None,
    flink_master: FlinkMaster = None,
    job_endpoint: JobEndpoint = None,
    worker_pool: WorkerPool = None,
    beam_option: BeamOption = None,
    rescore: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Judge this dataset's clips anew by the limits in the settings."),
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Re-read every shard of this dataset and tell what is wrong."),
    ] = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Distil videos into a dataset of steady clips with their average motion.

    Example:  [bold]stillstream dataset videos/ --out datasets/water --workers 2[/bold]
    """
    from flows import jobs

    settings = settings_of(config).override(
        "runner",
        name=runner,
        workers=workers,
        flink_master=flink_master,
        job_endpoint=job_endpoint,
        worker_pool=worker_pool,
        options=beam_option,
    )
    if verify is not None or rescore is not None:
        instead = "--verify" if verify is not None else "--rescore"
        _refuse(("VIDEOS", videos), ("--out", out), ("--rescore", verify and rescore), beside=instead)
        outcome = jobs.verify_dataset(verify) if verify else jobs.rescore_dataset(str(rescore), settings)
        finish(outcome, strict=strict or verify is not None, as_json=as_json)
        return
    videos, out = _required("VIDEOS", videos), _required("--out", out)
    with stage_progress("dataset", silent=as_json) as on_progress:
        outcome = jobs.build_dataset(videos, out, settings, on_progress)
    finish(outcome, strict=strict, as_json=as_json)


@app.command()
def train(
    kind: Annotated[
        Literal["motion", "animator"], typer.Argument(metavar="{motion,animator}", help="What to train.")
    ],
    data: Annotated[
        str, typer.Option("--data", metavar="URL", help="A dataset made by `stillstream dataset`.")
    ],
    out: Out,
    config: Annotated[
        str, typer.Option(metavar="FILE|NAME", help="A training configuration, by name or as a JSON file.")
    ] = "default",
    nproc: Annotated[int, typer.Option(min=1, metavar="N", help="Training processes on this machine.")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train the motion network or the animator on a dataset.

    Example:  [bold]stillstream train motion --data datasets/water --out weights/motion --config small[/bold]
    """
    from flows import jobs

    with stage_progress("train", silent=as_json) as on_progress:
        outcome = jobs.train_model(
            jobs.TrainingJob(kind=kind, data=data, out=out, config=config, nproc=nproc, resume=resume),
            on_progress,
        )
    finish(outcome, strict=False, as_json=as_json)


@app.command()
def evaluate(
    data: Annotated[
        str, typer.Option("--data", metavar="URL", help="A dataset, or several separated by commas.")
    ],
    out: Out,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Weights, or a model registry, to judge.",
            show_default="the weights in the package",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this split: train, val or test.", show_default="all"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="At most N clips, the sources in turn.")
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Which source each file was cut from (csv, tsv, JSON: file, source).",
            show_default="every file is a source",
        ),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge weights on clips beside baselines: evaluation.json and a page with pictures.

    Example:  [bold]stillstream evaluate --data datasets/water --checkpoint weights --out judged[/bold]
    """
    from flows import jobs

    settings = settings_of(config).override("evaluate", split=split, limit=limit, groups=groups)
    with stage_progress("evaluate", silent=as_json) as on_progress:
        outcome = jobs.evaluate_weights(data, checkpoint, out, settings, on_progress)
    finish(outcome, strict=False, as_json=as_json)


@app.command()
def animate(
    photos: Annotated[str, typer.Argument(metavar="PHOTOS", help="A file, folder, glob or fsspec URL.")],
    out: Out,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Weights, or a model registry.", show_default="the weights in the package"
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="mp4|webm|gif|webp|png|…",
            help="One or several, with commas.",
            show_default="mp4",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Length of the loop.", show_default="2")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(metavar="N", help="Frames per second.", show_default="30")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(metavar="X", help="How fast things move.", show_default="1.0")
    ] = None,
    renderer: Annotated[
        str | None,
        typer.Option(metavar="auto|deep|splat", help="With the animator or without.", show_default="auto"),
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", help="Longest side of the output; 0 keeps the size.", show_default="0"
        ),
    ] = None,
    save_motion: Annotated[bool, typer.Option("--save-motion", help="Also write NAME.motion.npy.")] = False,
    repeat: Annotated[
        int | None, typer.Option(metavar="N", help="Bake N periods into a video.", show_default="1")
    ] = None,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="Keep EXIF and place; they are left out otherwise.")
    ] = False,
    hints: Annotated[
        str | None, typer.Option(metavar="FILE", help="Arrows and areas (JSON) for every photo.")
    ] = None,
    mask: Annotated[str | None, typer.Option(metavar="FILE", help="A picture: what is white moves.")] = None,
    freeze: Annotated[
        str | None, typer.Option(metavar="FILE", help="A picture: what is white stays still.")
    ] = None,
    config: ConfigFile = None,
    runner: Runner = None,
    workers: Workers = None,
    flink_master: FlinkMaster = None,
    job_endpoint: JobEndpoint = None,
    worker_pool: WorkerPool = None,
    beam_option: BeamOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Render again what is already done.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and animate photos as they arrive.")] = False,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Animate photos as endless loops; a rerun skips what is done.

    Example:  [bold]stillstream animate photos/ --out loops --format mp4[/bold]
    """
    from flows import jobs

    settings = settings_of(config).override(
        "runner",
        name=runner,
        workers=workers,
        flink_master=flink_master,
        job_endpoint=job_endpoint,
        worker_pool=worker_pool,
        options=beam_option,
    )
    settings = settings.override(
        "animate",
        checkpoint=checkpoint,
        format=format,
        seconds=seconds,
        fps=fps,
        speed=speed,
        renderer=renderer,
        max_side=max_side,
        save_motion=save_motion or None,
        repeat=repeat,
        keep_metadata=metadata or None,
        hints=hints,
        mask=mask,
        freeze=freeze,
        overwrite=overwrite or None,
    )
    if watch:
        for outcome in jobs.watch_photos(photos, out, settings):
            finish(outcome, strict=False, as_json=as_json)
        return
    with stage_progress("animate", silent=as_json) as on_progress:
        outcome = jobs.animate_photos(photos, out, settings, on_progress)
    finish(outcome, strict=strict, as_json=as_json)


@app.command()
def gallery(
    url: Annotated[str, typer.Argument(metavar="URL", help="A folder that `stillstream animate` wrote.")],
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Heading of the page.")] = None,
    config: ConfigFile = None,
) -> None:
    """Write index.html beside the loops: a page that plays them, with no request to anywhere else.

    Example:  [bold]stillstream gallery loops[/bold]
    """
    from flows import jobs

    settings = settings_of(config).override("gallery", title=title)
    finish(jobs.publish_gallery(url, settings), strict=False, as_json=False)


@app.command()
def status(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="A dataset, model registry, animated library or crawl.")
    ],
    as_json: AsJson = False,
) -> None:
    """Tell how many items are in which state, while a run is going on too.

    Example:  [bold]stillstream status s3://library/loops[/bold]
    """
    from flows import jobs

    finish(jobs.folder_status(url), as_json=as_json)


@config_app.command("check")
def check_config(config: ConfigFile = None) -> None:
    """Read the settings (file and environment), check every value, and show what is in force.

    Example:  [bold]stillstream config check --config stillstream.toml[/bold]
    """
    sys.stdout.write(redact(settings_of(config).as_toml()))


def main() -> None:
    """Entry point of the `stillstream` command."""
    quiet_libraries(verbose=is_verbose())
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Errors of ours become one line; a bug keeps its traceback."""
    try:
        code = app(log_format_first(arguments), prog_name="stillstream", standalone_mode=False)
    except typer.TyperException as exc:
        error_line(f"{exc.format_message()} (see `{_help_command(arguments)}`)")
        return 2
    except UsageError as exc:
        error_line(str(exc))
        return 2
    except StillstreamError as exc:
        error_line(str(exc))
        return 1
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone (`| head`); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if code == INTERRUPTED:  # which is also what typer makes of Ctrl-C
        error_line("interrupted; what is finished is kept, the same command goes on from there")
    return code if isinstance(code, int) else 0


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _help_command(arguments: Sequence[str]) -> str:
    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    command = arguments[0] if arguments and arguments[0] in known else ""
    return " ".join(["stillstream", *([command] if command else []), "--help"])


def _required(name: str, value: str | None) -> str:
    if value is None:
        raise UsageError(f"{name} is missing; see `stillstream dataset --help`")
    return value


def _refuse(*options: tuple[str, object], beside: str) -> None:
    if given := [name for name, value in options if value is not None]:
        raise UsageError(f"{', '.join(given)} cannot go with {beside}; leave one of them out")


if __name__ == "__main__":
    main()
