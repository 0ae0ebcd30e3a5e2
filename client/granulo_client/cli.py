# SPDX-License-Identifier: Apache-2.0
"""The `granulo` command: exit code 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

import sys

import typer

from granulo_client.commands import (
    adapt,
    analyze,
    checkpoints,
    compare_images,
    config,
    cross_validate,
    datasets,
    evaluate,
    models,
    operations,
    recipes,
    render,
    run,
    screen,
    segment,
    store,
    study,
    train,
    up,
    version,
)
from granulo_client.commands.security import App
from granulo_client.commands.session import print_json
from granulo_client.errors import GranuloClientError
from granulo_client.traces import traced

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

app = App(
    name="granulo",
    help="Particle statistics from micrographs, with networks trained on rendered images only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("run")(run.run)
app.add_typer(recipes.app, name="recipes")
app.command("render")(render.render)
app.add_typer(datasets.app, name="datasets")
app.command("train")(train.train)
app.command("cross-validate")(cross_validate.cross_validate)
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(models.app, name="models")
app.command("adapt")(adapt.adapt)
app.command("segment")(segment.segment)
app.command("analyze")(analyze.analyze)
app.command("screen")(screen.screen)
app.command("evaluate")(evaluate.evaluate)
app.command("compare-images")(compare_images.compare_images)
app.add_typer(operations.app, name="operations")
app.add_typer(study.app, name="study")
app.add_typer(store.app, name="store")
app.add_typer(config.app, name="config")
app.command("version")(version.version)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and end the process with its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    sys.exit(run_command(words))


def run_command(arguments: list[str]) -> int:
    """Run the command; errors are told on standard error.

    Parameters
    ----------
    arguments : list of str
        Words after the command's name.

    Returns
    -------
    int
        Exit code.
    """
    as_json = "--json" in arguments
    try:
        with traced(" ".join(["granulo", *arguments[:1]])):
            code = app(arguments, prog_name="granulo", standalone_mode=False)
    except typer.TyperException as error:
        _tell_usage(error)
        if as_json:
            print_json({"error": {"code": "INVALID_ARGUMENT", "message": error.format_message()}})
        return error.exit_code
    except GranuloClientError as error:
        _tell(error)
        if as_json and not error.in_document:
            print_json({"error": error.to_dict()})
        return USAGE if error.is_usage else FAILED
    except typer.Abort:
        code = INTERRUPTED
    if code == INTERRUPTED:
        _write("Interrupted. What is finished is kept; the same command again continues.")
    return code if isinstance(code, int) else DONE


def _tell_usage(error: typer.TyperException) -> None:
    if error.message.startswith("Usage:"):  # the help of a group that was given no command
        _write(error.message)
        return
    _write(f"Error: {error.format_message()}")
    context = getattr(error, "ctx", None)
    if context is not None:
        _write(f"`{context.command_path} --help` shows what there is.")


def _tell(error: GranuloClientError) -> None:
    _write(f"Error: {error.message}")
    for violation in error.violations:
        if violation.description not in error.message:
            _write(f"  {violation.field}: {violation.description}")
    if error.retry_after_s is not None:
        _write(f"  Try again in {error.retry_after_s:.0f} s.")


def _write(text: str) -> None:
    sys.stderr.write(f"{text}\n")
