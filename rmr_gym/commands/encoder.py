"""`rmr-gym encoder`: make and look at pretrained encoders."""

from collections.abc import Sequence

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands.console import out_console, parsed, print_rows

app = SubcommandApp()
Positional = tyro.conf.Positional


def encoder(arguments: Sequence[str]) -> None:
    """Carry `rmr-gym encoder` out; what trains is imported for ``export`` alone."""
    if arguments[:1] == ["export"]:
        from rmr_gym.commands.stages import Export  # noqa: PLC0415  (torch)

        parsed(Export, arguments[1:], "rmr-gym encoder export").execute()
    else:
        app.cli(prog="rmr-gym encoder", args=list(arguments))


@app.command
def export() -> None:
    """Write an encoder of a game, trained now or found; its --help tells the options."""
    encoder(["export"])


@app.command
def show(encoder: Positional[str]) -> None:
    """Print the card of an encoder.

    Args:
        encoder: Its folder, or the name of a shipped one.
    """
    from rmr_gym.models.pretrained import PretrainedEncoder  # noqa: PLC0415

    text = PretrainedEncoder.from_pretrained(encoder).card()
    out_console.print(text, markup=False, highlight=False, soft_wrap=True)


@app.command(name="list")
def list_() -> None:
    """List the encoders that come with the package."""
    from rmr_gym.models.pretrained import PretrainedEncoder, shipped_encoders  # noqa: PLC0415

    rows = []
    for name, folder in shipped_encoders().items():
        read = PretrainedEncoder.from_pretrained(folder)
        training = read.provenance.get("training", {})
        rows.append(
            {
                "name": name,
                "arm": training.get("arm", "?"),
                "step": training.get("step", "?"),
                "dim": read.config.dim,
                "P": read.config.core or "-",
            }
        )
    print_rows(rows, ("name", "arm", "step", "dim", "P"))
